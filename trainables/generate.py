"""Generation: resident engines that answer prompts with the weights they are told to load.

An engine is opened once per base and stays; full fine-tunes are swapped in, adapters are requests
(:mod:`trainables.engines.contract`), and every load is proved by the weights' probe before a single answer counts
(:mod:`trainables.engines.loading`). The same engines score checkpoints on dev prompts (temperature 0) and run local
judges. Which engine answers is a matter of the machine, not of identity: responses are drawn from a seed of their
own, and are the same text only under the same engine configuration.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

from trainables.engines.contract import (
    Engine,
    EngineSettings,
    Progress,
    Prompt,
    Response,
    Weights,
    WrongWeights,
)
from trainables.errors import EnvironmentProblem
from trainables.sampling import Sampling

__all__ = [
    "RESULT_VERSION",
    "Engine",
    "EngineSettings",
    "Progress",
    "Prompt",
    "Response",
    "Sampling",
    "Weights",
    "WrongWeights",
    "make_engine",
    "vllm_problem",
]

RESULT_VERSION = 2
"""Raised when the same weights, prompts and seeds are to give other texts (decoding rules, end tokens, seeds), or the
same texts another language (:mod:`trainables.langid`)."""


def make_engine(
    choice: Literal["auto", "vllm", "transformers"],
    base: Path,
    method: Literal["full", "lora"],
    max_model_len: int,
    max_rank: int = 16,
    settings: EngineSettings | None = None,
) -> tuple[Engine, str]:
    """Open an engine on a prepared base, its base weights loaded and proved, and say which one and why.

    Args:
        choice: ``auto`` takes vLLM where it can be imported here, else transformers.
        method: ``full`` for whole fine-tunes swapped in, ``lora`` for adapters of up to ``max_rank``.
        max_model_len: tokens of prompt and response together.

    Raises:
        EnvironmentProblem: the engine asked for cannot run here. WrongWeights: the base fails its own probe.
    """
    settings = settings or EngineSettings()
    if choice != "transformers":
        from trainables.engines.vllm import VllmEngine

        problem = vllm_problem(settings)
        if problem is None:
            why = "asked for" if choice == "vllm" else "it can be imported here"
            return VllmEngine(base, method, max_model_len, max_rank, settings), f"engine vllm: {why}"
        if choice == "vllm":
            raise EnvironmentProblem(f"engine vllm: {problem}; set runtime.engine: transformers")
        why = f"because vLLM cannot run here ({problem})"
    else:
        why = "asked for"
    from trainables.engines.transformers import TransformersEngine

    return TransformersEngine(base, method, max_model_len, max_rank, settings), f"engine transformers: {why}"


def vllm_problem(settings: EngineSettings | None = None) -> str | None:
    """Why vLLM cannot run in this process, or None. Imports it (8 s)."""
    from trainables.engines.vllm import set_environment

    set_environment(settings or EngineSettings())
    try:
        importlib.import_module("vllm")
        from vllm.platforms import current_platform
    except (ImportError, OSError, RuntimeError) as problem:
        return f"{type(problem).__name__}: {problem}"
    wanted = (settings or EngineSettings()).device
    found = "cpu" if current_platform.is_cpu() else "cuda" if current_platform.is_cuda_alike() else None
    if found is None:
        return "it finds no device it supports"
    if wanted not in ("auto", found):
        return f"this build of vLLM runs on {found}, and runtime asks for {wanted}"
    return None
