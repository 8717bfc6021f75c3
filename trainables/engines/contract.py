"""What an engine is: it holds one set of weights at a time and turns prompts, as token ids, into responses.

One set at a time on purpose. Requests with and without an adapter in one batch have been seen to be answered by the
wrong weights without a message, so an engine never mixes them: :meth:`Engine.load` says whose answers come next.
An engine knows neither languages nor studies, neither templates nor stores.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from trainables.sampling import Sampling
from trainables.spec import Spec, runtime

Progress = Callable[[int, int], None]
"""Told (done, total) as requests finish."""


class WrongWeights(Exception):
    """After a load, the engine does not answer as the loaded weights should.

    An infrastructure failure: the engine is not to be trusted again; a fresh process may well do better.
    """


class Weights(Spec):
    """Weights to answer with: a prepared base, a full fine-tune or a LoRA adapter of the engine's base.

    ``folder`` is in Hugging Face form (an adapter in PEFT's) and holds ``probe.json``.
    """

    name: str = runtime()
    kind: Literal["base", "full", "lora"] = runtime()
    folder: Path = runtime()


@dataclass(frozen=True)
class Prompt:
    """One request. ``token_ids`` from :mod:`trainables.batches`, BOS included; ``seed`` is its very own (31 bits)."""

    id: str
    token_ids: Sequence[int]
    seed: int = 0


@dataclass(frozen=True)
class Response:
    """What came back. ``tokens`` counts what was generated, the end-of-sequence token included.

    ``finish``: ``stop`` at an end-of-sequence token, ``length`` where the token limit cut the response.
    """

    id: str
    text: str
    tokens: int
    finish: Literal["stop", "length"]


class EngineSettings(Spec):
    """How an engine runs on its machine; nothing here belongs to a result's identity."""

    device: Literal["auto", "cpu", "cuda"] = runtime("auto")
    threads: int | None = runtime(None, ge=1, description="CPU threads; default half of the cores this process may use")
    max_sequences: int = runtime(128, ge=1, description="requests in one batch")
    kv_cache_gib: float | None = runtime(
        None, gt=0, description="vLLM's cache on a CPU; default what max_sequences need, at most 1 GiB"
    )
    gpu_memory: float = runtime(0.85, gt=0, le=1, description="share of each GPU's memory vLLM takes")
    gpus: int = runtime(1, ge=1, description="GPUs the weights are spread over (tensor parallel)")
    prefix_caching: bool = runtime(False, description="reuse common beginnings of prompts; for judges")

    @property
    def cpu_threads(self) -> int:
        """``threads`` or its default: half of the cores, because a training worker wants the others."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.threads or max(1, cores // 2)


class Engine(Protocol):
    """One resident model in this process. Not thread-safe; best alone in a process that can be killed."""

    name: str
    """``vllm`` or ``transformers``."""
    tokenizer: Any
    """The base's tokenizer."""
    max_model_len: int
    """Tokens of prompt and response together."""

    def load(self, weights: Weights) -> None:
        """Answer with ``weights`` from now on, proved by their probe.

        Raises:
            WrongWeights: the probe is not answered as it should be.
        """

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_progress: Progress | None = None
    ) -> list[Response]:
        """One response per prompt, in the order of the prompts.

        Raises:
            ValueError: a prompt and ``max_new_tokens`` do not fit in ``max_model_len``.
        """

    def choose(
        self, prompts: Sequence[Sequence[int]], options: tuple[int, ...], on_progress: Progress | None = None
    ) -> list[int]:
        """For each prompt, which of the token ids ``options`` the model thinks the likeliest to follow."""

    def close(self) -> None:
        """Let go of the model. Memory comes back for certain only when the process ends."""


def refuse_other_method(weights: Weights, method: str) -> None:
    """An engine opened for full fine-tunes takes no adapters, and the other way round; the base goes anywhere."""
    if weights.kind not in ("base", method):
        raise ValueError(f"{weights.name} is {weights.kind}, and this engine was opened for method {method!r}")


def check_lengths(prompts: Sequence[Prompt], max_new_tokens: int, max_model_len: int) -> None:
    """Refuse prompts that do not fit, before any work is done."""
    for prompt in prompts:
        if not prompt.token_ids:
            raise ValueError(f"prompt {prompt.id!r} is empty")
        if len(prompt.token_ids) + max_new_tokens > max_model_len:
            raise ValueError(
                f"prompt {prompt.id!r} has {len(prompt.token_ids)} tokens, and with {max_new_tokens} new ones it does "
                f"not fit in the engine's {max_model_len}"
            )


def end_tokens(base: Path, tokenizer: Any) -> list[int]:
    """The ids that end a response: the tokenizer's EOS first, then others named in ``generation_config.json``."""
    named: Any = []
    file = base / "generation_config.json"
    if file.is_file():
        named = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") or []
    ids = [tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
    return list(dict.fromkeys(token for token in ids if token is not None))
