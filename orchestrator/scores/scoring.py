"""From verdicts to scores: side by side with a position swap, discounted ties, intervals (paper section 2).

A judge is asked twice about each instruction, with the two responses in both orders. The unit is the
instruction: a win is being preferred in both orders, a loss in neither, and a tie is a judge that picked the
same position twice. The score is the mean of win 1, tie 0.5, loss 0, in percent; 50 cannot be told apart.

An answer that cannot be parsed is no verdict. Its instruction is counted as invalid and left out, for scoring
it in any way would move the score by how badly the judge writes. What is missing stays None, never a number.

This room must never know who judged or where verdicts are kept; how intervals come about is
:mod:`orchestrator.scores.bootstrap`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.languages import ENGLISH
from orchestrator.scores.bootstrap import DRAWS, interval

ORDERS = ("ab", "ba")


class VerdictRow(NamedTuple):
    """One judge call's answer."""

    instruction_id: str
    order: str
    """``ab`` showed the baseline A first, ``ba`` the model B."""
    choice: int | None
    """1 or 2, the position of the preferred response; None where no answer could be parsed."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Both answers about each instruction of one comparison, as arrays of one length."""

    ids: tuple[str, ...]
    """In sorted order, so that nothing depends on the sequence of the verdicts."""
    ab: NDArray[np.int8]
    """The choice in order ``ab``: 1 or 2, 0 where no answer could be parsed."""
    ba: NDArray[np.int8]

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Instructions with an answer in both orders."""
        return (self.ab > 0) & (self.ba > 0)

    @cached_property
    def outcomes(self) -> NDArray[np.float64]:
        """For model B: win 1, tie 0.5, loss 0; NaN where invalid."""
        return np.where(self.valid, ((self.ab == 2) + (self.ba == 1).astype(float)) / 2, np.nan)

    def over(self, ids: Collection[str]) -> Judged:
        """The same about some of the instructions."""
        kept = [at for at, name in enumerate(self.ids) if name in ids]
        return Judged(tuple(self.ids[at] for at in kept), self.ab[kept], self.ba[kept])


@dataclass(frozen=True)
class Score:
    """What a set of verdicts says about model B against baseline A."""

    if_score: float | None
    """Mean over instructions, 0 to 100; None where there is no valid instruction."""
    ci_low: float | None
    ci_high: float | None
    """95% percentile bootstrap over instructions; None where nothing was judged."""
    wins: int
    ties: int
    losses: int
    invalid: int
    """Instructions with an unparsable answer in either order; part of nothing else here."""
    n: int
    """Valid instructions: wins + ties + losses."""
    first_position_rate: float | None
    """Share of choice 1 among all parsable calls, 0 to 1; 0.5 is a judge without a preferred position."""

    def as_dict(self) -> dict[str, float | int | None]:
        """The fields in the order ``pinch score-verdicts`` prints them."""
        return asdict(self)


DIAGONAL = Score(50.0, None, None, wins=0, ties=0, losses=0, invalid=0, n=0, first_position_rate=None)
"""A baseline against itself: 50 by definition, never judged."""


def judged(verdicts: Iterable[tuple[str, str, int | None]]) -> Judged:
    """The verdicts, (instruction id, order, choice) in any sequence, by instruction.

    Raises:
        ValueError: for an unknown order or choice, a call given twice, or an instruction with one order only.
    """
    rows = list(verdicts)
    return judged_columns(*([row[place] for row in rows] for place in range(3)))


def judged_columns(
    ids: Sequence[str] | Any, orders: Sequence[str] | Any, choices: Sequence[int | None] | Any
) -> Judged:
    """The same from three columns of one length, such as those of a verdict table: arrow arrays or sequences.

    Raises:
        ValueError: as :func:`judged`.
    """
    names, order, answer = _arrow(ids, pa.string()), _arrow(orders, pa.string()), _arrow(choices, pa.int64())
    said = order.to_numpy(zero_copy_only=False)
    swapped, choice = said == "ba", answer.fill_null(0).to_numpy()
    unknown = ~swapped & (said != "ab")
    _refuse(unknown, lambda at: f"instruction {names[at].as_py()!r}: order {said[at]!r} is neither ab nor ba")
    odd = ~np.isin(choice, (1, 2)) & answer.is_valid().to_numpy(zero_copy_only=False)
    _refuse(odd, lambda at: f"instruction {names[at].as_py()!r}: choice {choice[at]} is neither 1 nor 2 nor missing")
    encoded = names.dictionary_encode()
    known, row = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    answers = np.zeros((2, len(known)), dtype=np.int8)
    for place, of_order in enumerate((~swapped, swapped)):
        asked = np.bincount(row[of_order], minlength=len(known))
        _refuse(asked > 1, lambda at, p=place: f"instruction {known[at]!r} is judged twice in order {ORDERS[p]}")
        _refuse(asked < 1, lambda at: f"instruction {known[at]!r} is judged in one order only")
        answers[place, row[of_order]] = choice[of_order]
    by_id = sorted(range(len(known)), key=known.__getitem__)
    return Judged(tuple(known[at] for at in by_id), answers[0, by_id], answers[1, by_id])


def outcomes(verdicts: Iterable[tuple[str, str, int | None]]) -> dict[str, float | None]:
    """Each instruction's outcome for model B: win 1, tie 0.5, loss 0, None where invalid; see :func:`judged`."""
    found = judged(verdicts)
    return {
        name: float(value) if valid else None
        for name, value, valid in zip(found.ids, found.outcomes, found.valid, strict=True)
    }


