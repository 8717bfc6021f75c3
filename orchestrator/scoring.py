"""From verdicts to scores: side by side with a position swap, discounted ties, intervals (paper section 2).

A judge is asked twice about each instruction, with the two responses in both orders. The unit is the
instruction: a win is being preferred in both orders, a loss in neither, and a tie is a judge that picked the
same position twice. The score is the mean of win 1, tie 0.5, loss 0, in percent; 50 cannot be told apart.

An answer that cannot be parsed is no verdict. Its instruction is counted as invalid and left out, for scoring
it in any way would move the score by how badly the judge writes. What is missing stays None, never a number.

This room must never know who judged or where verdicts are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from orchestrator.languages import ENGLISH

ORDERS = ("ab", "ba")
DRAWS = 5_000
CONFIDENCE = 95.0


class VerdictRow(NamedTuple):
    """One judge call's answer."""

    instruction_id: str
    order: str
    """``ab`` showed the baseline A first, ``ba`` the model B."""
    choice: int | None
    """1 or 2, the position of the preferred response; None where no answer could be parsed."""


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


def outcomes(verdicts: Iterable[tuple[str, str, int | None]]) -> dict[str, float | None]:
    """Each instruction's outcome for model B: win 1, tie 0.5, loss 0, None where invalid.

    ``verdicts`` are (instruction id, order, choice), such as :class:`VerdictRow`, in any sequence.

    Raises:
        ValueError: for an unknown order or choice, a call given twice, or an instruction with one order only.
    """
    return _outcomes(_preferences(verdicts))


def score(verdicts: Iterable[tuple[str, str, int | None]], *, draws: int = DRAWS, seed: int = 0) -> Score:
    """The score of model B against baseline A; see :func:`outcomes` for the verdicts and what is refused."""
    preferences = _preferences(verdicts)
    calls = [
        (order, prefers_b) for order in ORDERS for prefers_b in preferences[order].values() if prefers_b is not None
    ]
    first = sum(prefers_b == (order == "ba") for order, prefers_b in calls)
    results = list(_outcomes(preferences).values())
    wins, ties, losses = (results.count(value) for value in (1.0, 0.5, 0.0))
    low, high = interval(wins, ties, losses, draws=draws, seed=seed)
    return Score(
        if_score=mean_score(wins, ties, losses),
        ci_low=low,
        ci_high=high,
        wins=wins,
        ties=ties,
        losses=losses,
        invalid=results.count(None),
        n=wins + ties + losses,
        first_position_rate=first / len(calls) if calls else None,
    )


def mean_score(wins: int, ties: int, losses: int) -> float | None:
    """The discounted-tie mean in percent, None over no instruction."""
    n = wins + ties + losses
    return 50.0 * (2 * wins + ties) / n if n else None


@lru_cache(maxsize=4096)
def interval(
    wins: int, ties: int, losses: int, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """The 95% percentile bootstrap interval of :func:`mean_score` over instructions, (None, None) over none.

    Drawing n instructions with replacement is drawing their three outcomes from a multinomial with the
    observed shares, which costs the same for any n.
    """
    n = wins + ties + losses
    if not n:
        return None, None
    generator = np.random.default_rng(seed)
    resampled = generator.multinomial(n, [wins / n, ties / n, losses / n], size=draws)
    low, high = np.percentile(50.0 * (2 * resampled[:, 0] + resampled[:, 1]) / n, _TAILS)
    return float(low), float(high)


class Difference(NamedTuple):
    """Model X less model Y, both against the same baseline, over the instructions valid for both."""

    difference: float | None
    """In points of the score, -100 to 100."""
    ci_low: float | None
    ci_high: float | None
    n: int


def paired_difference(
    x: Mapping[str, float | None], y: Mapping[str, float | None], *, draws: int = DRAWS, seed: int = 0
) -> Difference:
    """The mean difference of two sets of :func:`outcomes`, paired by instruction, with its interval."""
    pairs = ((x[name], y[name]) for name in x.keys() & y.keys())
    differences = [100.0 * (left - right) for left, right in pairs if left is not None and right is not None]
    if not differences:
        return Difference(None, None, None, 0)
    values, counts = np.unique(np.array(differences), return_counts=True)
    n = len(differences)
    generator = np.random.default_rng(seed)
    means = generator.multinomial(n, counts / n, size=draws) @ values / n
    low, high = np.percentile(means, _TAILS)
    return Difference(float(counts @ values / n), float(low), float(high), n)


@dataclass(frozen=True)
class Averages:
    """Means of one model's scores over evaluation languages; None where one is missing or there are none."""

    all: float | None
    """Every language, the diagonal included (figures 1 and 10, last column)."""
    seen: float | None
    """Languages seen in tuning, without English (figure 4)."""
    unseen: float | None
    non_english: float | None


def averages(scores: Mapping[str, float | None], seen: Collection[str]) -> Averages:
    """Average one model's scores, given by evaluation language; ``seen``: the languages that count as seen.

    An average over a part of its languages would look like a result and not be comparable with one: while a
    score is missing, every average it belongs to is None.
    """
    return Averages(
        all=average(scores.values()),
        seen=average(value for code, value in scores.items() if code in seen and code != ENGLISH),
        unseen=average(value for code, value in scores.items() if code not in seen),
        non_english=average(value for code, value in scores.items() if code != ENGLISH),
    )


def average(scores: Iterable[float | None]) -> float | None:
    """The plain mean, None over nothing or where a score is missing."""
    values = list(scores)
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if values and len(present) == len(values) else None


_TAILS = [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2]

_Preferences = dict[str, dict[str, bool | None]]
"""By order, by instruction: whether the call preferred model B, None where its answer could not be parsed."""


def _preferences(verdicts: Iterable[tuple[str, str, int | None]]) -> _Preferences:
    found: _Preferences = {order: {} for order in ORDERS}
    for name, order, choice in verdicts:
        if order not in found:
            raise ValueError(f"instruction {name!r}: order {order!r} is neither ab nor ba")
        if choice not in (1, 2, None):
            raise ValueError(f"instruction {name!r}: choice {choice!r} is neither 1 nor 2 nor missing")
        if name in found[order]:
            raise ValueError(f"instruction {name!r} is judged twice in order {order}")
        found[order][name] = None if choice is None else choice == (2 if order == "ab" else 1)
    alone = found["ab"].keys() ^ found["ba"].keys()
    if alone:
        raise ValueError(f"instruction {min(alone)!r} is judged in one order only")
    return found


def _outcomes(preferences: _Preferences) -> dict[str, float | None]:
    swapped = preferences["ba"]
    return {
        name: None if prefers_b is None or swapped[name] is None else (prefers_b + bool(swapped[name])) / 2
        for name, prefers_b in preferences["ab"].items()
    }
