"""A prepared base as the model a fine-tune trains: dropout in place, adapters where asked, loss on targets only.

The loss needs the output head at the target positions alone; with vocabularies of 256,000 tokens the head is most
of the work and memory, so positions without a target are dropped before it, by a hook on the head's input. The
model's own treatment of logits (scaling, soft caps) is kept that way. What the loss makes of the logits is then kept
small too: see :class:`SummedCrossEntropy`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainables.batches import MicroBatch
from trainables.dropout import apply_dropout
from trainables.errors import UserError
from trainables.recipe import Recipe
from trainables.weight_files import refusal


@lru_cache(maxsize=2)
def load_tokenizer(base: Path) -> Any:
    """The tokenizer of a prepared base; kept, since a lane tunes one base again and again."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, trust_remote_code=False)


class SummedCrossEntropy(torch.autograd.Function):
    """Cross-entropy in fp32, summed over rows, that keeps nothing in fp32 but one number a row.

    torch's own holds the logits three times more in fp32: with 262,144 words, 3 MB for every target token. Here
    softmax is worked out again in the backward pass, a few rows at a time.
    """

    @staticmethod
    def forward(context: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """``logits`` (rows, vocabulary) in any precision, ``labels`` (rows,); a scalar in fp32."""
        sums = torch.cat([part.float().logsumexp(-1) for part in logits.split(_rows(logits))])
        context.save_for_backward(logits, labels, sums)
        return (sums - logits.gather(1, labels[:, None])[:, 0].float()).sum()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        logits, labels, sums = context.saved_tensors
        result = torch.empty_like(logits)
        size = _rows(logits)
        for part, into, label, total in zip(
            *(value.split(size) for value in (logits, result, labels, sums)), strict=True
        ):
            share = (part.float() - total[:, None]).exp_()
            share.scatter_add_(1, label[:, None], share.new_full((len(label), 1), -1.0))
            into.copy_(share.mul_(gradient))
        return result, None


def _rows(logits: Tensor) -> int:
    """How many rows of logits are worked on at once: about 2**24 numbers."""
    return max(1, 2**24 // logits.shape[1])


class TargetLoss(nn.Module):
    """A causal language model whose forward gives the *summed* cross-entropy over a micro-batch's targets.

    Summed, not averaged: the caller divides by the targets of the whole global batch, so that neither the size of
    a micro-batch nor the number of workers changes the loss or its gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._chosen: Tensor | None = None
        head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
        head.register_forward_pre_hook(self._choose)

    def _choose(self, _head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self._chosen is None:
            return None
        hidden = inputs[0]
        return (hidden.reshape(-1, hidden.shape[-1])[self._chosen][None], *inputs[1:])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, chosen: Tensor, labels: Tensor) -> Tensor:
        """``chosen``: flat positions (row * length + column) to score; ``labels``: the token that follows each."""
        self._chosen = chosen
        try:
            logits = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        finally:
            self._chosen = None
        loss: Tensor = SummedCrossEntropy.apply(logits[0], labels)
        return loss

    def logits(self, input_ids: Tensor) -> Tensor:
        """The model's logits at every position, shape (examples, length, vocabulary)."""
        result: Tensor = self.model(input_ids=input_ids, use_cache=False).logits
        return result


def tensors(batch: MicroBatch, device: torch.device) -> dict[str, Tensor]:
    """A micro-batch as the arguments of :meth:`TargetLoss.forward`.

    One without any target (a worker that ran out of examples) scores one position, which the caller weighs zero.
    """
    ids = torch.from_numpy(batch.input_ids)
    chosen = torch.from_numpy(batch.targets).flatten().nonzero()[:, 0]
    if len(chosen) == 0:
        chosen = torch.zeros(1, dtype=torch.long)
    labels = ids.flatten()[(chosen + 1).clamp(max=ids.numel() - 1)]
    arguments = {
        "input_ids": ids,
        "attention_mask": torch.from_numpy(batch.attention_mask),
        "chosen": chosen,
        "labels": labels,
    }
    return {name: value.to(device, non_blocking=True) for name, value in arguments.items()}


def load_for_tuning(
    base: Path, recipe: Recipe, seed: int, attention: str, gradient_checkpointing: bool
) -> tuple[TargetLoss, dict[str, int]]:
    """The model to train, in the recipe's precision, and what dropout was applied to.

    ``attention`` is transformers' name of the implementation (eager is the fastest for short sequences on a CPU).
    Adapters are drawn from ``seed``, after whatever else was drawn in this process.

    Raises:
        UserError: dropout or adapters that do not fit this architecture.
    """
    from transformers import AutoModelForCausalLM

    refused = refusal(base)
    if refused:
        raise UserError(refused)
    model: Any = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=torch.bfloat16 if recipe.precision == "bf16" else torch.float32,
        attn_implementation=attention,
        use_safetensors=True,
        trust_remote_code=False,
    )
    applied = apply_dropout(model, recipe.dropout)
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if recipe.method == "lora":
        model = _with_adapters(model, base, recipe, seed)
    return TargetLoss(model), applied


def _with_adapters(model: Any, base: Path, recipe: Recipe, seed: int) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.targets),
        bias="none",
    )
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as problem:
        raise UserError(
            f"recipe.targets: no module of {type(model).__name__} is named {', '.join(recipe.targets)}; "
            "name linear layers of this model"
        ) from problem
    config.base_model_name_or_path = base.name
    return adapted  # type: ignore[no-any-return]
