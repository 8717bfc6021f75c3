"""The paper's data (section 2): LIMA and OpenAssistant pairs to train on, AlpacaFarm instructions to evaluate on.

Everything a plan needs is known without the data: ids are positions in the sources before import, and a source is
pinned by its revision. Fetching and translating are not built yet; a run says so before it starts anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.errors import EnvironmentProblem, UserError

RESULT_VERSION = 1
TRAIN_SIZES = {"lima": 1000, "oasst1": 3640}
"""Single-turn pairs the paper takes from each source; together 4,640."""
EVAL_SIZE = 617
"""AlpacaFarm's 805 eval instructions without the 188 that come from OpenAssistant."""
SOURCES = {"lima": "GAIR/lima", "oasst1": "OpenAssistant/oasst1", "alpacafarm": "tatsu-lab/alpaca_farm"}


class HubCorpus:
    """The paper's corpus; see :class:`orchestrator.corpus.base.Corpus` for the protocol."""

    source = "hub"

    def __init__(
        self,
        *,
        train: tuple[str, ...],
        eval_source: str,
        translator: dict[str, str],
        train_count: int,
        eval_count: int,
    ) -> None:
        """Raises UserError when the sources hold fewer examples than asked for."""
        pool = [f"{name}-{position:04d}" for name in train for position in range(TRAIN_SIZES[name])]
        if train_count > len(pool):
            raise UserError(
                f"corpus.train_count: {train_count} is more than the {len(pool)} pairs of {', '.join(train)}; lower it."
            )
        if eval_count > EVAL_SIZE:
            raise UserError(f"corpus.eval_count: {eval_count} is more than AlpacaFarm's {EVAL_SIZE} prompts; lower it.")
        self.train, self.eval_source, self.translator = train, eval_source, translator
        self._train_ids = pool[:train_count]
        self._eval_ids = [f"{eval_source}-{position:04d}" for position in range(eval_count)]

    def train_ids(self) -> list[str]:
        return list(self._train_ids)

    def eval_ids(self) -> list[str]:
        return list(self._eval_ids)

    def payload(self, language: str) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "source": self.source,
            "version": RESULT_VERSION,
            "language": language,
            "train": [SOURCES[name] for name in self.train],
            "eval": SOURCES[self.eval_source],
        }
        return payload if language == "en" else {**payload, "translator": dict(self.translator)}

    def build(self, language: str, out: Path) -> dict[str, Any]:
        raise EnvironmentProblem(
            "corpus.source: hub can be planned but not fetched yet; use source: files with your own copy, or cldr."
        )
