"""How one model is tuned (paper appendix C), apart from what it is tuned on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import model_validator

from trainables.paths import Named
from trainables.spec import Spec, identity

MOST_CHECKPOINTS = 10_000
RESULT_VERSION = 2
"""Raised when the same mixture, base, recipe and seed would give other weights (see `trainables.finetune`)."""


class Recipe(Spec):
    """The fine-tuning recipe; every field changes the tuned weights, so every field is identity.

    AdamW (0.9, 0.999) without weight decay, gradients clipped at 1.0 and no warm-up are fixed choices, part
    of `RESULT_VERSION`, which is keyed with every fine-tune.
    """

    method: Literal["full", "lora"] = identity("full")
    rank: int = identity(16, ge=1, description="LoRA rank; without effect on full fine-tunes")
    alpha: int = identity(32, ge=1, description="LoRA alpha")
    targets: tuple[str, ...] = identity(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="modules that get an adapter",
    )
    steps: int = identity(2000, ge=1, description="optimizer steps")
    batch_size: int = identity(128, ge=1, description="examples per optimizer step, over all workers")
    learning_rate: float = identity(1.0e-5, gt=0)
    schedule: Literal["constant"] = identity("constant")
    dropout: float = identity(0.05, ge=0, lt=1, description="on attention and on residual branches")
    max_input_tokens: int = identity(1024, ge=1, description="prompts are cut here")
    max_target_tokens: int = identity(512, ge=1, description="responses are cut here, end-of-text included")
    checkpoint_every: int = identity(200, ge=1, description="steps between checkpoints")
    template: Named = identity("plain", description="plain, chat, or the path of a file with {instruction}")
    precision: Literal["bf16", "fp32"] = identity("bf16", description="forward and backward; AdamW's copy is fp32")

    @model_validator(mode="after")
    def _not_a_checkpoint_a_step(self) -> Self:
        if self.steps // self.checkpoint_every > MOST_CHECKPOINTS:
            raise ValueError(
                f"checkpoint_every {self.checkpoint_every} makes more than {MOST_CHECKPOINTS} checkpoints of "
                f"{self.steps} steps; raise it."
            )
        return self

    def identity(self) -> dict[str, object]:
        """As :meth:`Spec.identity`, without the LoRA fields where nothing uses them."""
        fields = super().identity()
        if self.method == "full":
            for unused in ("rank", "alpha", "targets"):
                del fields[unused]
        return fields

    @property
    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps after which a checkpoint is saved: every ``checkpoint_every``, and the last."""
        return tuple(sorted({*range(self.checkpoint_every, self.steps, self.checkpoint_every), self.steps}))


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after so many steps, of a fine-tune's."""
    return f"checkpoint-{step:06d}"


def checkpoints_among(files: Iterable[str]) -> list[str]:
    """The checkpoints that files of a fine-tune, ``<folder>/<file>``, belong to, in the order of their steps."""
    return sorted({name.split("/")[0] for name in files if name.startswith("checkpoint-")})
