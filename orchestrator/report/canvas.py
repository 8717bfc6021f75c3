"""How every figure looks: sizes, colours, the key under it, and what a missing value is drawn as.

The colours are Okabe and Ito's, which people with any common colour blindness can tell apart; no meaning is carried by
colour alone (markers and line styles differ too), so a figure survives a black-and-white printer. Sizes are inches of
print: no figure is wider than a page's text, where its text is 6 to 9 points. No pyplot: figures are made in threads.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

INK = "#1b2530"
QUIET = "#5d6b78"
RULE = "#d9dfe4"
FAINT = "#d3d8dc"
BLUE = "#0072b2"
VERMILION = "#d55e00"
GREEN = "#009e73"
HATCH = "#9aa5ae"

WIDE = 6.9
"""Inches: the text of a page, and the widest a figure gets."""

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "text.parse_math": False,  # names are somebody else's
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "hatch.linewidth": 0.6,
    "hatch.color": HATCH,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # journals refuse type 3
    "svg.hashsalt": "pinch",
}

matplotlib.use("Agg")


def drawing(width: float, height: float, title: str, subtitle: str) -> Drawing:
    """An empty figure of so many inches with its heading; what is drawn must stay below :func:`top`."""
    figure = Drawing(figsize=(width, height), dpi=200, facecolor="white")
    figure.text(0.08 / width, 1 - 0.07 / height, title, fontsize=10, fontweight="bold", va="top", ha="left")
    lines = "\n".join(textwrap.wrap(subtitle, int(width * 18.5))[:2])
    figure.text(0.08 / width, 1 - 0.29 / height, lines, fontsize=7, color=QUIET, va="top", ha="left", linespacing=1.15)
    return figure


def top(height: float) -> float:
    """The fraction of a figure's height below its heading."""
    return 1 - 0.6 / height


def key(figure: Drawing, handles: Sequence[Artist], up: float = 0.06) -> None:
    """A line at the foot of a figure that says what its marks mean, ``up`` inches from the edge."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.08 / width, up / height),
        ncols=len(handles),
        fontsize=6.5,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.6,
        borderpad=0,
        borderaxespad=0,
        labelcolor=QUIET,
    )


def mark(label: str, colour: str, marker: str = "o", line: Any = "none", size: float = 4.5, **more: Any) -> Line2D:
    """A marker, with or without a line, for a key."""
    return Line2D([], [], color=colour, marker=marker, linestyle=line, markersize=size, label=label, **more)


MISSING_KEY = Patch(facecolor="#f4f5f6", edgecolor=HATCH, hatch="//////", linewidth=0, label="missing")


def score_range(values: Iterable[float]) -> tuple[int, int]:
    """The ends of a score axis, from five to five: wide enough for the values (NaN is none) and for 50, and 30 or
    more, so that nothing small looks large."""
    known = [value for value in values if not math.isnan(value)] + [50.0]
    low = max(0, int((min(known) - 1) // 5) * 5)
    high = int(-(-(max(known) + 1) // 5) * 5)
    low, high = min(low, max(0, high - 30)), max(high, low + 30)
    return low, 104 if high > 100 else high


def score_ticks(low: int, high: int) -> range:
    """The ticks of a score axis."""
    step = 10 if high - low <= 65 else 25 if low == 0 and high >= 100 else 20
    return range(-(-low // step) * step, high + 1, step)


def score_axis(axes: Axes, ends: tuple[int, int]) -> None:
    """A vertical axis of scores, with the line at which two models cannot be told apart."""
    low, high = ends
    axes.set_ylim(low, high)
    axes.set_yticks(score_ticks(low, high))
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


def missing_cell(axes: Axes, left: float, right: float, y: float) -> None:
    """A hatched cell of height 1 around y: there is no value here."""
    axes.add_patch(Rectangle((left + 0.03, y - 0.46), right - left - 0.06, 0.92, **_MISSING))


def missing_column(axes: Axes, x: float, width: float) -> None:
    """A hatched strip up the whole axis: at this x there is no value."""
    axes.axvspan(x - width / 2, x + width / 2, **_MISSING)


def missing_row(axes: Axes, y: float, height: float) -> None:
    """A hatched strip across the whole axis: at this y there is no value."""
    axes.axhspan(y - height / 2, y + height / 2, **_MISSING)
