"""A matrix of numbers as coloured cells with the numbers in them: what all heat maps share.

Colour is a help, the number is the value: text is black or white, whichever stands out more from its cell. Scales run
in one direction of lightness, so that they read in grey; the one for differences runs from its middle to two hues that
no common colour blindness confuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray

from orchestrator.report.canvas import QUIET, missing_cell

_SCORES = LinearSegmentedColormap.from_list(
    "pinch", ["#fdf6e3", "#e9ecd6", "#c3ddda", "#8fc2d9", "#5ba3cd", "#2f7db4", "#0f5391"]
)
_DIFFERENCES = LinearSegmentedColormap.from_list(
    "pinch-differences", ["#9a3d00", "#d55e00", "#f0b48a", "#f7f6f4", "#8fc1e3", "#0072b2", "#004a75"]
)
_SHORT = LinearSegmentedColormap.from_list("pinch-short", ["#7f3300", "#d55e00", "#efaf82", "#f6dcc8", "#f8f7f5"])
GAP = 0.15
"""Cells between a matrix and its last column."""


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` as colours; what lies beyond has the colour of the end."""

    colours: Colormap
    low: float
    high: float

    def colour(self, value: float) -> tuple[float, ...]:
        return tuple(self.colours((value - self.low) / (self.high - self.low)))

    def ink(self, value: float) -> str:
        """The colour of text on the value's own: black or white, so that their contrast is 4.5 or more (WCAG 2, AA)."""
        luminance = _luminance(self.colour(value)[:3])
        return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def scores(values: NDArray[np.float64]) -> Scale:
    """A scale for scores, from ten to ten: from under the least to 65, or to 100 where there are high ones."""
    known = values[~np.isnan(values)]
    least, most = (known.min(), known.max()) if len(known) else (0.0, 50.0)
    return Scale(_SCORES, min(float(least // 10 * 10), 90.0), 65.0 if most <= 65 and least < 60 else 100.0)


def shares(values: NDArray[np.float64]) -> Scale:
    """A scale for percentages that should be 100: the farther from it, the darker."""
    return Scale(_SHORT, min(50.0, float(np.nanmin(values, initial=50.0) // 10 * 10)), 100.0)


def differences(values: NDArray[np.float64]) -> Scale:
    """A scale around 0, the same to both sides."""
    most = max(5.0, float(np.nanmax(np.abs(values), initial=0.0)))
    return Scale(_DIFFERENCES, -most, most)


def paint(
    axes: Axes,
    values: NDArray[np.float64],
    scale: Scale,
    form: Callable[[float], str],
    *,
    size: float,
    last: float = 0.0,
    small: Sequence[Sequence[str]] | None = None,
    small_size: float = 5.5,
) -> list[float]:
    """Draw a matrix, the first row on top, and return the x of the middle of each column.

    Args:
        values: rows by columns; NaN is hatched.
        form: how a number is written.
        size: of the numbers, in points.
        last: width in cells of the last column, which is set apart in bold; 0 for one like the others.
        small: a smaller line under each number; empty for none.
    """
    rows, columns = values.shape
    edges = [*np.arange(columns + 1.0)] if not last else [*np.arange(float(columns)), columns - 1 + GAP]
    if last:
        edges.append(edges[-1] + last)
    filled = (
        np.insert(values, columns - 1, np.nan, axis=1) if last else values
    )  # the gap is a column with nothing in it
    axes.pcolormesh(
        np.array(edges) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(filled),
        cmap=scale.colours,
        vmin=scale.low,
        vmax=scale.high,
        edgecolors="white",
        linewidth=1,
        snap=True,
    )
    bounds = [(left - 0.5, right - 0.5) for left, right in pairwise(edges)]
    if last:
        del bounds[columns - 1]
    middles = [(left + right) / 2 for left, right in bounds]
    for y in range(rows):
        for x in range(columns):
            value = float(values[y, x])
            if np.isnan(value):
                missing_cell(axes, *bounds[x], y)
                continue
            below = small[y][x] if small else ""
            bold = bool(last) and x == columns - 1
            text: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": scale.ink(value)}
            lift = 0.14 if below else 0.0
            weight = "bold" if bold else "normal"
            axes.text(middles[x], y - lift, form(value), fontsize=size, fontweight=weight, **text)
            if below:
                axes.text(middles[x], y + 0.22, below, fontsize=small_size, **text)
    axes.set_xlim(-0.5, edges[-1] - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    return middles


def colour_key(figure: Drawing, scale: Scale, ticks: Sequence[float], *, right: float = 0.08, up: float = 0.14) -> None:
    """The scale, small, at the foot of a figure, its right end ``right`` inches from the edge."""
    width, height = figure.get_size_inches()
    long = 1.25
    axes = figure.add_axes(((width - right - long) / width, up / height, long / width, 0.07 / height))
    steps = np.linspace(scale.low, scale.high, 65)
    axes.pcolormesh(steps, [0, 1], [(steps[:-1] + steps[1:]) / 2], cmap=scale.colours, vmin=scale.low, vmax=scale.high)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=6)
    axes.tick_params(axis="x", pad=1.5, labelcolor=QUIET)


def _luminance(colour: Sequence[float]) -> float:
    """Relative luminance (WCAG 2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
