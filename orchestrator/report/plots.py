"""Where things stand in the page's figures: scores upwards, equal steps across, everything in percent.

Percentages are what lets one drawing fit a phone and a desk without its text changing size. A *spot* is a place that
can be pointed at, touched or reached by keyboard, with its text and the responses behind it.

This module must never know a study, nor how anything looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

_LABEL_ALL = 7
"""Points beyond which only the first two and the last have their value written beside them."""
_TEXT_ROOM = 9.0
"""Percent of the height that a value above its point takes."""


@dataclass(frozen=True)
class Spot:
    """One place of a figure."""

    text: str
    """What is said of it, a line each; the first is its name."""
    value: float | None = None
    """None: missing."""
    low: float | None = None
    high: float | None = None
    sample: int | None = None
    """The place of its responses among the page's samples."""


class Point(NamedTuple):
    """A value in a plot, percent from the top left, with the ends of its interval."""

    x: float
    y: float
    low: float | None
    high: float | None


class Label(NamedTuple):
    """A text in a plot."""

    x: float
    y: float
    text: str
    under: bool = False
    """Below its point, because another line runs close above."""


class Tick(NamedTuple):
    """What stands under a step."""

    x: float
    text: str
    rank: int
    """0: shown always; 1: not in small plots; 2: only where there is room."""


class Column(NamedTuple):
    """All of one step, top to bottom: the place to point at."""

    left: float
    width: float
    spot: Spot


@dataclass(frozen=True)
class Line:
    """One line of a plot; a missing value has no point and no segment to it."""

    tone: str
    """A class of the style sheet: seen, unseen, english, faint."""
    points: tuple[Point, ...]
    segments: tuple[tuple[Point, Point], ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True)
class Plot:
    """Lines over steps of equal width."""

    title: str
    tone: str
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    grid: tuple[Label, ...]
    """The scores named on the axis."""
    middle: float
    """y of score 50."""
    columns: tuple[Column, ...]


class Scale:
    """Places in a plot: steps across, scores upwards.

    Args:
        steps: how many stand side by side.
        values: every value that has to fit.
        small: there is no room for the axis.
    """

    def __init__(self, steps: int, values: Iterable[float | None], small: bool = False) -> None:
        self._low, self._high = score_range(values)
        self._left, right = (2.0, 98.0) if small else (7.0, 99.0)
        self._top, self._bottom = (3.0, 82.0) if small else (4.0, 90.0)
        self._width = (right - self._left) / max(1, steps)

    def line(
        self, tone: str, spots: Sequence[Spot], labels: bool = False, others: Sequence[Sequence[Spot]] = ()
    ) -> Line:
        """A line through spots; with labels, the values stand at its points, or at some where there are many.

        Args:
            others: the lines that a label must keep clear of.
        """
        points = [
            None
            if spot.value is None
            else Point(self._x(at), self._y(spot.value), self._end(spot.low), self._end(spot.high))
            for at, spot in enumerate(spots)
        ]
        named = range(len(points)) if len(points) <= _LABEL_ALL else (0, 1, len(points) - 1)
        return Line(
            tone,
            tuple(point for point in points if point),
            tuple((one, two) for one, two in pairwise(points) if one and two),
            tuple(
                Label(point.x, point.y, f"{spots[at].value:.1f}", self._crowded(point.y, [line[at] for line in others]))
                for at in named
                if labels and (point := points[at])
            ),
        )

    def _crowded(self, y: float, others: Sequence[Spot]) -> bool:
        """Whether one of the others is so little above that a text would meet it."""
        return any(0 < y - self._y(other.value) < _TEXT_ROOM for other in others if other.value is not None)

    def plot(
        self,
        lines: Sequence[Line],
        ticks: Sequence[tuple[str, int]],
        said: Iterable[Spot],
        title: str = "",
        tone: str = "",
    ) -> Plot:
        """The plot of lines.

        Args:
            ticks: text of each step, and its rank; see :class:`Tick`.
            said: what is said of each step.
        """
        width = round(self._width, 2)
        return Plot(
            title,
            tone,
            tuple(lines),
            tuple(Tick(self._x(at), text, rank) for at, (text, rank) in enumerate(ticks)),
            tuple(Label(0, self._y(score), str(score)) for score in score_steps(self._low, self._high)),
            self._y(50),
            tuple(Column(round(self._left + at * self._width, 2), width, spot) for at, spot in enumerate(said)),
        )

    def _x(self, step: int) -> float:
        return round(self._left + (step + 0.5) * self._width, 2)

    def _y(self, score: float) -> float:
        share = (self._high - score) / (self._high - self._low)
        return round(self._top + share * (self._bottom - self._top), 2)

    def _end(self, score: float | None) -> float | None:
        return None if score is None else self._y(min(max(score, self._low), self._high))


def score_range(values: Iterable[float | None]) -> tuple[int, int]:
    """The ends of a score axis: wide enough for the values and for 50, from 0 unless all are high."""
    there = [value for value in values if value is not None and value == value] + [50.0]
    low = 0 if min(there) < 24 else int((min(there) - 3) // 10) * 10
    return low, next(end for end in (60, 70, 80, 100) if end == 100 or max(there) <= end - 2)


def score_steps(low: int, high: int) -> list[int]:
    """The scores that are named on an axis, 50 among them."""
    step = 10 if high - low <= 40 else 25
    return [score for score in range(0, 101, step) if low <= score <= high]


def known(value: float | None) -> float | None:
    """The value, or None for one that is not a number."""
    return None if value is None or value != value else float(value)
