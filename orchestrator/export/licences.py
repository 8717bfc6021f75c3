"""What the results carry with them: the terms of every input of a sweep.

Shown in the plan, on the page and in an exported model's card. Terms are named as their owners publish them, and are
not advice. What Pinch cannot know (a folder, a user's own files, another model from the hub) is said to be the user's
to look up, never left out.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from trainables.base_models import BaseSource

if TYPE_CHECKING:
    from orchestrator.plan import Plan


@dataclasses.dataclass(frozen=True)
class Licence:
    """The terms of one input."""

    name: str
    """``LIMA``."""
    what: str
    """What it is in this sweep: ``training examples``."""
    terms: str
    """``CC BY-NC-SA 4.0``, or a sentence."""
    url: str = ""
    """Where the terms are; https, or empty."""


_LIMA = Licence(
    "LIMA",
    "training examples",
    "CC BY-NC-SA, or stricter where a text's own source is stricter",
    "https://huggingface.co/datasets/GAIR/lima",
)
_OASST1 = Licence(
    "OpenAssistant Conversations (OASST1)",
    "training examples",
    "Apache-2.0",
    "https://huggingface.co/datasets/OpenAssistant/oasst1",
)
_ALPACA_FARM = Licence(
    "AlpacaFarm evaluation data",
    "evaluation prompts",
    "CC BY-NC 4.0",
    "https://huggingface.co/datasets/tatsu-lab/alpaca_farm",
)
_DATA = {"lima": _LIMA, "oasst1": _OASST1, "alpacafarm": _ALPACA_FARM}
_CLDR = Licence(
    "Unicode CLDR, through Babel", "all examples", "Unicode License v3", "https://www.unicode.org/license.txt"
)
_PACKAGES = {
    "gemma3-270m": ("Gemma 3 270M", "Gemma Terms of Use", "https://ai.google.dev/gemma/terms"),
    "smollm2": ("SmolLM2-135M-Instruct", "Apache-2.0", "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"),
}
_HUB = {"Qwen/Qwen2.5-7B": "Apache-2.0", "Qwen/Qwen2.5-14B-Instruct": "Apache-2.0"}
"""Of the models that shipped sweeps name."""


def licences(plan: Plan) -> list[Licence]:
    """The terms of a plan's corpus, translator, base and judge, in that order; needs no network."""
    sweep = plan.sweep
    found = [*_of_corpus(plan), *_of_translator(plan)]
    found.append(_of_model(plan.base_source, "base model"))
    if sweep.judge.kind == "local":
        assert plan.judge_base is not None
        found.append(_of_model(plan.base_sources[plan.judge_base.key], "judge"))
    elif sweep.judge.kind == "remote":
        found.append(
            Licence(sweep.judge.model, "judge, behind an endpoint", "the terms of the service at judge.base_url")
        )
    return list(dict.fromkeys(found))


def _of_corpus(plan: Plan) -> list[Licence]:
    corpus = plan.sweep.corpus
    if corpus.source == "cldr":
        return [_CLDR]
    if corpus.source == "files":
        return [
            Licence("Your files", "all examples", "yours to look up: Pinch cannot know the terms of your own files")
        ]
    return [_DATA[name] for name in (*corpus.train, corpus.eval)]


def _of_translator(plan: Plan) -> list[Licence]:
    translator = plan.translator
    if translator is None or not plan.corpus_steps.translations:
        return []
    if translator.engine == "local":
        return [_of_model(translator.source, "translator")]
    terms = "the terms of Google Cloud" if translator.engine == "google" else "the terms of the service at its base_url"
    url = "https://cloud.google.com/terms" if translator.engine == "google" else ""
    return [Licence(translator.label, "translator, behind an endpoint", terms, url)]


def _of_model(source: BaseSource, what: str) -> Licence:
    if source.kind == "tiny":
        return Licence(
            "tiny, pre-trained here on statements from Unicode CLDR",
            what,
            "Apache-2.0; the data: Unicode License v3",
            "https://www.unicode.org/license.txt",
        )
    if source.kind == "package":
        name, terms, url = _PACKAGES[source.where]
        return Licence(name, what, terms, url)
    if source.kind == "hub":
        url = f"https://huggingface.co/{source.where}"
        return Licence(source.where, what, _HUB.get(source.where, "yours to look up: see the model's page"), url)
    return Licence(source.label, what, "yours to look up: Pinch cannot know the terms of your own model")
