"""Two sweeps held against each other: paired differences where their cells match.

A cell of A matches one of B that has its study, model name and evaluation language. The two scores are compared
instruction by instruction, over the instructions that both were asked and that are valid in both; an id is the same
instruction only where its text is. Scores of one sweep are against that sweep's own baselines, so a difference between
two bases or recipes is one of how well mixtures do *relative to* the monolingual models, not of how good they are.

What cannot be compared is counted and said, never filled in. This room reads scores; it makes none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.corpus.base import EVAL_FILE, read_examples
from orchestrator.plan import ScoreCell
from orchestrator.scores.bootstrap import Estimate, Resampled, mean_interval
from orchestrator.scores.score_table import Row, ScoreTable, as_csv
from orchestrator.scores.scoring import Judged, Score, aligned
from orchestrator.scores.sentences import signed
from trainables.errors import UserError

COLUMNS = ("study", "model", "eval_language", "a", "b", "difference", "ci_low", "ci_high", "n")
"""``a`` and ``b`` are the scores over the ``n`` instructions both have, so that ``difference`` is b less a; where one
side is missing, the other's is its own score and the rest is empty. The diagonal is 50 in both, n 0."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What came of it."""

    rows: list[Row]
    """A row for each pair of cells that match, columns :data:`COLUMNS`, in A's order; None is missing."""
    overall: Estimate
    """The mean difference over the distinct pairs of judged cells, clustered by instruction."""
    judged: int
    """How many pairs that is."""
    same: int
    """Among them, pairs that are one and the same comparison."""
    missing: tuple[int, int]
    """Rows without a score in A, in B."""
    alone: tuple[int, int]
    """Cells of A, of B that match none."""
    other_prompts: int
    """Cells that match by name but were asked nothing that can be shown to be the same."""
    judges: tuple[str, str]
    other_judge: bool
    other_baselines: int
    """Distinct pairs whose two scores are against different baselines."""

    def as_csv(self) -> str:
        """The rows as CSV with a header."""
        return as_csv(self.rows, COLUMNS)

    def sentences(self) -> list[str]:
        """The summary, then what has to be known to read it."""
        said = [f"{len(self.rows)} cells match. B less A, on average over {self.judged} distinct judged ones: "]
        said[0] += f"{signed(*self.overall[:3])} (95% over instructions, given the models as trained)."
        if self.other_judge:
            a, b = self.judges
            said.append(f"The judges differ (A: {a}, B: {b}): a difference can be the judge's.")
        if self.other_baselines:
            said.append(f"In {self.other_baselines} of them each score is against another baseline, its own sweep's.")
        if self.same:
            said.append(f"{self.same} of them are the same comparison in both, and cannot differ.")
        for name, count in zip("AB", self.missing, strict=True):
            if count:
                said.append(f"{count} rows have no score in {name} yet.")
        if any(self.alone):
            said.append(f"{self.alone[0]} cells of A and {self.alone[1]} of B have no counterpart.")
        if self.other_prompts:
            said.append(f"{self.other_prompts} cells have a counterpart that was asked other prompts; left out.")
        return said


