"""What a fine-tune takes of each GPU's memory, worked out before it starts.

Weights, gradients and optimizer are counted as DeepSpeed lays them out under each ZeRO stage with gradients added up in
fp32 (the estimators of its documentation, "Memory requirements": 18 bytes a parameter; its source where
stages differ), and a test holds them against the tensors of real engines. Activations follow Korthikanti et al. 2022,
section 4.1: what the backward pass needs is kept, two bytes an element in bf16; counted for today's layers: RMSNorm
that works in fp32, grouped keys, gated feed-forward, and attention that never holds its scores.

CUDA itself, its libraries and fragmentation are not counted; :data:`MARGIN` is kept free for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainables.model_shape import ModelShape
from trainables.recipe import Recipe

MARGIN = 0.1
"""Share of a GPU that is kept free for what is not counted."""
BUCKET = 50_000_000
"""Elements of a communication bucket, and of what ZeRO 3 fetches ahead (`trainables.world`)."""
MAX_LIVE = 1_000_000_000
"""Elements ZeRO 3 may hold gathered, or step on, at a time: DeepSpeed's stage3_max_live_parameters, sub_group_size."""
REDUCED = 500_000_000
"""Elements DeepSpeed's engine adds up over workers at a time where it keeps gradients whole (stages 0 and 1)."""
HEAD_CHUNK = 2**24
"""Logits the loss works on at a time, in fp32 (`trainables.tuning_model`)."""


@dataclass(frozen=True)
class Settled:
    """How a fine-tune is laid out; micro_batch in examples per forward pass and worker."""

    zero_stage: int
    micro_batch: int
    gradient_checkpointing: bool
    offload: bool

    def __str__(self) -> str:
        extras = [("offload", self.offload), ("gradient checkpointing", self.gradient_checkpointing)]
        return f"ZeRO {self.zero_stage}" + "".join(f", {name}" for name, on in extras if on)


@dataclass(frozen=True)
class Need:
    """Bytes of one worker; all on its GPU but ``host``, which offload moves to main memory."""

    weights: int
    gradients: int
    optimizer: int
    """The fp32 copy of what is trained, and AdamW's two moments."""
    buffers: int
    """What DeepSpeed communicates through, and what ZeRO 3 gathers."""
    activations: int
    step: int
    """What an optimizer step copies, when activations and buffers are free again."""
    host: int

    @property
    def gpu(self) -> int:
        """Bytes of the GPU at the peak."""
        return self.weights + self.gradients + self.optimizer + max(self.buffers + self.activations, self.step)


def memory_need(shape: ModelShape, recipe: Recipe, settled: Settled, workers: int, longest: int) -> Need:
    """What each of ``workers`` takes; ``longest`` is the longest training example, in tokens."""
    element = element_bytes(recipe)
    held, trained = shape.held(recipe), shape.trained(recipe)
    stage, part = settled.zero_stage, -(-trained // workers)
    bucket = 2 * element * BUCKET
    reduced = 4 * min(trained, REDUCED) if workers > 1 else 0
    live = min(held, MAX_LIVE + BUCKET)
    gradients, optimizer, buffers, step = {
        0: (element * trained, (8 if element == 4 else 12) * trained, 0, max(reduced, 4 * trained)),
        # In bf16 a gradient is there twice: as it was computed, and added up in fp32.
        1: (6 * trained, 12 * part, 0, reduced) if element == 2 else (4 * trained, 12 * part, bucket, 4 * part),
        2: (4 * part, 12 * part, bucket, 4 * part),
        3: (4 * part, 12 * part, bucket + element * live, 4 * min(part, MAX_LIVE)),
    }[stage]
    host = 0
    if settled.offload:
        # Main memory holds the step's gradients too. Stage 2 also has the stepped weights there, and on both sides
        # room for one parameter's gradient on its way.
        way = element * shape.largest_trained(recipe) if stage == 2 else 0
        host = gradients + optimizer + 4 * part + (element * part + way if stage == 2 else 0)
        buffers += way
        gradients = optimizer = step = 0
    return Need(
        weights=element * (-(-held // workers) if stage == 3 else held),
        gradients=gradients,
        optimizer=optimizer,
        buffers=buffers,
        activations=_activations(shape, recipe, settled, longest),
        step=step,
        host=host,
    )


def element_bytes(recipe: Recipe) -> int:
    """Bytes of a weight in the forward pass."""
    return 2 if recipe.precision == "bf16" else 4


def _activations(shape: ModelShape, recipe: Recipe, settled: Settled, longest: int) -> int:
    """Bytes kept for the backward pass of a micro-batch of the longest examples."""
    element = element_bytes(recipe)
    norm = (4 + 2 * element) * shape.hidden
    attention = 2 * element * (shape.queries + shape.keys)
    feed_forward = (4 if shape.gated else 2) * element * shape.feed_forward
    masks = 2 * shape.hidden if recipe.dropout else 0
    layer = shape.norms * norm + attention + feed_forward + masks
    layers = shape.layers * layer
    if settled.gradient_checkpointing:
        layers = shape.layers * element * shape.hidden + layer
    targets = settled.micro_batch * min(longest, recipe.max_target_tokens)
    logits = targets * shape.vocabulary
    # The logits and their gradient, and what softmax works on in fp32.
    return settled.micro_batch * longest * (layers + norm) + 2 * element * logits + 8 * min(logits, HEAD_CHUNK)
