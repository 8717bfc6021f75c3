"""Which judge a sweep names, and what of it determines a verdict.

A judge's key holds the prompt's *text* and settings and the model's own identity, never their nicknames: a prompt
edited under the same name is another judge, the same prompt under another name is not. Of a remote judge the model's
name is all there is to know; where it answers, how fast and with whose key is how the work is done.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainables.addresses import Address, KeyName
from trainables.judges.prompt import load_prompt
from trainables.paths import Named
from trainables.spec import Spec, identity, runtime

RESULT_VERSION = 1
"""Raised when the same calls are to get other verdicts (metric, cutting, reading of answers)."""


class ReferenceJudge(Spec):
    """Prefers the answer with the higher sentence chrF to the reference answer."""

    paid: ClassVar[bool] = False
    kind: Literal["reference"] = identity("reference")

    def payload(self) -> dict[str, Any]:
        """What determines a verdict: the metric and its parameters."""
        from trainables.judges.reference import METRIC

        return {"kind": self.kind, "metric": dict(METRIC), "result_version": RESULT_VERSION}

    @property
    def label(self) -> str:
        """The judge's name in tables and figures."""
        return "reference-chrf"


class LocalJudge(Spec):
    """A language model on the engine: any base a sweep could name, asked with a shipped prompt or one's own folder."""

    paid: ClassVar[bool] = False
    kind: Literal["local"] = identity("local")
    model: Named = identity(description="a base: package:smollm2, a folder, a hub name[@revision], gguf:PATH")
    prompt: Named = identity(
        "figure9", description="a shipped judge prompt, or a folder with prompt.txt and judge.yaml"
    )

    def payload(self) -> dict[str, Any]:
        """What determines a verdict: the model's identity, the prompt's text and settings.

        Raises:
            UserError: no such model or prompt.
        """
        from trainables.base_models import parse_base

        return {
            "kind": self.kind,
            "model": parse_base(self.model).payload(),
            "prompt": load_prompt(self.prompt).payload(),
            "result_version": RESULT_VERSION,
        }

    @property
    def label(self) -> str:
        """The judge's name in tables and figures."""
        from trainables.base_models import parse_base

        label = f"local-{parse_base(self.model).label}"
        return label if self.prompt == "figure9" else f"{label}-{load_prompt(self.prompt).name}"


class RemoteJudge(Spec):
    """A language model behind any endpoint that speaks OpenAI's interface; its answers may cost money."""

    paid: ClassVar[bool] = True
    kind: Literal["remote"] = identity("remote")
    model: str = identity(min_length=1, description="the model's name, as the endpoint knows it")
    prompt: Named = identity(
        "figure9", description="a shipped judge prompt, or a folder with prompt.txt and judge.yaml"
    )
    seed: int | None = identity(None, description="sent with every call; null: not sent")
    base_url: Address = runtime(description="such as https://api.openai.com/v1 or http://localhost:8000/v1")
    api_key_env: KeyName = runtime("OPENAI_API_KEY", description="NAME of the environment variable that holds the key")
    concurrency: int = runtime(8, ge=1, description="calls under way at once")
    requests_per_minute: int | None = runtime(None, ge=1, description="evenly spaced; null: no limit")
    timeout: float = runtime(120.0, gt=0, description="seconds one try of a call may take")
    retries: int = runtime(8, ge=0, description="after the first try; 8 last about two minutes")

    def payload(self) -> dict[str, Any]:
        """What determines a verdict: the model's name, the prompt's text and settings, greedy decoding.

        Raises:
            UserError: no such prompt.
        """
        return {
            "kind": self.kind,
            "model": self.model,
            "prompt": load_prompt(self.prompt).payload(),
            "temperature": 0,
            "seed": self.seed,
            "result_version": RESULT_VERSION,
        }

    @property
    def label(self) -> str:
        """The judge's name in tables, figures and paths."""
        label = f"remote-{self.model}"
        label = label if self.prompt == "figure9" else f"{label}-{load_prompt(self.prompt).name}"
        return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")


JudgeSpec = Annotated[ReferenceJudge | LocalJudge | RemoteJudge, Field(discriminator="kind")]
"""``judge:`` in a sweep file, told apart by ``kind``."""
