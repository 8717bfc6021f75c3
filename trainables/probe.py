"""A probe: a few tokens and the log-probabilities the right weights give them, written beside the weights.

Engines swap weights in place and apply adapters per request, and both can go wrong without a message. Whoever
makes weights writes down, with the model that made them, what they answer to one text; whoever loads them asks
the same and compares.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import StepFailed

if TYPE_CHECKING:
    from torch import Tensor

PROBE = "probe.json"
SHORTEST, LONGEST = 24, 48


def probe_tokens(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The ids of a probe, 24 to 48 where there are enough: the first sequence, and more of them if it is short."""
    ids: list[int] = []
    for sequence in sequences:
        ids += sequence
        if len(ids) >= SHORTEST:
            break
    return ids[:LONGEST]


def log_probabilities(logits: Tensor, token_ids: Sequence[int]) -> list[float]:
    """log p(token[i+1] | token[:i+1]) for every i but the last, from logits of shape (tokens or tokens-1, vocabulary).

    Raises:
        StepFailed: a value that is not a number, so the weights are broken.
    """
    import torch

    following = torch.tensor(token_ids[1:], device=logits.device)
    scores = torch.log_softmax(logits[: len(token_ids) - 1].float(), dim=-1)
    values: list[float] = scores.gather(1, following[:, None])[:, 0].tolist()
    if not all(math.isfinite(value) for value in values):
        raise StepFailed("the weights give log-probabilities that are not numbers; lower recipe.learning_rate")
    return values


def write_probe(folder: Path, token_ids: Sequence[int], logprobs: Sequence[float], precision: str) -> None:
    """Write ``probe.json`` into a folder of weights."""
    content: dict[str, Any] = {
        "token_ids": list(token_ids),
        "logprobs": list(logprobs),
        "precision": precision,
    }
    (folder / PROBE).write_text(json.dumps(content) + "\n", encoding="utf-8")
