"""Dropout that is really there: on attention probabilities and on both residual branches of every decoder layer.

The paper tunes with dropout 0.05 (appendix C). Most decoder models of today have a setting for attention
probabilities only, and setting it says nothing about the rest, so what is applied is put there explicitly and
counted. Hooks follow the module's own training flag: evaluation and generation never see them.

LoRA's own dropout, on the input of the adapters, is a setting of peft and is made where the adapter is made.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.errors import UserError

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_FEED_FORWARD = ("mlp", "feed_forward", "ffn")


def apply_dropout(model: nn.Module, rate: float) -> dict[str, int]:
    """Put dropout of ``rate`` on attention probabilities and residual branches; returns how many of each it reached.

    A branch with dropout layers of its own has their rate set; any other gets a hook on what it adds to the
    residual stream: the output of a norm that follows the branch where there is one (Gemma), else of the branch.

    Raises:
        UserError: a model in which attention probabilities or residual branches cannot be found, so that the
            recipe's dropout would silently not be applied.
    """
    layers = decoder_layers(model)
    applied = {"layers": len(layers), "attention": 0, "residual": 0}
    if rate == 0:
        return applied
    for layer in layers:
        attention, feed_forward = _child(layer, _ATTENTION), _child(layer, _FEED_FORWARD)
        if attention is None or feed_forward is None:
            break
        applied["attention"] += _attention_rate(attention, rate)
        # Only with both norms does the first one belong to the attention's end; else it begins the feed-forward.
        after_feed_forward = _child(layer, ("post_feedforward_layernorm",))
        after_attention = _child(layer, ("post_attention_layernorm",)) if after_feed_forward else None
        for branch, norm in ((attention, after_attention), (feed_forward, after_feed_forward)):
            applied["residual"] += _branch_rate(branch, norm, rate)
    count = len(layers)
    if not count or applied["attention"] < count or applied["residual"] < 2 * count:
        raise UserError(
            f"recipe.dropout: {rate} cannot be applied to {type(model).__name__}: of {count} decoder layers, "
            f"{applied['attention']} attentions and {applied['residual']} residual branches could be reached; "
            "set recipe.dropout: 0 to tune this model without dropout"
        )
    return applied


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The decoder layers of a causal language model: its longest list of modules that hold an attention."""
    best: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) > len(best) and _child(module[0], _ATTENTION) is not None:
            best = list(module)
    return best


def _child(layer: nn.Module, names: tuple[str, ...]) -> nn.Module | None:
    return next((child for name, child in layer.named_children() if name in names), None)


def _attention_rate(attention: nn.Module, rate: float) -> int:
    """Set the rate an attention module applies to its probabilities; 1 if it has such a setting."""
    reached = 0
    for name in ("attention_dropout", "attn_dropout", "dropout_p"):
        setting = getattr(attention, name, None)
        if isinstance(setting, nn.Dropout):
            setting.p = rate
            reached = 1
        elif isinstance(setting, int | float):
            setattr(attention, name, rate)
            reached = 1
    return reached


def _branch_rate(branch: nn.Module, norm: nn.Module | None, rate: float) -> int:
    own = [
        module
        for name, module in branch.named_modules()
        if isinstance(module, nn.Dropout) and name.rsplit(".", 1)[-1] in ("resid_dropout", "dropout", "resid_drop")
    ]
    for module in own:
        module.p = rate
    if not own:
        (norm if norm is not None else branch).register_forward_hook(_dropped(rate))
    return 1


def _dropped(rate: float) -> Any:
    def hook(module: nn.Module, _inputs: Any, output: Any) -> Any:
        if not module.training:
            return None
        if isinstance(output, tuple):
            return (dropped(output[0], rate), *output[1:])
        return dropped(output, rate)

    return hook


def dropped(values: Tensor, rate: float) -> Tensor:
    """``values`` with each zeroed with probability ``rate``, the others scaled by 1 / (1 - rate).

    On a CPU four decisions are taken from one random number of 64 bits, the rate so rounded to a 65,536th: torch's
    own dropout draws one number for each, which takes a tenth of the time of a small model's step.
    """
    if values.device.type != "cpu":
        return functional.dropout(values, rate)
    count = values.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[:count].view(values.shape) >= round(rate * 2**16) - 2**15
    return values * kept.to(values.dtype).mul_(1 / (1 - rate))
