"""The steps behind a sweep's corpora: one import per language; or one of English, and of it a translation per language.

A translated corpus is put together from its translation, so whatever reads corpora sees no difference. How many rows
are translated is left out of the family, as with prompts: a larger sweep's translation takes over what a smaller one
paid for. A translation is keyed by the English data and the translator, never by the texts it comes to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from orchestrator.corpus.base import Corpus
from orchestrator.identity import Step
from orchestrator.languages import ENGLISH
from orchestrator.sweep import CorpusSpec, HubSource
from trainables.base_models import BaseSource
from trainables.translators import LocalTranslator, TranslatorSpec


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CorpusSteps:
    """The steps that make corpora."""

    corpora: dict[str, Step]
    """Language -> what everything that reads examples needs."""
    imports: dict[str, Step]
    """Those that read the source; English may be among them only because it is translated."""
    translations: dict[str, Step]
    """Language -> the translation its corpus is put together from."""

    @property
    def ordered(self) -> list[Step]:
        """Each once, inputs first."""
        steps = (*self.imports.values(), *self.translations.values(), *self.corpora.values())
        return list({step.key: step for step in steps}.values())


def translator_of(spec: CorpusSpec) -> TranslatorSpec | None:
    """The translator a sweep's corpus is made with; None where nothing is translated."""
    return spec.translator if isinstance(spec, HubSource) else None


def model_of(translator: TranslatorSpec | None) -> BaseSource | None:
    """The model that has to be prepared as a base before a translator can be opened."""
    causal = isinstance(translator, LocalTranslator) and translator.architecture == "causal"
    return translator.source if isinstance(translator, LocalTranslator) and causal else None


def corpus_steps(corpus: Corpus, spec: CorpusSpec, languages: Iterable[str], model: Step | None) -> CorpusSteps:
    """The steps for some languages of a corpus.

    Args:
        model: the step that prepares the translator's model, see :func:`model_of`.

    Raises:
        UserError: no such translator's prompt or model.
    """
    languages, translator = list(languages), translator_of(spec)
    others = [] if translator is None else [code for code in languages if code != ENGLISH]
    read = [code for code in languages if code not in others] + [ENGLISH] * bool(others)
    imports = {code: Step(kind="corpus", name=_name(corpus, code), payload=corpus.payload(code)) for code in read}
    translations: dict[str, Step] = {}
    corpora = dict(imports)
    for code in others:
        assert translator is not None
        rows = {"train": spec.train_count, "eval": spec.eval_count}
        family = {"language": code, "english": corpus.payload(ENGLISH), "translator": translator.payload()}
        translations[code] = Step(
            kind="translation",
            name=f"{_name(corpus, code)}-{translator.label}",
            needs=(imports[ENGLISH],) if model is None else (imports[ENGLISH], model),
            payload={**family, "rows": rows},
            family_payload=family,
        )
        payload: dict[str, Any] = corpus.payload(code)
        corpora[code] = Step(
            kind="corpus",
            name=_name(corpus, code),
            needs=(imports[ENGLISH], translations[code]),
            payload={**payload, "rows": rows},
            family_payload=payload,
        )
    return CorpusSteps(corpora={code: corpora[code] for code in languages}, imports=imports, translations=translations)


def _name(corpus: Corpus, code: str) -> str:
    return f"{corpus.source}-{code}"