def score(verdicts: Judged | Iterable[tuple[str, str, int | None]], *, draws: int = DRAWS, seed: int = 0) -> Score:
    """The score of model B against baseline A; see :func:`judged` for the verdicts and what is refused."""
    found = verdicts if isinstance(verdicts, Judged) else judged(verdicts)
    results = found.outcomes[found.valid]
    wins, ties, losses = (int((results == value).sum()) for value in (1.0, 0.5, 0.0))
    calls = np.concatenate([found.ab, found.ba])
    parsable = int((calls > 0).sum())
    low, high = interval(wins, ties, losses, draws=draws, seed=seed)
    return Score(
        if_score=mean_score(wins, ties, losses),
        ci_low=low,
        ci_high=high,
        wins=wins,
        ties=ties,
        losses=losses,
        invalid=len(found.ids) - len(results),
        n=len(results),
        first_position_rate=int((calls == 1).sum()) / parsable if parsable else None,
    )


def mean_score(wins: int, ties: int, losses: int) -> float | None:
    """The discounted-tie mean in percent, None over no instruction."""
    n = wins + ties + losses
    return 50.0 * (2 * wins + ties) / n if n else None


def aligned(cells: Sequence[Judged | None]) -> NDArray[np.float64]:
    """(cells, instructions): outcomes in percent, each column one instruction, NaN where it is invalid or not judged.

    Columns are the instructions of any of the cells, sorted by id. None is a baseline against itself: 50 for every
    instruction, so that it is an average's part without variance, as in the paper.
    """
    known = sorted({name for cell in cells if cell is not None for name in cell.ids})
    values = np.full((len(cells), len(known)), np.nan)
    place = {name: at for at, name in enumerate(known)}
    for at, cell in enumerate(cells):
        if cell is None:
            values[at] = 50.0
        elif len(cell.ids) == len(known):
            values[at] = 100.0 * cell.outcomes
        else:
            values[at, [place[name] for name in cell.ids]] = 100.0 * cell.outcomes
    return values


Group = Literal["all", "seen", "unseen", "non_english"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""What averages are taken over. ``all``: every language, the diagonal included (figures 1 and 10, last column).
``seen``: languages seen in tuning, without English (figure 4)."""


def group_languages(languages: Iterable[str], seen: Collection[str]) -> dict[Group, list[str]]:
    """The evaluation languages of each group, in the order given; ``seen``: those that count as seen."""
    codes = list(languages)
    return {
        "all": codes,
        "seen": [code for code in codes if code in seen and code != ENGLISH],
        "unseen": [code for code in codes if code not in seen],
        "non_english": [code for code in codes if code != ENGLISH],
    }


def averages(scores: Mapping[str, float | None], seen: Collection[str]) -> dict[Group, float | None]:
    """Each group's mean of one model's scores, given by evaluation language.

    An average over a part of its languages would look like a result and not be comparable with one: while a
    score is missing, every average it belongs to is None, and so is one over no language.
    """
    return {group: average(scores[code] for code in codes) for group, codes in group_languages(scores, seen).items()}


def average(scores: Iterable[float | None]) -> float | None:
    """The plain mean, None over nothing or where a score is missing."""
    values = list(scores)
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if values and len(present) == len(values) else None


def _arrow(column: Any, kind: pa.DataType) -> pa.Array:
    array = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, type=kind)
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return whole.cast(kind)


def _refuse(wrong: NDArray[np.bool_], sentence: Any) -> None:
    if wrong.any():
        raise ValueError(sentence(int(wrong.argmax())))
