"""Figure 6: two languages, each alone and half and half, evaluated in the languages that are neither."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from orchestrator.report.canvas import (
    GREEN,
    MISSING_KEY,
    QUIET,
    RULE,
    drawing,
    key,
    mark,
    missing_row,
    score_range,
    score_ticks,
    top,
)
from orchestrator.report.cells import Cells, Value
from orchestrator.report.views import StudyView, language_name

_GROUP = 3.75
"""Lines from one pair to the next."""


class Pairs:
    """One pairs study, to be drawn or written.

    Args:
        rows: the study's rows, cleaned.
        averages: of the sweep, for the intervals of means; default none.
    """

    def __init__(self, rows: pd.DataFrame, study: StudyView, averages: pd.DataFrame | None = None) -> None:
        self.study = study
        cells = Cells(rows, study, lambda row: row.train_languages, averages)
        self.lines: list[tuple[str, str, dict[str, Value], Value]] = []
        """Pair, tuned on, the values by evaluation language, their mean."""
        for pair in study.pairs:
            others = [code for code in study.evaluate_in if code not in pair]
            for tuned_on in (*pair, "+".join(sorted(pair))):
                values = {code: cells.cell(tuned_on, code) for code in others}
                self.lines.append(("+".join(pair), tuned_on, values, cells.average(tuned_on, others, "all")))

    def numbers(self) -> pd.DataFrame:
        """``pair,tuned_on,eval_language,if_score,ci_low,ci_high``; the mean as ``avg``."""
        found = [
            (pair, tuned_on, language, *value)
            for pair, tuned_on, values, average in self.lines
            for language, value in [*values.items(), ("avg", average)]
        ]
        columns = ["pair", "tuned_on", "eval_language", "if_score", "ci_low", "ci_high"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, title: str, subtitle: str) -> Drawing:
        """Each pair's three models: small dots for the languages in neither, a large mark for their mean."""
        places = [place // 3 * _GROUP + place % 3 for place in range(len(self.lines))]
        width, height = 6.4, 1.3 + 0.185 * (max(places, default=0) + 1)
        left = 1.75
        figure = drawing(width, height, title, subtitle)
        axes = figure.add_axes((left / width, 0.68 / height, (width - left - 0.55) / width, top(height) - 0.7 / height))
        low, high = score_range(value.value for *_, values, mean in self.lines for value in [*values.values(), mean])
        for y, line in zip(places, self.lines, strict=True):
            self._line(axes, y, line, high + (high - low) * 0.02)
        axes.set_ylim(max(places, default=0) + 0.7, -0.7)
        axes.set_xlim(low, high)
        axes.set_xticks(score_ticks(low, high))
        axes.axvline(50, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
        axes.grid(axis="x", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        names = [" + ".join(map(language_name, tuned_on.split("+"))) for _, tuned_on, _, _ in self.lines]
        axes.set_yticks(places, names, fontsize=7.5)
        axes.spines["left"].set_visible(False)
        for tick, (_, tuned_on, _, _) in zip(axes.get_yticklabels(), self.lines, strict=True):
            tick.set_fontweight("bold" if "+" in tuned_on else "normal")
        axes.set_xlabel("IF in the languages of neither")
        self._key(figure)
        return figure

    def _line(self, axes: Axes, y: float, line: tuple[str, str, dict[str, Value], Value], edge: float) -> None:
        pair, tuned_on, values, average = line
        colour, marker = _look(pair, tuned_on)
        single = [value.value for value in values.values()]
        axes.plot(single, [y] * len(single), ".", color=colour, alpha=0.5, markersize=4, markeredgewidth=0, zorder=2.5)
        if average.missing:
            missing_row(axes, y, 0.7)
            axes.text(edge, y, "missing", va="center_baseline", color=QUIET, fontsize=6.5)
            return
        if average.known:
            axes.hlines(y, average.low, average.high, color=colour, linewidth=1.4, zorder=2.8)
        size = 6.5 if marker == "o" else 5
        axes.plot([average.value], [y], marker, color=colour, markersize=size, markeredgecolor="white", zorder=3)
        text = f"{average.value:.1f}"
        axes.text(edge, y, text, va="center_baseline", color=colour, fontweight="bold", fontsize=7.5)

    def _key(self, figure: Drawing) -> None:
        handles = [
            mark("one language", QUIET, ".", size=4, alpha=0.6),
            mark("mean, each alone", QUIET, "s"),
            mark("mean, half and half", GREEN, "o", size=5.5),
        ]
        if any(mean.known for *_, mean in self.lines):
            handles.append(mark("95% interval of a mean", QUIET, "none", "-", linewidth=1.2))
        missing = [MISSING_KEY] if any(mean.missing for *_, mean in self.lines) else []
        key(figure, [*handles, *missing])


def _look(pair: str, tuned_on: str) -> tuple[str, str]:
    if "+" in tuned_on:
        return GREEN, "o"
    return QUIET, "s" if pair.startswith(f"{tuned_on}+") else "D"
