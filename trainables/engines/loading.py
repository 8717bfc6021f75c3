"""The proof that a load worked: the weights' own probe, asked before and after.

Swapping weights in a running engine goes wrong silently: a reload that keeps the old output head, an adapter that
is never applied. So every load is checked against what the maker of the weights wrote down (:mod:`trainables.probe`):

1. the engine's log-probabilities of the probe's tokens must be those of ``probe.json``, within :data:`TOLERANCE`;
2. they must not be, bit for bit, what the weights that answered before gave to the same tokens (for an adapter:
   nor what the base gives), unless the files hold the same weights. This tells apart even fine-tunes so close to
   each other that the tolerance cannot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from trainables import weight_files
from trainables.engines.contract import Weights, WrongWeights
from trainables.probe import PROBE

TOLERANCE = 0.15
"""Largest accepted mean absolute difference of log-probabilities (nats per token) between engine and reference.

Measured, bf16 against bf16 with prompts of 40 to 48 tokens, vLLM's CPU build / transformers:

- 20 checkpoints of a 1.4M-parameter model tuned on ten mixtures: their own weights at most 0.019 / 0.019, any other
  of the twenty at least 0.646 / 0.643 away;
- random 1.1M-parameter models: at most 0.012 against 0.83 and more;
- Gemma 3 270M: 0.033, two adapters on it 0.041 and 0.027; SmolLM2 135M: 0.078, most of it because its reference was
  made with rotary frequencies rounded to bf16.
"""

Ask = Callable[[Sequence[int]], list[float]]
"""Log-probabilities of tokens 1.. given those before, by the weights in force."""


def checked_load(
    weights: Weights,
    swap: Callable[[], None],
    ask: Ask,
    before: Weights | None = None,
    ask_base: Ask | None = None,
) -> None:
    """Run ``swap`` and prove that ``weights`` answer now, where ``before`` (if known) answered until now.

    ``ask_base`` asks the base beneath an adapter; given when ``weights`` are one.

    Raises:
        WrongWeights: they do not, or could not be loaded.
    """
    refused = weight_files.refusal(weights.folder, adapter=weights.kind == "lora")
    if refused:
        raise WrongWeights(f"{weights.name} could not be loaded: {refused}")
    token_ids, reference = read_probe(weights.folder)
    earlier = ask(token_ids) if before is not None else None
    try:
        swap()
        answer = ask(token_ids)
    except Exception as problem:
        raise WrongWeights(f"{weights.name} ({weights.folder}) could not be loaded: {problem}") from problem
    distance = mean_difference(answer, reference)
    if not distance <= TOLERANCE:
        raise WrongWeights(
            f"after loading {weights.name} ({weights.folder}) the engine's log-probabilities are {distance:.3f} nats "
            f"per token away from its {PROBE}; up to {TOLERANCE} is rounding"
        )
    if before is not None and answer == earlier and not same_weights(weights, before):
        raise WrongWeights(
            f"loading {weights.name} ({weights.folder}) changed nothing: the engine answers its probe exactly as "
            f"{before.name} did"
        )
    if ask_base is not None and answer == ask_base(token_ids) and not _does_nothing(weights.folder):
        raise WrongWeights(f"the adapter {weights.name} ({weights.folder}) is not applied: the base answers its probe")


def refuse_unproved(loaded: Weights | None) -> None:
    """No answer from an engine whose last load failed."""
    if loaded is None:
        raise WrongWeights("the engine's last load failed, so nobody knows whose answers these would be")


def read_probe(folder: Path) -> tuple[list[int], list[float]]:
    """The token ids (n) and reference log-probabilities (n-1) in ``folder``.

    Raises:
        WrongWeights: there is no readable probe, so nothing could be proved.
    """
    try:
        content = json.loads((folder / PROBE).read_text(encoding="utf-8"))
        token_ids, logprobs = list(content["token_ids"]), list(content["logprobs"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise WrongWeights(f"{folder / PROBE} cannot be read ({problem}), so its weights cannot be proved") from problem
    if len(token_ids) < 2 or len(logprobs) != len(token_ids) - 1:
        raise WrongWeights(f"{folder / PROBE} has {len(token_ids)} tokens and {len(logprobs)} log-probabilities")
    return token_ids, logprobs


def mean_difference(answer: Sequence[float], reference: Sequence[float]) -> float:
    """Mean absolute difference in nats per token; not a number where an answer is not one."""
    return sum(abs(one - other) for one, other in zip(answer, reference, strict=True)) / len(reference)


def same_weights(one: Weights, other: Weights) -> bool:
    """Whether the two cannot but answer alike: the same files by content, or a base and an adapter without effect."""
    if one.folder == other.folder or _digests(one.folder) == _digests(other.folder):
        return True
    return "lora" in (one.kind, other.kind) and _is_base(one) and _is_base(other)


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _is_base(weights: Weights) -> bool:
    return weights.kind == "base" or (weights.kind == "lora" and _does_nothing(weights.folder))


def _does_nothing(folder: Path) -> bool:
    """Whether an adapter's second matrices are all zero, as before its first training step."""
    from safetensors.torch import load_file

    tensors = load_file(folder / weight_files.ADAPTER)
    return not any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name)
