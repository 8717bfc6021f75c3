"""Figures 3 and 4: scores as more and more of the tuning data is multilingual.

Lines are averages over languages, with their intervals where the sweep has them; what spreads around them is drawn
faintly, and language by language in a figure of its own. Levels stand in even steps: most of what happens is below 10%.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke

from orchestrator.languages import ENGLISH
from orchestrator.report.canvas import (
    BLUE,
    FAINT,
    INK,
    MISSING_KEY,
    QUIET,
    VERMILION,
    WIDE,
    drawing,
    key,
    mark,
    missing_column,
    score_axis,
    score_range,
    top,
)
from orchestrator.report.cells import Cells, Value, level_of
from orchestrator.report.views import Level, StudyView, language_name, levels, non_english


@dataclass(frozen=True)
class Series:
    """One line: a name, the languages it averages, and how it is drawn."""

    name: str
    languages: tuple[str, ...]
    group: str
    """Of the averages; empty for a single language."""
    colour: str
    marker: str
    dashes: tuple[int, tuple[float, ...]] | str = "-"

    def of(self, cells: Cells, key: Hashable) -> Value:
        """The line's value at one place."""
        if not self.group:
            return cells.cell(key, self.languages[0])
        return cells.average(key, self.languages, self.group)


def pinch_series(study: StudyView) -> list[Series]:
    """English; the other languages seen, and those unseen where the study has both, else all of them as one."""
    others = non_english(study)
    seen = tuple(language for language in others if language in study.languages)
    unseen = tuple(language for language in others if language not in study.languages)
    found = []
    if seen and unseen:
        found = [
            Series("Seen languages", seen, "seen", BLUE, "o"),
            Series("Unseen languages", unseen, "unseen", VERMILION, "^"),
        ]
    elif others:
        colour, marker = (BLUE, "o") if seen else (VERMILION, "^")
        found = [Series("Non-English", others, "non_english", colour, marker)]
    if ENGLISH in study.evaluate_in:
        found.append(Series("English", (ENGLISH,), "", INK, "s", (0, (4, 2))))
    return found


