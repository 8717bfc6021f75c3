"""Which responses are shown beside a score: one or two instructions for every judged cell, always by the same rule.

The first is the same instruction for every model in every language, so that one can read down a column of models or
across languages. The second is one that the judge decided otherwise, where there is one, so that both sides of a score
are seen; the search for it begins at a place that depends on the comparison's key alone. Neither is chosen by what the
texts say.

This module must never know how responses are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow.parquet as pq

from orchestrator.corpus.base import EVAL_FILE, Example, read_examples
from orchestrator.identity import Step
from orchestrator.plan import Plan, ScoreCell
from orchestrator.report.responses import judged, visible
from orchestrator.report.views import Sample
from orchestrator.scores.score_table import ScoreTable
from orchestrator.scores.scoring import Judged
from orchestrator.store import Store

RULE = 1
"""Raised when other responses are chosen."""
IN_WORDS = (
    "Of each judged cell: one instruction that is the same for every model and language, and one with another outcome "
    "where there is one."
)
TABLE = (
    "instruction",
    "response",
    "outcome",
    "baseline_response",
    "reference",
    "baseline",
    "language",
    "instruction_id",
)
"""Columns of :func:`as_table`. MLflow's pages compare the second, run by run, grouped by the first."""


class Texts:
    """The prompts and responses of a plan, as far as a store has them; each file is read once, or when asked again."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._responses: dict[str, dict[str, str]] = {}
        self._examples: dict[str, dict[str, Example]] = {}
        self._baselines = plan.baseline_keys()

    def responses(self, step: Step) -> dict[str, str]:
        """Instruction id -> response of a generation set; empty while it is not made."""
        if step.key in self._responses:
            return self._responses[step.key]
        entry = self._store.glance("generation_set", step.key)
        if entry is None:
            return {}
        path = self._store.file(entry, "responses.parquet")
        table = pq.read_table(path, columns=["instruction_id", "text"]).to_pydict()
        texts = dict(zip(table["instruction_id"], table["text"], strict=True))
        if self._plan.model_of_step[step.key].key in self._baselines:  # the others are asked for once
            self._responses[step.key] = texts
        return texts

    def examples(self, language: str) -> dict[str, Example]:
        """Id -> eval example of one language; empty while its corpus is not there."""
        if language not in self._examples:
            corpus = self._plan.corpora[language]
            entry = self._store.glance(corpus.kind, corpus.key)
            examples = read_examples(self._store.file(entry, EVAL_FILE)) if entry is not None else []
            self._examples[language] = {example.id: example for example in examples}
        return self._examples[language]


class Chosen:
    """Chooses from what a store holds; each response set is read once."""

    def __init__(self, plan: Plan, store: Store, table: ScoreTable) -> None:
        self._table, self._texts = table, Texts(plan, store)

    def samples(self, cells: Iterable[ScoreCell]) -> list[Sample]:
        """The samples of the judged ones among some cells, in their order; a comparison that several name once."""
        listed: dict[str, list[ScoreCell]] = {}
        for cell in cells:
            if cell.comparison is not None:
                listed.setdefault(cell.comparison.key, []).append(cell)
        return [sample for same in listed.values() for sample in self._of_comparison(same)]

    def _of_comparison(self, cells: list[ScoreCell]) -> list[Sample]:
        cell = cells[0]
        answers = self._table.answers(cell)
        if cell.comparison is None or answers is None or not answers.ids:
            return []
        language = cell.row.language
        first, second = (self._texts.responses(step) for step in cell.comparison.needs[:2])
        examples = self._texts.examples(language)
        samples = []
        for at in _chosen(answers, int(cell.comparison.key[:8], 16)):
            name = answers.ids[at]
            if name not in first or name not in second or name not in examples:
                continue  # quarantined since it was judged, and not made again yet
            samples.append(
                Sample(
                    study=cell.row.listed.study,
                    language=language,
                    instruction_id=name,
                    instruction=examples[name].instruction,
                    baseline=cell.baseline.name,
                    baseline_response=first[name],
                    model=cell.name,
                    model_response=second[name],
                    choices={"ab": int(answers.ab[at]) or None, "ba": int(answers.ba[at]) or None},
                    reference=examples[name].response,
                    also=tuple(dict.fromkeys(other.name for other in cells if other.name != cell.name)),
                )
            )
        return samples


def _chosen(answers: Judged, start: int) -> list[int]:
    """Places of the instructions to show: the middle one, and the next from ``start`` that came out otherwise."""
    count = len(answers.ids)
    common = count // 2
    outcomes = [str(outcome) for outcome in answers.outcomes]
    round_from_start = ((start + step) % count for step in range(count))
    other = next((at for at in round_from_start if outcomes[at] != outcomes[common]), None)
    return [common] if other is None else [common, other]


def as_table(samples: Iterable[Sample]) -> dict[str, list[Any]]:
    """Samples as columns and rows, JSON; what would steer a screen is made visible, as on the page."""
    rows = []
    for sample in samples:
        reference = "" if sample.reference is None else visible(sample.reference)
        asked, response, other = map(visible, (sample.instruction, sample.model_response, sample.baseline_response))
        outcome = judged(sample.choices)[0]
        rows.append(
            [asked, response, outcome, other, reference, sample.baseline, sample.language, sample.instruction_id]
        )
    return {"columns": list(TABLE), "data": rows}
