"""Figures 1, 7 and 10: a score for every model in every language, and each model's average.

Rows are what was tuned on, columns what it was evaluated in; the last column is the row's average, the diagonal
included, as the paper averages. Diagonal cells are 50 by definition and are outlined. Where there is no room for a
cell's interval, a dot says that it holds 50: that the two models cannot be told apart there.
"""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch, Rectangle

from orchestrator.languages import LANGUAGES
from orchestrator.report import painting
from orchestrator.report.canvas import INK, MISSING_KEY, WIDE, drawing, key, mark
from orchestrator.report.cells import Cells, Value
from orchestrator.report.views import StudyView, language_name

INTERVALS_UP_TO = 8
"""Columns beyond which there is no room for an interval in a cell; the score table has it."""


class HeatMap:
    """The scores of one study, to be drawn or written.

    Args:
        rows: the study's rows, cleaned.
        averages: of the sweep, for the intervals of the last column; default none.
    """

    def __init__(self, rows: pd.DataFrame, study: StudyView, averages: pd.DataFrame | None = None) -> None:
        self.study = study
        custom = study.kind == "custom"
        cells = Cells(rows, study, lambda row: row.model if custom else row.train_languages, averages)
        self.names = [str(name) for name in (cells.keys if custom else study.languages)]
        self.cells = [[cells.cell(name, language) for language in study.evaluate_in] for name in self.names]
        self.averages = [cells.average(name, study.evaluate_in, "all") for name in self.names]

    @property
    def values(self) -> pd.DataFrame:
        """Rows: what was tuned on (languages joined by ``+``, or a model's name in a custom study); columns:
        evaluation languages and ``avg``; NaN where a score is missing."""
        table = pd.DataFrame(
            [[cell.value for cell in row] for row in self.cells],
            index=pd.Index(self.names, name="model" if self.study.kind == "custom" else "train_language"),
            columns=list(self.study.evaluate_in),
            dtype=float,
        )
        table["avg"] = [average.value for average in self.averages]
        return table

    def csv(self) -> str:
        """The matrix as the paper's are published: one row a model, one digit; the average's interval where there
        is one."""
        table = self.values
        if any(average.known for average in self.averages):
            table["avg_ci_low"] = [average.low for average in self.averages]
            table["avg_ci_high"] = [average.high for average in self.averages]
        text = io.StringIO()
        table.to_csv(text, float_format="%.1f", lineterminator="\n")
        return text.getvalue()

    def draw(self, title: str, subtitle: str) -> Drawing:
        """The heat map."""
        values = self.values.to_numpy(dtype=float)
        count, columns = len(self.names), len(self.study.evaluate_in)
        roomy = columns <= INTERVALS_UP_TO
        intervals = any(average.known for average in self.averages)
        last = 1.0 if roomy else 1.5 if intervals else 1.25
        labels = [language_name(name) for name in self.names]
        left = 0.45 + 0.068 * max(map(len, labels), default=6)
        cells = columns + painting.GAP + last
        side = max(0.36, min(0.76, (WIDE - left - 0.1) / cells))
        tall = 0.46 if roomy else 0.345
        below = 0.7 if roomy else 1.0
        width = max(left + side * cells + 0.1, 4.6)
        height = 0.62 + tall * count + below
        small = [
            [_interval(cell) if roomy else "" for cell in row] + [_interval(average, exact=not roomy)]
            for row, average in zip(self.cells, self.averages, strict=True)
        ]
        written = any(text for row in small for text in row)
        figure = drawing(width, height, title, subtitle + " · small: 95% interval" * written)
        axes = figure.add_axes((left / width, below / height, side * cells / width, tall * count / height))
        scale = painting.scores(values)
        middles = painting.paint(
            axes, values, scale, "{:.1f}".format, size=8.5 if roomy else 7, last=last, small=small, small_size=6
        )
        self._dots(figure, scale, roomy)
        self._outlines(figure)
        names = [*map(language_name, self.study.evaluate_in), "Average"]
        slant: dict[str, Any] = {} if roomy else {"rotation": 40, "ha": "right", "va": "top", "rotation_mode": "anchor"}
        axes.set_xticks(middles, names, fontsize=7.5, **slant)
        axes.set_yticks(range(count), labels, fontsize=7.5)
        axes.get_xticklabels()[-1].set_fontweight("bold")
        axes.set_xlabel("evaluated in", labelpad=2 if roomy else 0)
        axes.set_ylabel("tuned on")
        key(figure, self._key(roomy))
        painting.colour_key(figure, scale, sorted({scale.low, max(50.0, scale.low), scale.high}))
        return figure

    def _dots(self, figure: Drawing, scale: painting.Scale, roomy: bool) -> None:
        if roomy:
            return
        dots = [(x, y, cell) for y, row in enumerate(self.cells) for x, cell in enumerate(row) if _holds_50(cell)]
        figure.axes[0].scatter(
            [x for x, _, _ in dots],
            [y + 0.33 for _, y, _ in dots],
            s=3.5,
            color=[scale.ink(cell.value) for *_, cell in dots],
            linewidths=0,
            zorder=3,
        )

    def _outlines(self, figure: Drawing) -> None:
        axes = figure.axes[0]
        for y, name in enumerate(self.names):
            for x, language in enumerate(self.study.evaluate_in):
                if self._diagonal(name, language):
                    box = Rectangle((x - 0.455, y - 0.44), 0.91, 0.88, fill=False, edgecolor=INK, linewidth=1)
                    axes.add_patch(box)
                elif self._intelligible(name, language):
                    box = Rectangle((x - 0.455, y - 0.44), 0.91, 0.88, fill=False, edgecolor=INK, linewidth=1)
                    box.set_linestyle((0, (2, 1.5)))
                    axes.add_patch(box)

    def _diagonal(self, name: str, language: str) -> bool:
        return name == language and self.study.kind in ("monolingual", "slavic")

    def _intelligible(self, name: str, language: str) -> bool:
        return name in LANGUAGES and LANGUAGES[name].mutually_intelligible == language

    def intelligible(self, name: str) -> bool:
        """Whether speakers of a row's language understand a column's without having learnt it."""
        return any(self._intelligible(name, language) for language in self.study.evaluate_in)

    def _key(self, roomy: bool) -> list[Any]:
        handles: list[Any] = []
        pairs = [(name, language) for name in self.names for language in self.study.evaluate_in]
        box: dict[str, Any] = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.9}
        if any(self._diagonal(*pair) for pair in pairs):
            handles.append(Patch(label="50 by definition", **box))
        if any(self._intelligible(*pair) for pair in pairs):
            handles.append(Patch(label="mutually intelligible", linestyle=(0, (2, 1.5)), **box))
        if not roomy and any(_holds_50(cell) for row in self.cells for cell in row):
            handles.append(mark("its 95% interval holds 50", INK, size=2, markeredgewidth=0))
        if self.values.isna().any(axis=None):
            handles.append(MISSING_KEY)
        return handles


def _interval(value: Value, exact: bool = False) -> str:
    form = "{:.1f}–{:.1f}" if exact else "{:.0f}–{:.0f}"
    return form.format(value.low, value.high) if value.known else ""


def _holds_50(value: Value) -> bool:
    return value.known and value.low <= 50 <= value.high


def matrix(rows: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """The numbers of a study's heat map; see :attr:`HeatMap.values`."""
    return HeatMap(rows, study).values


def long(table: pd.DataFrame, value: str = "if_score") -> pd.DataFrame:
    """A matrix as rows: its index, ``eval_language`` and the value."""
    return table.reset_index().melt(id_vars=[str(table.index.name)], var_name="eval_language", value_name=value)
