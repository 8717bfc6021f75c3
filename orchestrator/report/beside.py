"""A run beside the paper: where it differs from the published matrix, and how far it goes with it.

Scores of two base models and two judges cannot be told better or worse; their pattern can be compared. So the left
panel shows the difference in each cell, the right one whether what scores high there scores high here. The diagonal is
50 in both by definition, and is left out of what is correlated.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patheffects import Normal, Stroke

from orchestrator.report import painting
from orchestrator.report.canvas import BLUE, HATCH, INK, MISSING_KEY, QUIET, RULE, VERMILION, WIDE, drawing, key, mark
from orchestrator.report.heatmap import long
from orchestrator.report.views import StudyView, language_name


def numbers(here: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Cell by cell: ``train_language,eval_language,if_score,published,difference``, the averages as ``avg``.

    Args:
        here, published: matrices with the same rows and columns, in any order.
    """
    table = long(here)
    theirs = long(published.loc[here.index, here.columns], "published")
    table["published"] = theirs["published"]
    table["difference"] = table["if_score"] - table["published"]
    return table


def correlations(table: pd.DataFrame, study: StudyView) -> tuple[tuple[float, int], tuple[float, int]]:
    """Pearson's r and the number of values, over cells (the diagonal of a monolingual study left out) and averages."""
    known = table[table["if_score"].notna()]
    cells = known[known["eval_language"] != "avg"]
    if study.kind == "monolingual":
        cells = cells[cells["train_language"] != cells["eval_language"]]
    averages = known[known["eval_language"] == "avg"]
    return tuple((_pearson(part["if_score"], part["published"]), len(part)) for part in (cells, averages))  # type: ignore[return-value]


def _pearson(x: pd.Series, y: pd.Series) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.nunique() > 1 and y.nunique() > 1 else math.nan


def draw(here: pd.DataFrame, published: pd.DataFrame, study: StudyView, title: str, subtitle: str) -> Drawing:
    """The two panels."""
    table = numbers(here, published)
    gaps = (here - published.loc[here.index, here.columns]).to_numpy(dtype=float)
    width, height = WIDE, 4.1
    figure = drawing(width, height, title, subtitle)
    left, below, side = 0.72, 0.86, 0.258
    rows, columns = gaps.shape
    tall = (height - 0.82 - below) / rows
    axes = figure.add_axes(
        (left / width, below / height, side * (columns + painting.GAP + 0.25) / width, tall * rows / height)
    )
    scale = painting.differences(gaps)
    middles = painting.paint(axes, gaps, scale, _signed, size=6.2, last=1.25)
    names = [language_name(code) for code in here.index]
    axes.set_yticks(range(rows), names, fontsize=6.5)
    labels = [*map(language_name, here.columns[:-1]), "Average"]
    axes.set_xticks(middles, labels, fontsize=6.5, rotation=40, ha="right", va="top", rotation_mode="anchor")
    axes.set_title("this run less the published value, in points", fontsize=7, color=QUIET, loc="left", pad=4)
    _scatter(figure, table, study, height - 0.82)
    missing = [MISSING_KEY] if np.isnan(gaps).any() else []
    cell = mark("a cell", HATCH, ".", size=5)
    average = mark("average of a row", VERMILION, "D", size=4)
    same = mark("the same value", QUIET, "none", (0, (1, 2)), linewidth=0.8)
    key(figure, [*missing, cell, average, same])
    ends = round(scale.high)
    painting.colour_key(figure, scale, [-ends, 0, ends])
    return figure


def _scatter(figure: Drawing, table: pd.DataFrame, study: StudyView, high: float) -> None:
    width, height = figure.get_size_inches()
    left = 4.72
    side = width - left - 0.1
    axes = figure.add_axes((left / width, (high - side) / height, side / width, side / height))
    (cells_r, cells_n), (averages_r, averages_n) = correlations(table, study)
    known = table[table["if_score"].notna()]
    cells = known[known["eval_language"] != "avg"]
    if study.kind == "monolingual":
        cells = cells[cells["train_language"] != cells["eval_language"]]
    averages = known[known["eval_language"] == "avg"]
    both = pd.concat([cells, averages])[["if_score", "published"]].to_numpy()
    low, top = (float(both.min()) - 3, float(both.max()) + 3) if len(both) else (0.0, 100.0)
    axes.plot([low, top], [low, top], color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    axes.plot(cells["published"], cells["if_score"], ".", color=BLUE, alpha=0.45, markersize=4, markeredgewidth=0)
    axes.plot(averages["published"], averages["if_score"], "D", color=VERMILION, markersize=3.6, zorder=3,
              markeredgecolor="white", markeredgewidth=0.4)  # fmt: skip
    _label_ends(axes, averages)
    axes.set_xlim(low, top)
    axes.set_ylim(low, top)
    step = 20 if top - low > 50 else 10
    ticks = [tick for tick in range(0, 101, step) if low <= tick <= top]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.tick_params(labelsize=6.5, pad=2)
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel("published", fontsize=7, labelpad=1)
    axes.set_ylabel("this run", fontsize=7, labelpad=1)
    axes.set_title(f"cells: r = {_r(cells_r)}, n = {cells_n}", fontsize=7, color=INK, loc="left", pad=4)
    text = f"averages: r = {_r(averages_r)}, n = {averages_n}"
    axes.text(0.04, 0.96, text, transform=axes.transAxes, fontsize=6.5, va="top", color=VERMILION)


def _label_ends(axes: Axes, averages: pd.DataFrame) -> None:
    """The names of the highest and the lowest average, here and there."""
    if len(averages) < 2:
        return
    rows = averages.set_index("train_language")[["published", "if_score"]].astype(float)
    ends = [getattr(rows[column], end)() for column in rows for end in ("idxmax", "idxmin")]
    halo = [Stroke(linewidth=1.8, foreground="white"), Normal()]
    for code in dict.fromkeys(map(str, ends)):
        x, y = rows.loc[code].to_numpy(dtype=float)
        above = x > rows["published"].mean()
        axes.annotate(
            language_name(code),
            (x, y),
            xytext=(-5, 3) if above else (5, -3),
            textcoords="offset points",
            ha="right" if above else "left",
            va="bottom" if above else "top",
            fontsize=6,
            color=INK,
            zorder=4,
            path_effects=halo,
        )


def _signed(value: float) -> str:
    return f"{round(value):+d}".replace("-", "−") if round(value) else "0"


def _r(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.2f}"