class Pinch:
    """One pinch study, to be drawn or written.

    Args:
        rows: the study's rows, cleaned.
        averages: of the sweep, for the intervals of averages; default none.
    """

    def __init__(self, rows: pd.DataFrame, study: StudyView, averages: pd.DataFrame | None = None) -> None:
        self.study = study
        self.levels = levels(rows)
        self.cells = Cells(rows, study, level_of, averages)
        self.series = pinch_series(study)
        self.single = [Series(language_name(code), (code,), "", QUIET, "o") for code in study.evaluate_in]

    def numbers(self, lines: Sequence[Series]) -> pd.DataFrame:
        """One row for every level and line: ``level,percent,count,series,languages,if_score,ci_low,ci_high``."""
        found = [
            (level.label, level.percent, level.count, line.name, "+".join(line.languages), *line.of(self.cells, level))
            for level in self.levels
            for line in lines
        ]
        columns = ["level", "percent", "count", "series", "languages", "if_score", "ci_low", "ci_high"]
        return pd.DataFrame(found, columns=columns).astype({"count": "Int64"})

    def _values(self, series: Series) -> list[Value]:
        return [series.of(self.cells, level) for level in self.levels]

    def draw_averages(self, title: str, subtitle: str) -> Drawing:
        """The averages, level by level."""
        width, height = 6.6, 3.65
        figure = drawing(width, height, title, subtitle)
        axes = figure.add_axes((0.075, 0.195, 0.735, top(height) - 0.2))
        lines = {line: self._values(line) for line in self.series}
        single = [self._values(line) for line in self.single if line.languages != (ENGLISH,)]
        everything = [value for values in [*single, *lines.values()] for value in values]
        bounds = [
            end for values in lines.values() for value in values if value.known for end in (value.low, value.high)
        ]
        ends = score_range([*(value.value for value in everything), *bounds])
        faint_lines(axes, [[value.value for value in values] for values in single])
        averaged = [line for line in self.series if line.group]
        english = next((values for line, values in lines.items() if not line.group), [])
        for line, values in lines.items():
            shift = 0.0 if not line.group or len(averaged) == 1 else 0.14 * averaged.index(line) - 0.07
            draw_line(axes, [place + shift for place in range(len(values))], values, line)
            if averaged == [line] and len(self.levels) <= 14:  # two lines of numbers would run into each other
                _number_points(axes, values, english, line.colour)
        for place in range(len(self.levels)):
            if any(values[place].missing for values in lines.values()):
                missing_column(axes, place, 0.5)
        score_axis(axes, ends)
        axes.set_xlim(-0.4, len(self.levels) - 0.6)
        name_ends(axes, [(last_known(values), line) for line, values in lines.items()], len(self.levels) - 1)
        crowded = len(self.levels) > 7
        axes.set_xticks(range(len(self.levels)), [_narrow(level) if crowded else level.label for level in self.levels])
        axes.set_xlabel("how much of the tuning data is multilingual (even steps on the axis, not to scale)")
        axes.set_ylabel("instruction following (IF)")
        key(figure, self._key(bool(bounds), any(value.missing for values in lines.values() for value in values)))
        return figure

    def _key(self, intervals: bool, missing: bool) -> list[Any]:
        handles: list[Any] = [mark("one language", FAINT, "none", "-", linewidth=1.2)]
        handles.append(mark("50: not to be told apart", QUIET, "none", (0, (1, 2)), linewidth=0.8))
        if intervals:
            handles.insert(0, mark("95% interval", QUIET, "|", size=7, markeredgewidth=1.2))
        return [*handles, MISSING_KEY] if missing else handles

    def draw_languages(self, title: str, subtitle: str) -> Drawing:
        """One small panel for each evaluation language, with its interval, over the others in grey."""
        across = min(4, len(self.single)) if len(self.single) != 6 else 3
        down = -(-len(self.single) // across)
        width, height = WIDE, 1.15 + 1.42 * down
        figure = drawing(width, height, title, subtitle)
        lines = [self._values(line) for line in self.single]
        scores = [[value.value for value in values] for values in lines]
        ends = score_range(end for values in lines for value in values for end in value)
        grid = figure.add_gridspec(
            down,
            across,
            left=0.068,
            right=0.985,
            top=top(height) - 0.2 / height,
            bottom=0.68 / height,
            hspace=0.56,
            wspace=0.14,
        )
        for place, (line, values) in enumerate(zip(self.single, lines, strict=True)):
            axes = figure.add_subplot(grid[place // across, place % across])
            faint_lines(axes, [other for at, other in enumerate(scores) if at != place])
            self._panel(axes, line.languages[0], values)
            score_axis(axes, ends)
            if place % across:
                axes.set_yticklabels([])
        figure.text(
            0.5, 0.3 / height, "how much of the tuning data is multilingual", ha="center", fontsize=7.5, color=QUIET
        )
        handles: list[Any] = [Patch(facecolor=BLUE, alpha=0.2, label="95% interval")]
        handles.append(mark("the other languages", FAINT, "none", "-", linewidth=1.2))
        if any(value.missing for values in lines for value in values):
            handles.append(MISSING_KEY)
        key(figure, handles)
        return figure

    def _panel(self, axes: Axes, language: str, values: Sequence[Value]) -> None:
        unseen = language not in self.study.languages
        colour = INK if language == ENGLISH else VERMILION if unseen else BLUE
        marker = "s" if language == ENGLISH else "^" if unseen else "o"
        places = list(range(len(values)))
        low, high = [value.low for value in values], [value.high for value in values]
        axes.fill_between(places, low, high, color=colour, alpha=0.22, linewidth=0, zorder=2)
        alone = [x for x in places if values[x].known and not any(value.known for value in _beside(values, x))]
        axes.vlines(alone, [low[x] for x in alone], [high[x] for x in alone], color=colour, alpha=0.4, zorder=2)
        axes.plot(places, [value.value for value in values], color=colour, marker=marker, linewidth=1.4, markersize=3.4,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=3)  # fmt: skip
        for place, value in enumerate(values):
            if value.missing:
                missing_column(axes, place, 0.7)
        name = language_name(language) + (" (unseen)" if unseen else "")
        axes.set_title(name, fontsize=8, loc="left", pad=4, fontweight="bold", color=colour)
        axes.set_xlim(-0.45, len(values) - 0.55)
        crowded = len(values) > 6
        shown = [x for x in places if not crowded or _shown(self.levels[x])]
        axes.set_xticks(shown, [_narrow(self.levels[x], crowded) for x in shown], fontsize=6)
        axes.tick_params(axis="y", labelsize=6.5)


def draw_line(axes: Axes, places: Sequence[float], values: Sequence[Value], line: Series) -> None:
    """A line through values, each with its interval."""
    known = [(place, value) for place, value in zip(places, values, strict=True) if value.known]
    axes.vlines(
        [place for place, _ in known],
        [value.low for _, value in known],
        [value.high for _, value in known],
        color=line.colour,
        linewidth=1.1,
        zorder=2.8,
    )
    axes.plot(
        places,
        [value.value for value in values],
        color=line.colour,
        linestyle=line.dashes,
        marker=line.marker,
        linewidth=1.8,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.7,
        zorder=3,
    )


def faint_lines(axes: Axes, lines: Sequence[Sequence[float]], places: Sequence[float] | None = None) -> None:
    """Many lines that only show how much there is around."""
    segments = [np.column_stack([places or range(len(line)), line]) for line in lines if len(line)]
    axes.add_collection(LineCollection(segments, colors=FAINT, linewidths=0.8, zorder=1.6))


def last_known(values: Sequence[Value]) -> float:
    """The last value that is not missing, 0 for none."""
    return next((value.value for value in reversed(values) if not value.missing), 0.0)


def name_ends(axes: Axes, labels: Sequence[tuple[float, Series]], last: float) -> None:
    """Names at the ends of the lines instead of a legend, moved apart where lines meet, and led to."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.062
    ordered = sorted(labels, key=lambda label: label[0])
    heights = [value for value, _ in ordered]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + step)
    shift = (sum(heights) - sum(value for value, _ in ordered)) / max(1, len(heights))
    heights = [height - shift for height in heights]  # names stand around their lines, not above them
    for place in reversed(range(len(heights))):
        above = heights[place + 1] - step if place + 1 < len(heights) else high
        heights[place] = min(heights[place], above)
    edge = axes.get_xlim()[1]
    for height, (value, series) in zip(heights, ordered, strict=True):
        weight = "normal" if series.colour == QUIET else "bold"
        axes.plot(
            [last + 0.1, edge + 0.06], [value, height], color=series.colour, linewidth=0.5, alpha=0.7, clip_on=False
        )
        axes.text(
            edge + 0.1, height, series.name, color=series.colour, fontsize=7.5, fontweight=weight, va="center_baseline"
        )


def _number_points(axes: Axes, values: Sequence[Value], beside: Sequence[Value], colour: str) -> None:
    """Values in figures, on the side of their points where the other line is not, beyond their interval."""
    for place, value in enumerate(values):
        if value.missing:
            continue
        above = not beside or value.value > beside[place].value or beside[place].missing
        end = (value.high if above else value.low) if value.known else value.value
        axes.annotate(
            f"{value.value:.1f}",
            (place, end),
            xytext=(0, 5 if above else -5),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=7,
            fontweight="bold",
            color=colour,
            zorder=4,
            path_effects=[Stroke(linewidth=2.2, foreground="white"), Normal()],
        )


def _beside(values: Sequence[Value], place: int) -> Sequence[Value]:
    return [*values[max(0, place - 1) : place], *values[place + 1 : place + 2]]


def _shown(level: Level) -> bool:
    return level.count is not None or level.percent in (0, 20, 60, 100)


def _narrow(level: Level, crowded: bool = False) -> str:
    """A label for a narrow place; a count's stands lower, where its neighbours' are not."""
    return ("\n" + level.label) if crowded and level.count is not None else level.label.replace(" ex.", "\nex.")
