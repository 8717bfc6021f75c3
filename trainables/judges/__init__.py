"""Judges: which of two answers is better, asked in both orders (paper section 2 and appendix B).

A judge is named by a spec (:data:`JudgeSpec`), opened with :func:`open_judge`, and asked :class:`Call` by
:class:`Call`. ``reference`` compares with the reference answer, ``local`` asks a language model on an engine,
``remote`` one behind an address; their prompts are data under ``prompts/``. Scores, ties and intervals are made of
verdicts elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from trainables.addresses import key_in
from trainables.generate import EngineSettings
from trainables.judges.calls import Call, Judge, Order, Usage, Verdict, calls_for
from trainables.judges.specs import RESULT_VERSION, JudgeSpec, LocalJudge, ReferenceJudge, RemoteJudge

__all__ = [
    "RESULT_VERSION",
    "Call",
    "Judge",
    "JudgeSpec",
    "LocalJudge",
    "Order",
    "ReferenceJudge",
    "RemoteJudge",
    "Usage",
    "Verdict",
    "api_key",
    "calls_for",
    "open_judge",
]


def open_judge(
    spec: ReferenceJudge | LocalJudge | RemoteJudge,
    base_folder: Path | None = None,
    engine: Literal["auto", "vllm", "transformers"] = "auto",
    settings: EngineSettings | None = None,
    key: SecretStr | None = None,
) -> Judge:
    """Open the judge a spec names; nothing is asked yet.

    Args:
        base_folder: of a local judge, its model, prepared by ``base_models.prepare``.
        key: of a remote judge, its key, see :func:`api_key`; None where the endpoint asks for none.

    Raises:
        ValueError: a local judge without ``base_folder``.
        UserError: no such prompt. EnvironmentProblem: its engine cannot run here.
    """
    if isinstance(spec, ReferenceJudge):
        from trainables.judges.reference import ChrfJudge

        return ChrfJudge()
    if isinstance(spec, RemoteJudge):
        from trainables.judges.prompt import load_prompt
        from trainables.judges.remote import EndpointJudge

        return EndpointJudge(spec, load_prompt(spec.prompt), key)
    if base_folder is None:
        raise ValueError("a local judge needs the folder of its prepared model")
    return _open_local(spec, base_folder, engine, settings)


def api_key(spec: ReferenceJudge | LocalJudge | RemoteJudge) -> SecretStr | None:
    """The key of a remote judge, from the variable its spec names; None where there is none."""
    return key_in(spec.api_key_env) if isinstance(spec, RemoteJudge) else None


def _open_local(
    spec: LocalJudge,
    base_folder: Path,
    engine: Literal["auto", "vllm", "transformers"],
    settings: EngineSettings | None,
) -> Judge:
    from transformers import AutoConfig

    from trainables.generate import make_engine
    from trainables.judges.local import ModelJudge
    from trainables.judges.prompt import load_prompt

    prompt = load_prompt(spec.prompt)
    context = AutoConfig.from_pretrained(base_folder, trust_remote_code=False).get_text_config().max_position_embeddings
    length = min(context, prompt.settings.max_prompt_tokens + prompt.settings.parse_tokens)
    # Long prompts and a single new token: few sequences at a time keep the cache, and so the memory, small.
    wanted = settings or EngineSettings(max_sequences=32)
    wanted = wanted.model_copy(update={"prefix_caching": True})
    opened, _ = make_engine(engine, base_folder, "full", length, settings=wanted)
    return ModelJudge(opened, prompt)
