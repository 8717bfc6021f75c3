"""Translators: English texts in, the same texts in another language out, with what must not be translated unchanged.

A translator is named by a spec (:data:`TranslatorSpec`) and opened with :func:`open_translator`. What must survive
(code, addresses, names in braces, lines) is the business of `protect`, how a text becomes requests and requests a text
that of `courses`; an engine only turns strings into strings. What came out is looked over by `gate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from trainables.addresses import key_in
from trainables.patience import Pace, Turn
from trainables.translators.engine import SOURCE, Answer, Engine, Target
from trainables.translators.specs import (
    RESULT_VERSION,
    GoogleTranslator,
    LocalTranslator,
    OpenAITranslator,
    TranslatorSpec,
)

__all__ = [
    "RESULT_VERSION",
    "SOURCE",
    "Answer",
    "Engine",
    "GoogleTranslator",
    "LocalTranslator",
    "OpenAITranslator",
    "Target",
    "TranslatorSpec",
    "key_of_service",
    "open_translator",
    "pace_of",
]


def open_translator(
    spec: GoogleTranslator | OpenAITranslator | LocalTranslator,
    *,
    key: SecretStr | None = None,
    turn: Turn | None = None,
    parallel: int | None = None,
    folder: Path | None = None,
    engine: Literal["auto", "vllm", "transformers"] = "auto",
    threads: int | None = None,
) -> Engine:
    """Open the translator a spec names; nothing is asked yet.

    Args:
        key: of a service, see :func:`key_of_service`.
        turn: the pace of a service, where it is shared with others; default: one's own, as the spec says.
        parallel: requests under way at once; default: as the spec says.
        folder: of a local translator its model: as it is if sequence-to-sequence, prepared as a base if causal.

    Raises:
        ValueError: a local translator without ``folder``.
        UserError: no such prompt or model. EnvironmentProblem: it cannot run here, or lacks credentials.
    """
    if isinstance(spec, LocalTranslator):
        from trainables.translators.local import CausalEngine, Seq2SeqEngine

        if folder is None:
            raise ValueError("a local translator needs the folder of its model")
        if spec.architecture == "seq2seq":
            return Seq2SeqEngine(spec, folder, threads)
        return CausalEngine(spec, folder, engine, threads)
    turn, parallel = turn or pace_of(spec).turn, parallel or spec.parallel
    if isinstance(spec, GoogleTranslator):
        from trainables.translators.google import GoogleEngine

        return GoogleEngine(spec, turn, parallel)
    from trainables.translators.openai import OpenAIEngine

    return OpenAIEngine(spec, key, turn, parallel)


def pace_of(spec: GoogleTranslator | OpenAITranslator) -> Pace:
    """The pace a service is asked at, over all languages."""
    return Pace(spec.requests_per_minute, spec.characters_per_minute)


def key_of_service(spec: GoogleTranslator | OpenAITranslator | LocalTranslator) -> SecretStr | None:
    """The key of a service, from the variable its spec names; None where there is none (Google has credentials)."""
    return key_in(spec.api_key_env) if isinstance(spec, OpenAITranslator) else None
