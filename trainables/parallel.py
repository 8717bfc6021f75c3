"""How a fine-tune is spread over devices and memory: runtime settings, never part of what the result is.

What the user leaves to ``auto`` is decided here from the size of the model and of the device, in one place, so
that a log line can say what was chosen.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch

from trainables.recipe import Recipe
from trainables.spec import Spec, runtime


class Parallel(Spec):
    """Placement and memory of a fine-tune; ``auto`` is decided by :func:`settle`."""

    zero_stage: Literal["auto", 0, 1, 2, 3] = runtime("auto", description="DeepSpeed ZeRO stage")
    micro_batch: Literal["auto"] | int = runtime("auto", description="examples per forward pass and worker")
    offload: bool = runtime(False, description="optimizer state in main memory (ZeRO 2 and 3)")
    gradient_checkpointing: Literal["auto"] | bool = runtime("auto")
    threads: int | None = runtime(None, description="torch threads per worker; None leaves them as they are")
    state_every: int = runtime(0, ge=0, description="steps between resumable states; 0 for none")


@dataclass(frozen=True)
class Settled:
    """What :func:`settle` chose; micro_batch in examples."""

    zero_stage: int
    micro_batch: int
    gradient_checkpointing: bool
    offload: bool


def settle(parallel: Parallel, recipe: Recipe, base_config: Any, world: int, longest: int) -> Settled:
    """Decide what was left to ``auto``; ``longest`` is the longest training example, in tokens.

    Per parameter, full fine-tuning in bf16 with AdamW takes 2 bytes for the weights, 4 for gradients and 12 for the
    fp32 copy and moments (ZeRO, Rajbhandari et al. 2020, section 3, with fp32 accumulation). Stage 1
    divides the last over the workers, stage 2 the gradients too, stage 3 everything, each for more communication.
    The lowest that leaves 40% of the device for activations is taken.
    """
    text = base_config.get_text_config()
    hidden, layers, vocabulary = text.hidden_size, text.num_hidden_layers, text.vocab_size
    parameters = 12 * layers * hidden**2 + 2 * vocabulary * hidden
    trained = parameters if recipe.method == "full" else 0
    memory = _device_memory()
    if parallel.zero_stage == "auto":
        needs = {1: 2 * parameters + (4 + 12 / world) * trained, 2: 2 * parameters + 16 / world * trained}
        stage = next((number for number, need in needs.items() if need < 0.6 * memory), 3)
    else:
        stage = parallel.zero_stage
    if parallel.offload and stage < 2:
        stage = 2
    share = -(-recipe.batch_size // world)
    # Activations per token of one layer: about 34 bytes a hidden unit (Korthikanti et al. 2022, section 4.1).
    per_token = 34 * hidden * layers + 10 * vocabulary
    whole = per_token * longest
    room = 0.3 * memory
    checkpointing = parallel.gradient_checkpointing
    if checkpointing == "auto":
        checkpointing = whole > room
    if checkpointing:
        whole = (2 * hidden * layers + 34 * hidden + 10 * vocabulary) * longest
    if parallel.micro_batch == "auto":
        # On a CPU little padding is worth more than large matrices (measured on tiny: 16 examples 3-5% faster than 32).
        micro = int(room // whole) if torch.cuda.is_available() else min(16, int(room // whole))
    else:
        micro = parallel.micro_batch
    return Settled(stage, max(1, min(micro, share)), bool(checkpointing), parallel.offload)


def _device_memory() -> float:
    """Bytes of the device a worker trains on; on a CPU, what is free of main memory divided by the workers here."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    import psutil

    return float(psutil.virtual_memory().available) / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
