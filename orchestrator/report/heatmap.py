"""Figures 1, 7 and 10: a score for every model in every language, and each model's average.

Rows are what was tuned on, columns what it was evaluated in; the last column is the row's average, the diagonal
included, as the paper averages. Diagonal cells are 50 by definition and are outlined.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

from orchestrator.report.canvas import INK, QUIET, SCORES, drawing, missing_cell
from orchestrator.report.views import StudyView, average, cell, language_name

_INTERVALS_UP_TO = 8
"""Columns beyond which there is no room for an interval in a cell; the score table has it."""


def matrix(rows: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """Rows: what was tuned on (languages joined by ``+``, or a model's name in a custom study); columns: evaluation
    languages and ``avg``; NaN where a score is missing."""
    groups = _groups(rows, study)
    values = [[cell(part, language) for language in study.evaluate_in] for part in groups.values()]
    table = pd.DataFrame(values, index=list(groups), columns=list(study.evaluate_in), dtype=float)
    table["avg"] = [average(part, study.evaluate_in) for part in groups.values()]
    return table.rename_axis("model" if study.kind == "custom" else "train_language")


def _groups(rows: pd.DataFrame, study: StudyView) -> dict[str, pd.DataFrame]:
    if study.kind == "custom":
        return {str(model): rows[rows["model"] == model] for model in rows["model"].unique()}
    return {language: rows[rows["train_languages"] == language] for language in study.languages}


def csv(table: pd.DataFrame) -> str:
    """The matrix as the paper's are published: one row a model, one digit."""
    text = io.StringIO()
    table.to_csv(text, float_format="%.1f", lineterminator="\n")
    return text.getvalue()


def draw(rows: pd.DataFrame, study: StudyView, title: str, subtitle: str) -> Drawing:
    """The heat map of one study."""
    table, groups = matrix(rows, study), _groups(rows, study)
    count, columns = len(table), len(study.evaluate_in)
    side = 0.92 if columns <= _INTERVALS_UP_TO else 0.54
    tall = 0.62 if columns <= _INTERVALS_UP_TO else 0.4
    left, below = (0.5 + 0.075 * max(map(len, _names(list(groups))), default=6)), (0.5 if side > 0.6 else 0.85)
    width = max(left + side * (columns + 1) + 0.35, 4.2)
    height = 0.55 + tall * count + below + 0.1
    figure = drawing(width, height, title, subtitle)
    axes = figure.add_axes((left / width, below / height, side * (columns + 1.15) / width, tall * count / height))
    scores = table.to_numpy(dtype=float)
    names = [str(name) for name in table.index]
    ceiling = 100.0 if np.nanmax(scores, initial=0) > 65 else 65.0
    places = [*range(columns), columns + 0.15]  # a gap sets the average apart
    for y, name in enumerate(names):
        for x, column, value in zip(places, [*study.evaluate_in, "avg"], scores[y], strict=True):
            if np.isnan(value):
                missing_cell(axes, x, y)
                continue
            face = SCORES(value / ceiling)
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1))
            interval = _interval(groups[name], column) if columns <= _INTERVALS_UP_TO else ""
            shift = 0.1 if interval else 0
            weight = "bold" if column == "avg" else "normal"
            axes.text(
                x, y - shift, f"{value:.1f}", ha="center", va="center", color=INK,
                fontsize=9.5 if side > 0.6 else 7.5, fontweight=weight,
            )  # fmt: skip
            if interval:
                axes.text(x, y + 0.24, interval, ha="center", va="center", color=INK, fontsize=6)
            if name == column and study.kind in ("monolingual", "slavic"):
                axes.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, fill=False, edgecolor=INK, linewidth=0.9))
    axes.set_xlim(-0.5, columns + 0.65)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_xticks(places, [*_names(study.evaluate_in), "Average"], rotation=0 if side > 0.6 else 90)
    axes.set_yticks(range(count), _names(list(groups)))
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.spines[:].set_visible(False)
    axes.set_xlabel("evaluated in", color=QUIET, fontsize=7.5)
    axes.set_ylabel("tuned on", color=QUIET, fontsize=7.5)
    return figure


def _names(codes: Sequence[str]) -> list[str]:
    return [language_name(code) for code in codes]


def _interval(rows: pd.DataFrame, language: str) -> str:
    low, high = cell(rows, language, "ci_low"), cell(rows, language, "ci_high")
    return "" if np.isnan(low) or np.isnan(high) else f"{low:.0f}–{high:.0f}"
