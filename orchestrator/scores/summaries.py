"""What a sweep says of its mixtures: averages over languages, and differences between mixtures, with intervals.

A mixture is one line here, whatever the number of its train seeds. Its average over a group of languages is the plain
mean over languages and seeds; while a cell of it is missing the average is missing, and a group without a language has
no line. The diagonal counts 50 and varies with nothing, as in the paper; an average over nothing but the diagonal was
not judged, and has no interval.

A difference is between two mixtures of one study, each against the same baselines: paired by instruction (and seed),
over the instructions valid for both, so that what makes an instruction hard for every model cancels. It can differ by
a little from the difference of two averages where answers could not be parsed. In a pinch study every level is held
against English only and against the uniform mixture; other studies have no natural reference, and no line.

See :mod:`orchestrator.scores.bootstrap` for what the intervals cover.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from orchestrator.grids import Listed
from orchestrator.plan import Plan, ScoreCell
from orchestrator.scores.bootstrap import Estimate, Resampled
from orchestrator.scores.score_table import ScoreTable
from orchestrator.scores.scoring import Group, aligned, group_languages
from orchestrator.scores.sentences import difference_sentence, level_words

AVERAGE_COLUMNS = ("study", "model", "group", "average", "ci_low", "ci_high", "languages", "seeds")
"""``languages`` and ``seeds`` say how many of each the average is over."""
DIFFERENCE_COLUMNS = ("study", "model", "against", "group", "difference", "ci_low", "ci_high", "n")
"""``difference`` is model less against, in points of the score; ``n`` the distinct instructions it rests on."""

_NOTHING = Estimate(None, None, None, 0)


def averages(table: ScoreTable) -> pd.DataFrame:
    """Every mixture's averages, columns :data:`AVERAGE_COLUMNS`; ``model`` is its name without a seed.

    In the order of the studies, and of :data:`orchestrator.scores.scoring.GROUPS` within a mixture.
    """
    rows = []
    for line in _lines(table.plan):
        block = _Block(table, line.cells)
        for group, codes in line.groups.items():
            found = block.average(codes)
            rows.append((line.study, line.model, group, *found[:3], len(codes), line.seeds))
    return _frame(rows, AVERAGE_COLUMNS)


def differences(table: ScoreTable) -> pd.DataFrame:
    """Every level of the pinch studies against English only and the uniform mixture, :data:`DIFFERENCE_COLUMNS`."""
    lines = list(_lines(table.plan))
    rows = []
    for line in lines:
        for other in lines:
            if line.study == other.study and line is not other and other.is_reference:
                block = _Block(table, line.cells, other.cells)
                for group, codes in line.groups.items():
                    found = block.average(codes)
                    rows.append((line.study, line.model, other.model, group, *found))
    return _frame(rows, DIFFERENCE_COLUMNS)


def as_csv(found: pd.DataFrame) -> str:
    """Averages or differences as CSV with a header; what is missing is empty."""
    return found.round(6).to_csv(index=False, lineterminator="\n")


def difference_sentences(plan: Plan, found: pd.DataFrame) -> list[str]:
    """A sentence for each line of :func:`differences`, in its order; see :mod:`orchestrator.scores.sentences`."""
    words = {(line.study, line.model): line.words for line in _lines(plan)}
    sentences = []
    for study, model, against, *numbers, _ in found[list(DIFFERENCE_COLUMNS)].to_numpy().tolist():
        sentences.append(difference_sentence(words[study, model], words[study, against], *numbers))
    return sentences


@dataclasses.dataclass(frozen=True, eq=False)
class _Line:
    """A mixture as one study lists it, with its cells by evaluation language, a cell for each train seed."""

    listed: Listed
    cells: dict[str, list[ScoreCell]]

    @property
    def study(self) -> str:
        return self.listed.study

    @property
    def model(self) -> str:
        return self.listed.name

    @property
    def seeds(self) -> int:
        return max(len(cells) for cells in self.cells.values())

    @cached_property
    def groups(self) -> dict[Group, list[str]]:
        found = group_languages(self.cells, self.listed.seen_in)
        return {group: codes for group, codes in found.items() if codes}

    @property
    def is_reference(self) -> bool:
        """English only, or uniform: what the levels of a pinch study are held against."""
        return self.listed.kind == "pinch" and self.listed.percent in (0, 100) and self.listed.count is None

    @property
    def words(self) -> str:
        pinch = self.listed.kind == "pinch"
        return level_words(self.listed.percent, self.listed.count) if pinch else self.model


def _lines(plan: Plan) -> Iterator[_Line]:
    """The mixtures of each study; one that a study lists twice is one line over the languages of both listings."""
    found: dict[tuple[str, str], dict[str, dict[int | None, ScoreCell]]] = {}
    listed: dict[tuple[str, str], Listed] = {}
    for cell in plan.cells:
        where = (cell.row.listed.study, cell.row.listed.name)
        listed.setdefault(where, cell.row.listed)
        found.setdefault(where, {}).setdefault(cell.row.language, {})[cell.model.seed] = cell
    for where, by_language in found.items():
        yield _Line(listed[where], {code: list(cells.values()) for code, cells in by_language.items()})


class _Block:
    """The cells of one mixture, or of one less another, resampled together; missing cells are known as such."""

    def __init__(
        self, table: ScoreTable, cells: dict[str, list[ScoreCell]], less: dict[str, list[ScoreCell]] | None = None
    ) -> None:
        self.table, self.cells, self.less = table, cells, less
        self.there = {code: at for at, code in enumerate(code for code in cells if self._scored(code))}

    def average(self, codes: Sequence[str]) -> Estimate:
        if not all(code in self.there for code in codes):
            return _NOTHING
        if not any(self._judged(code) for code in codes):
            return Estimate(50.0 if self.less is None else 0.0, None, None, 0)
        return self._resampled.average([self.there[code] for code in codes])

    @cached_property
    def _resampled(self) -> Resampled:
        seeds = len(next(iter(self.cells.values())))
        values = [self.cells[code][seed] for seed in range(seeds) for code in self.there]
        answers = [self.table.answers(cell) for cell in values]
        if self.less is not None:
            answers += [self.table.answers(self.less[code][seed]) for seed in range(seeds) for code in self.there]
        points = aligned(answers)
        if self.less is not None:
            points = np.subtract(*np.split(points, 2))
        return Resampled(points.reshape(seeds, len(self.there), -1))

    def _scored(self, code: str) -> bool:
        scores = [self.table.score_of(cell) for cell in self._of(code)]
        return all(score is not None and score.if_score is not None for score in scores)

    def _judged(self, code: str) -> bool:
        return any(cell.comparison is not None for cell in self._of(code))

    def _of(self, code: str) -> list[ScoreCell]:
        return self.cells[code] + ([] if self.less is None else self.less[code])


def _frame(rows: Sequence[tuple[object, ...]], columns: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = [name for name in ("average", "difference", "ci_low", "ci_high") if name in frame]
    return frame.astype(dict.fromkeys(numbers, float))