def compare(a: ScoreTable, b: ScoreTable) -> Compared:
    """Hold two sweeps against each other.

    Raises:
        UserError: when no cell of one matches any of the other.
    """
    cells_a, cells_b = _by_name(a), _by_name(b)
    names = [name for name in cells_a if name in cells_b]
    if not names:
        raise UserError(
            f"{a.plan.loaded.source} and {b.plan.loaded.source}: no cell of one has the study, model and evaluation "
            f"language of one of the other; the first has {_some(cells_a)}, the second {_some(cells_b)}."
        )
    prompts = _Prompts(a, b)
    rows: list[Row] = []
    distinct: dict[tuple[str, str], _Pair] = {}
    other_prompts = 0
    for name in names:
        pair = _Pair.of(a, b, cells_a[name], cells_b[name])
        if pair.other_prompts:
            shared = prompts.shared(name[2])
            if not shared:
                other_prompts += 1
                continue
            pair = pair.over(shared)
        rows.append(dict(zip(COLUMNS, (*name, *pair.numbers()), strict=True)))
        if pair.key is not None:
            distinct[pair.key] = pair
    pairs = [pair for pair in distinct.values() if pair.numbers()[-1]]
    return Compared(
        rows=rows,
        overall=_overall(pairs),
        judged=len(pairs),
        same=sum(len(set(pair.key or ())) == 1 for pair in pairs),
        missing=(sum(row["a"] is None for row in rows), sum(row["b"] is None for row in rows)),
        alone=(len(cells_a.keys() - cells_b.keys()), len(cells_b.keys() - cells_a.keys())),
        other_prompts=other_prompts,
        judges=(a.judge, b.judge),
        other_judge=(a.judge, a.plan.judge_payload) != (b.judge, b.plan.judge_payload),
        other_baselines=sum(pair.other_baseline for pair in pairs),
    )


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """Two cells that match, with what each was judged; a score that is None is not made."""

    first: ScoreCell
    second: ScoreCell
    scores: tuple[float | None, float | None]
    answers: tuple[Judged | None, Judged | None]

    @classmethod
    def of(cls, a: ScoreTable, b: ScoreTable, first: ScoreCell, second: ScoreCell) -> _Pair:
        scores = a.score_of(first), b.score_of(second)
        return cls(
            first=first,
            second=second,
            scores=(_value(scores[0]), _value(scores[1])),
            answers=(a.answers(first), b.answers(second)),
        )

    def over(self, shared: Collection[str]) -> _Pair:
        """The pair, over some of its instructions."""
        a, b = (None if answers is None else answers.over(shared) for answers in self.answers)
        return replace(self, answers=(a, b))

    @property
    def key(self) -> tuple[str, str] | None:
        """What is compared with what; None where a score is not made, or neither was judged."""
        steps = self.first.comparison, self.second.comparison
        if None in self.scores or steps == (None, None):
            return None
        return steps[0].key if steps[0] else "", steps[1].key if steps[1] else ""

    @property
    def other_prompts(self) -> bool:
        return self.first.generation_set.payload["corpus"] != self.second.generation_set.payload["corpus"]

    @property
    def other_baseline(self) -> bool:
        return self.first.baseline.key != self.second.baseline.key

    def numbers(self) -> tuple[float | int | None, ...]:
        """a, b, difference, ci_low, ci_high, n."""
        if None in self.scores:
            return (*self.scores, None, None, None, None)
        if self.key is None:
            return (*self.scores, 0.0, None, None, 0)
        points = aligned(self.answers)
        found = mean_interval(points[1] - points[0])
        both = ~np.isnan(points).any(axis=0)
        a, b = (float(mean) for mean in points[:, both].mean(axis=1)) if found.n else (None, None)
        return a, b, *found


class _Prompts:
    """Which instructions are the same in both sweeps, where their corpora are not."""

    def __init__(self, a: ScoreTable, b: ScoreTable) -> None:
        self._tables = a, b
        self._found: dict[str, frozenset[str]] = {}

    def shared(self, language: str) -> frozenset[str]:
        """Ids that stand for the same text in both; none where a corpus is not in its store."""
        if language not in self._found:
            texts = [self._texts(table, language) for table in self._tables]
            self._found[language] = frozenset(dict(set.intersection(*texts)))
        return self._found[language]

    def _texts(self, table: ScoreTable, language: str) -> set[tuple[str, str]]:
        entry = table.store.find("corpus", table.plan.corpora[language].key)
        examples = read_examples(table.store.file(entry, EVAL_FILE)) if entry else []
        return {(example.id, example.instruction) for example in examples}


def _overall(pairs: list[_Pair]) -> Estimate:
    if not pairs:
        return Estimate(None, None, None, 0)
    points = aligned([pair.answers[side] for side in (0, 1) for pair in pairs])
    first, second = np.split(points, 2)
    return Resampled((second - first)[None]).average(range(len(pairs)))


def _value(score: Score | None) -> float | None:
    return None if score is None else score.if_score


def _by_name(table: ScoreTable) -> dict[tuple[str, str, str], ScoreCell]:
    return {(cell.row.listed.study, cell.name, cell.row.language): cell for cell in table.plan.cells}


def _some(cells: Collection[tuple[str, str, str]]) -> str:
    studies = ", ".join(dict.fromkeys(study for study, _, _ in cells))
    _, model, language = next(iter(cells))
    return f"the studies {studies} (for one, {model} in {language})"
