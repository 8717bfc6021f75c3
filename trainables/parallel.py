"""How a fine-tune is spread over devices and memory: runtime settings, never part of what the result is.

What the user leaves to ``auto`` is decided from what the model needs and the device has. Deciding imports no torch, so
that a plan can tell beforehand what a run would choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from trainables.memory import Settled, memory_need
from trainables.model_shape import ModelShape
from trainables.recipe import Recipe
from trainables.spec import Spec, runtime


class Parallel(Spec):
    """Placement and memory of a fine-tune; ``auto`` is decided by :func:`choose`."""

    zero_stage: Literal["auto", 0, 1, 2, 3] = runtime("auto", description="DeepSpeed ZeRO stage")
    micro_batch: Literal["auto"] | int = runtime("auto", description="examples per forward pass and worker")
    offload: Literal["auto"] | bool = runtime("auto", description="gradients and optimizer in main memory (ZeRO 2, 3)")
    gradient_checkpointing: Literal["auto"] | bool = runtime("auto", description="compute activations twice")
    threads: int | None = runtime(None, description="torch threads per worker; None leaves them as they are")
    state_every: int = runtime(0, ge=0, description="steps between resumable states; 0 for none")


def choose(
    parallel: Parallel,
    recipe: Recipe,
    shape: ModelShape,
    workers: int,
    longest: int,
    room: float,
    host_room: float,
    most: int | None = None,
) -> Settled | None:
    """The first layout that fits into ``room`` bytes of a GPU and ``host_room`` of main memory per worker, or None.

    Its micro-batch is as large as fits, at most the worker's part of a batch, and at most ``most``.
    """
    share = -(-recipe.batch_size // workers)
    for layout in layouts(parallel):
        sizes = range(1, min(share, most or share) + 1) if parallel.micro_batch == "auto" else [layout.micro_batch]
        for size in reversed(sizes):
            tried = Settled(layout.zero_stage, min(size, share), layout.gradient_checkpointing, layout.offload)
            need = memory_need(shape, recipe, tried, workers, longest)
            if need.gpu <= room and need.host <= host_room:
                return tried
    return None


def layouts(parallel: Parallel) -> Iterator[Settled]:
    """What the settings allow, the fastest first; with the least micro-batch where that is left to ``auto``.

    Offload is slow (the step is taken on the CPU), ZeRO 3 gathers every layer twice a pass, gradient
    checkpointing computes a third more; stages 1 and 2 are alike in speed.
    """

    def allowed(setting: object, values: list[int]) -> list[int]:
        return values if setting == "auto" else [int(setting)]  # type: ignore[call-overload]

    micro_batch = 1 if parallel.micro_batch == "auto" else parallel.micro_batch
    for offload in allowed(parallel.offload, [0, 1]):
        # What can be offloaded is what a worker has a part of.
        stages = [stage for stage in allowed(parallel.zero_stage, [1, 2, 3]) if stage > 1 or not offload] or [2]
        for stage in stages:
            for checkpointing in allowed(parallel.gradient_checkpointing, [0, 1]):
                yield Settled(stage, micro_batch, bool(checkpointing), bool(offload))
