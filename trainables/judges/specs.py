"""Which judge a sweep names, and what of it determines a verdict.

A judge's key holds the prompt's *text* and settings and the model's own identity, never their nicknames: a prompt
edited under the same name is another judge, the same prompt under another name is not. A judge behind an API would
be a third kind here, with its own file beside ``reference`` and ``local``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainables.judges.prompt import load_prompt
from trainables.spec import Spec, identity

RESULT_VERSION = 1
"""Raised when the same calls are to get other verdicts (metric, cutting, reading of answers)."""


class ReferenceJudge(Spec):
    """Prefers the answer with the higher sentence chrF to the reference answer."""

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

    kind: Literal["local"] = identity("local")
    model: str = identity(description="a base: package:smollm2, a folder, a hub name[@revision], gguf:PATH")
    prompt: str = identity("figure9", description="a shipped judge prompt, or a folder with prompt.txt and judge.yaml")

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


JudgeSpec = Annotated[ReferenceJudge | LocalJudge, Field(discriminator="kind")]
"""``judge:`` in a sweep file, told apart by ``kind``."""
