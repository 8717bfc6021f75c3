"""One study's scores by (what was tuned on, evaluation language), and averages of them, each with its interval.

Rows that share both are averaged: train seeds of one model, or the models that stand for one point of a figure. What
is missing is NaN, and so is every average that it belongs to.

An average's interval cannot be made here: languages share one set of instructions, so their intervals do not add up to
one. It comes from the ``averages`` of a sweep (:mod:`orchestrator.scores.summaries`), which resamples instructions, and
it is taken only where it is an interval of the very number. A mean over several models has no interval there either; it
is given the mean of the models' ends, which is as wide as theirs would be if all models erred together, and never too
narrow. This module must never know how anything is drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from orchestrator.report.views import Level, StudyView

_SAME = 0.05
"""Points within which two averages are the same number."""


class Value(NamedTuple):
    """A score or a mean of scores with its 95% interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def missing(self) -> bool:
        """Whether there is no value."""
        return math.isnan(self.value)

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))


MISSING = Value(math.nan)


class Cells:
    """The scores of one study, to be looked up.

    Args:
        rows: the study's rows of the score table, cleaned.
        key: what a row stands for: what was tuned on, a level, a number of languages.
        averages: ``study, model, group, average, ci_low, ci_high``, of any studies; default none.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        study: StudyView,
        key: Callable[[Any], Hashable],
        averages: pd.DataFrame | None = None,
    ) -> None:
        self._cells: dict[tuple[Hashable, str], list[Value]] = {}
        self._shares: dict[tuple[Hashable, str], list[float]] = {}
        self._models: dict[Hashable, list[str]] = {}
        found: Any = rows.itertuples(index=False)
        for row in found:
            place = (key(row), str(row.eval_language))
            self._cells.setdefault(place, []).append(Value(row.if_score, row.ci_low, row.ci_high))
            self._shares.setdefault(place, []).append(row.in_language_share)
            self._models.setdefault(place[0], []).append(str(row.model))
        self._averages = _intervals(averages, study.label)

    @property
    def keys(self) -> tuple[Hashable, ...]:
        """What there are rows of, in their order."""
        return tuple(self._models)

    def cell(self, key: Hashable, language: str) -> Value:
        """A score; the interval of several rows is the mean of theirs: one row's width, around their mean."""
        found = self._cells.get((key, language), [MISSING])
        return Value(*(mean(value[place] for value in found) for place in range(3)))

    def share(self, key: Hashable, language: str) -> float:
        """The share of responses that are in the language of their prompt, 0 to 1."""
        return mean(self._shares.get((key, language), []))

    def models(self, key: Hashable) -> tuple[str, ...]:
        """The models behind a key, as the score table names them, one of several seeds without its seed."""
        return tuple(dict.fromkeys(without_seed(name) for name in self._models.get(key, [])))

    def average(self, key: Hashable, languages: Sequence[str], group: str) -> Value:
        """The mean over languages, with its interval where the averages of ``group`` have one of this very number."""
        value = mean(self.cell(key, language).value for language in languages)
        names = self._models.get(key, [])
        found = [
            self._averages.get((name, group)) or self._averages.get((without_seed(name), group), MISSING)
            for name in names
        ]
        same, low, high = (mean(one[place] for one in found) for place in range(3))
        return Value(value, low, high) if abs(same - value) <= _SAME else Value(value)


def difference(x: Value, y: Value) -> Value:
    """x less y. The interval takes the two as independent (Zou and Donner, 2008): wider than a paired one, because two
    models judged on the same instructions against the same responses err together."""
    half_low = math.hypot(x.value - x.low, y.high - y.value)
    half_high = math.hypot(x.high - x.value, y.value - y.low)
    least = x.value - y.value
    return Value(least, least - half_low, least + half_high)


def mean(values: Iterable[float]) -> float:
    """The plain mean; NaN over nothing, or when any of it is missing."""
    found = list(values)
    return sum(found) / len(found) if found else math.nan


def level_of(row: Any) -> Level:
    """The level that a row of a pinch study stands for, equal to the one in :func:`views.levels`."""
    return Level(row.percent, None if math.isnan(row.count) else int(row.count), "")


def without_seed(model: str) -> str:
    """``mono-fi`` of ``mono-fi-s1``."""
    return re.sub(r"-s\d+$", "", model)


def _intervals(averages: pd.DataFrame | None, study: str) -> dict[tuple[str, str], Value]:
    if averages is None:
        return {}
    rows = averages[averages["study"] == study]
    numbers = rows[["average", "ci_low", "ci_high"]].astype(float).itertuples(index=False, name=None)
    return {
        (str(model), str(group)): Value(*row)
        for model, group, row in zip(rows["model"], rows["group"], numbers, strict=True)
    }
