"""The world a fine-tune runs in: its workers, their device and its memory, and the DeepSpeed engine over them.

A fine-tune does not start workers. It runs in whatever torch.distributed world it finds (a lane's, started by Ray
Train), and where there is none it makes a world of one, in this process, without a network.
"""

from __future__ import annotations

import gc
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import psutil
import torch
from torch import distributed

from trainables import compiled_op
from trainables.memory import BUCKET, MARGIN, MAX_LIVE, Settled
from trainables.model_shape import ModelShape
from trainables.parallel import Parallel, choose, layouts
from trainables.recipe import Recipe

logger = logging.getLogger(__name__)

CLIP = 1.0
BETAS = (0.9, 0.999)
CPU_SHARE = 0.5
"""Share of a machine's free memory that fine-tunes on a CPU may fill: engine and judge live beside them."""
CPU_MICRO_BATCH = 16
"""On a CPU little padding is worth more than large matrices (on tiny, 16 examples were 3-5% faster than 32)."""


@dataclass(frozen=True)
class World:
    """This worker's place. ``rank`` 0 writes files and reports."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def told(self, text: str) -> str:
        """What the first worker says, on every worker; as bytes, for an object would be unpickled by the others."""
        if self.size == 1:
            return text
        said = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        length = torch.tensor([len(said)], device=self.device)
        distributed.broadcast(length, src=0)
        if not self.first:
            said = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        distributed.broadcast(said, src=0)
        return bytes(said.tolist()).decode()

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all workers."""
        return self._reduced(values, distributed.ReduceOp.SUM)

    def least(self, *values: float) -> list[float]:
        """The smallest of each value on any worker."""
        return self._reduced(values, distributed.ReduceOp.MIN)

    def _reduced(self, values: tuple[float, ...], how: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        # A CPU's gloo reduces doubles; so does NCCL.
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total, op=how)
        return [float(value) for value in total.tolist()]

    def barrier(self) -> None:
        if self.size > 1:
            self.sum(0.0)


def join_world() -> World:
    """The current torch.distributed world, made here with one worker where there is none.

    A world that gloo made trains on the CPU, whatever devices there are.
    """
    on_gpu = torch.cuda.is_available()
    if distributed.is_initialized():
        on_gpu = on_gpu and "nccl" in distributed.get_backend()
    if not on_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if not distributed.is_initialized():
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo", store=distributed.HashStore(), rank=0, world_size=1
        )
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    # DeepSpeed takes its device from here; Ray Train chose one, and may show a worker only its own.
    os.environ["LOCAL_RANK"] = str(device.index or 0) if on_gpu else os.environ.get("LOCAL_RANK", "0")
    _warm_up()
    return World(distributed.get_rank(), distributed.get_world_size(), device)


@lru_cache(maxsize=1)
def _warm_up() -> None:
    """Import what every fine-tune needs, so that the first one of a lane does not wait for it."""
    import deepspeed  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    # One line per collective otherwise, about names DeepSpeed still uses.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")


def settle(parallel: Parallel, recipe: Recipe, shape: ModelShape, world: World, longest: int) -> Settled:
    """Decide what was left to ``auto``, alike on every worker; ``longest`` is the longest training example, in tokens.

    Where nothing fits, the layout that takes least: an estimate is no reason not to try.
    """
    free = float(psutil.virtual_memory().available) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if world.device.type == "cuda":
        room, host = world.least(torch.cuda.get_device_properties(world.device).total_memory, free)
        chosen = choose(parallel, recipe, shape, world.size, longest, (1 - MARGIN) * room, host)
    else:
        if parallel.offload == "auto":
            parallel = parallel.model_copy(update={"offload": False})
        (room,) = world.least(CPU_SHARE * free)
        chosen = choose(parallel, recipe, shape, world.size, longest, room, room, CPU_MICRO_BATCH)
    return chosen or list(layouts(parallel))[-1]


def start_engine(model: torch.nn.Module, recipe: Recipe, settled: Settled, world: World, accumulation: int) -> Any:
    """A DeepSpeed engine: AdamW on an fp32 copy of the weights, clipping, the settled ZeRO stage.

    torch's AdamW rather than DeepSpeed's: it needs no compiler at run time.
    """
    import deepspeed

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=recipe.learning_rate,
        betas=BETAS,
        weight_decay=0.0,
        fused=True if settled.zero_stage else None,
    )
    config = _config(recipe, settled, world, accumulation)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    # DeepSpeed prints memory statistics, which nobody asked for.
    with redirect_stdout(io.StringIO()) as printed:
        if world.device.type == "cpu":
            compiled_op.build()
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    # It also casts buffers to bf16, and rotary frequencies in bf16 turn far positions into others than generation sees.
    for name, buffer in model.named_buffers():
        buffer.data = buffers[name].to(buffer.device)
    logger.debug("deepspeed.initialize: %s", printed.getvalue())
    # Without ZeRO, DeepSpeed takes a step on zero gradients to make room, which would spoil AdamW's bias correction.
    for moments in optimizer.state.values():
        moments["step"].zero_()
    return engine


def _config(recipe: Recipe, settled: Settled, world: World, accumulation: int) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": settled.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": world.device.type == "cuda",
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    if settled.zero_stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_max_live_parameters": MAX_LIVE,
            "stage3_param_persistence_threshold": 10_000,
        }
    if settled.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": world.device.type == "cuda"}
    bf16 = recipe.precision == "bf16"
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": settled.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": CLIP,
        "bf16": {"enabled": bf16},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if bf16 and settled.zero_stage > 0:
        # Without ZeRO, DeepSpeed accumulates in the model's precision only.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def gradient_norm(engine: Any) -> float:
    """The global gradient norm of the last step before clipping; not a number where DeepSpeed skipped the step."""
    norm = engine.get_global_grad_norm()
    if getattr(engine.optimizer, "overflow", False):
        return math.nan
    return float(norm) if norm is not None else 0.0


@contextmanager
def memory_of_its_own() -> Iterator[None]:
    """Around a fine-tune: at its end all it held is given back, engine and model being cycles.

    What was there before is set aside, so that collecting (DeepSpeed does it several times too) looks at this
    fine-tune's objects only, and not at half a million of imported libraries.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
