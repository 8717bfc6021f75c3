"""How every figure looks: sizes, colours, and what a missing value is drawn as.

The colours are Okabe and Ito's, which people with any common colour blindness can tell apart; no meaning is carried by
colour alone (markers and line styles differ too), so a figure survives a black-and-white printer. Sizes are inches of
print: text is 7 to 9 points in a figure as wide as a page's text. No pyplot: figures are made in threads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle

INK = "#1b2530"
QUIET = "#5d6b78"
RULE = "#d9dfe4"
BLUE = "#0072b2"
VERMILION = "#d55e00"
GREEN = "#009e73"
HATCH = "#9aa5ae"

SCORES = LinearSegmentedColormap.from_list("pinch", ["#fcf5e3", "#eaeddb", "#c6e0df", "#94c7dc", "#58a4cc"])
"""Light to darker in one direction of lightness, so that it reads in grey; ink stands out on all of it."""

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.linewidth": 0.6,
    "hatch.color": HATCH,
    "pdf.fonttype": 42,
    "svg.hashsalt": "pinch",
}

matplotlib.use("Agg")


def drawing(width: float, height: float, title: str, subtitle: str) -> Drawing:
    """An empty figure of so many inches with its heading; what is drawn must stay below :func:`top`."""
    figure = Drawing(figsize=(width, height), dpi=200, facecolor="white")
    figure.text(0.08 / width, 1 - 0.07 / height, title, fontsize=10, fontweight="bold", va="top", ha="left")
    figure.text(0.08 / width, 1 - 0.29 / height, subtitle, fontsize=7, color=QUIET, va="top", ha="left")
    return figure


def top(height: float) -> float:
    """The fraction of a figure's height below its heading."""
    return 1 - 0.55 / height


def score_range(values: Iterable[float]) -> tuple[int, int]:
    """The ends of a score axis: wide enough for the values (NaN is none) and for 50, from 0 unless all are high."""
    known = [value for value in values if value == value] + [50.0]
    low = 0 if min(known) < 24 else int((min(known) - 3) // 10) * 10
    high = next(end for end in (65, 84, 104) if end == 104 or max(known) <= end - 2)
    return low, high


def score_axis(axes: Axes, ends: tuple[int, int]) -> None:
    """A vertical axis of scores, with the line at which two models cannot be told apart."""
    low, high = ends
    axes.set_ylim(low, high)
    axes.set_yticks(range(low, high + 1, 10 if high - low < 50 else 20 if high < 100 else 25))
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.axhline(50, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    axes.set_axisbelow(True)


_MISSING: dict[str, Any] = {
    "facecolor": "#f4f5f6",
    "edgecolor": HATCH,
    "hatch": "////",
    "linewidth": 0,
    "zorder": 1.7,
}


def missing_cell(axes: Axes, x: float, y: float) -> None:
    """A hatched square around a point: there is no value here."""
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **_MISSING))


def missing_column(axes: Axes, x: float, width: float) -> None:
    """A hatched strip up the whole axis: at this x there is no value."""
    axes.axvspan(x - width / 2, x + width / 2, **_MISSING)


def missing_row(axes: Axes, y: float, height: float) -> None:
    """A hatched strip across the whole axis: at this y there is no value."""
    axes.axhspan(y - height / 2, y + height / 2, **_MISSING)
