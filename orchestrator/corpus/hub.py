"""The paper's data (section 2): LIMA and OpenAssistant pairs to train on, AlpacaFarm instructions to evaluate on.

Everything a plan needs is known without the data: an id is a position in its source after import, a source is pinned
by its commit, and of each the first so many are taken as the paper took. How many OASST1 really holds is known only
once it is here; a run asks before it starts anything. Of a user's own copy everything is known at once, for it is read
when planning. The corpus itself is English; what other languages are made of is the business of `orchestrator.corpora`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from orchestrator.corpus.base import Example, write_corpus
from orchestrator.corpus.hub_data import Source
from orchestrator.languages import ENGLISH
from trainables.errors import UserError
from trainables.translators import TranslatorSpec


class HubCorpus:
    """The paper's corpus; see :class:`orchestrator.corpus.base.Corpus` for the protocol."""

    source = "hub"

    def __init__(
        self,
        *,
        train: Sequence[Source],
        evaluation: Source,
        translator: TranslatorSpec,
        train_count: int,
        eval_count: int,
        needs_references: bool,
    ) -> None:
        """Raises UserError when the sources hold fewer examples than asked for, or no references where needed."""
        if needs_references:
            raise UserError(
                "judge: reference needs reference answers, and AlpacaFarm's prompts have none (its outputs are one "
                "model's answers); use a local or remote judge."
            )
        self.train, self.evaluation, self.translator = tuple(train), evaluation, translator
        self._train_ids = _first(self.train, train_count, "train_count")
        self._eval_ids = _first([evaluation], eval_count, "eval_count")

    def train_ids(self) -> list[str]:
        """``lima-0000`` and on, source after source, ``train_count`` of them."""
        return list(self._train_ids)

    def eval_ids(self) -> list[str]:
        """``alpacafarm-0000`` and on, ``eval_count`` of them."""
        return list(self._eval_ids)

    def origin(self, id: str) -> str:  # noqa: A002 (the example's word)
        """Its source: ids are ``lima-0000``."""
        return id.rpartition("-")[0]

    def payload(self, language: str) -> dict[str, Any]:
        """The commit of each source, or the digest of a copy's pairs; and the translator, but for English."""
        payload: dict[str, Any] = {
            "source": self.source,
            "language": language,
            "train": [source.payload for source in self.train],
            "eval": self.evaluation.payload,
        }
        return payload if language == ENGLISH else {**payload, "translator": self.translator.payload()}

    def prepare(self, languages: Collection[str]) -> None:
        """Fetch the sources that are not here yet, and check that they hold what the plan counts on."""
        _hold(self.train, self._train_ids, "train_count")
        _hold([self.evaluation], self._eval_ids, "eval_count")

    def characters(self) -> int:
        """About how many characters of the counted examples are sent to be translated into one language."""
        shares = Counter(key.rpartition("-")[0] for key in (*self._train_ids, *self._eval_ids))
        return sum(
            round(source.data.characters * shares[source.data.name] / source.data.pairs)
            for source in dict.fromkeys((*self.train, self.evaluation))
        )

    def english(self) -> tuple[list[Example], list[Example]] | None:
        """The counted training pairs and prompts, where all of them are copies of the user's own; else None."""
        if not all(source.copy for source in (*self.train, self.evaluation)):
            return None
        train = [example for source in self.train for example in source.examples]
        return train[: len(self._train_ids)], self.evaluation.examples[: len(self._eval_ids)]

    def build(self, language: str, out: Path) -> dict[str, Any]:
        """Write the English pairs; returns the row counts, and what was left out of each source, and why.

        Raises:
            ValueError: for another language, which is translated and not built.
        """
        if language != ENGLISH:
            raise ValueError(f"the hub corpus is English; {language} is translated")
        train = [example for source in self.train for example in source.examples]
        left_out = {source.data.name: source.left_out for source in (*self.train, self.evaluation)}
        return {**write_corpus(out, train, self.evaluation.examples), "left_out": left_out}


def _first(sources: Sequence[Source], count: int, key: str) -> list[str]:
    """The first ``count`` ids of the sources.

    Raises:
        UserError: there are fewer.
    """
    pool = [f"{source.data.name}-{at:04d}" for source in sources for at in range(source.size)]
    if count > len(pool):
        raise _too_few(sources, count, len(pool), key)
    return pool[:count]


def _hold(sources: Sequence[Source], ids: Sequence[str], key: str) -> None:
    """Raises UserError when a source holds fewer examples than the plan counts on."""
    held = 0
    for at, source in enumerate(sources):
        there = {example.id for example in source.examples}
        held += sum(wanted in there for wanted in ids)
        if held < len(ids) and ids[held].startswith(f"{source.data.name}-"):
            raise _too_few(sources[: at + 1], len(ids), held, key)


def _too_few(sources: Sequence[Source], asked: int, held: int, key: str) -> UserError:
    names = " and ".join(source.data.name for source in sources)
    what = "pairs" if key == "train_count" else "prompts"
    return UserError(f"corpus.{key}: {asked} is more than the {held} {what} of {names}; lower it to {held}.")
