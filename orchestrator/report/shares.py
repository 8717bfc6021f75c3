"""Figure 8: does a language carry over better for having been seen more in pre-training?

Pearson's correlation, English left out, between a training language's average score and its share of the documents of
the pre-training corpus, with Fisher's interval: what it would be over other languages like these. The shares are the
user's, because only who trained a base knows them; those of ``tiny`` are known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import LogLocator, NullLocator

from orchestrator.languages import ENGLISH, language
from orchestrator.report import published
from orchestrator.report.canvas import BLUE, INK, QUIET, RULE, drawing, top
from orchestrator.report.heatmap import HeatMap
from orchestrator.report.views import language_name
from orchestrator.scores.tables import read_table
from trainables.errors import UserError

_LOGARITHMIC_FROM = 20.0
"""Ratio of the largest to the smallest share beyond which the axis is logarithmic."""


class Correlation(NamedTuple):
    """Pearson's r with its 95% interval; NaN where it is not defined."""

    r: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if math.isnan(self.r):
            return f"r is not defined over {self.n} languages"
        interval = "" if math.isnan(self.low) else f", 95% interval {self.low:.2f} to {self.high:.2f}"
        return f"r = {self.r:.2f}{interval}, n = {self.n}".replace("-", "−")


def read_shares(path: Path) -> dict[str, float]:
    """Shares of a pre-training corpus in percent, by language, from a CSV ``language,percent``.

    Raises:
        UserError: naming file and row, for an unknown or doubled language or what is no percentage.
    """
    shares: dict[str, float] = {}
    for number, cells in read_table(path, ("language", "percent")):
        code = language(cells["language"]).code
        try:
            percent = float(cells["percent"])
        except ValueError:
            percent = math.nan
        if not 0 <= percent <= 100:
            raise UserError(f"{path}: row {number} has percent {cells['percent']!r}; write a number from 0 to 100.")
        if code in shares:
            raise UserError(f"{path}: row {number} has {code} a second time; keep one row for each language.")
        shares[code] = percent
    return shares


def numbers(scores: HeatMap, shares: Mapping[str, float]) -> pd.DataFrame:
    """``train_language,percent,average,ci_low,ci_high`` for the languages with a known share, English left out."""
    rows = [
        (code, shares[code], *average)
        for code, average in zip(scores.names, scores.averages, strict=True)
        if code in shares and code != ENGLISH
    ]
    return pd.DataFrame(rows, columns=["train_language", "percent", "average", "ci_low", "ci_high"])


def correlate(table: pd.DataFrame) -> Correlation:
    """Pearson's r of percent and average with Fisher's interval; over three languages or fewer there is none."""
    known = table[table["average"].notna()]
    x, y, n = known["percent"].to_numpy(float), known["average"].to_numpy(float), len(known)
    if n < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, math.nan, math.nan, n)
    r = float(np.corrcoef(x, y)[0, 1])
    if n == 3 or abs(r) >= 1:
        return Correlation(r, math.nan, math.nan, n)
    half = 1.959964 / math.sqrt(n - 3)
    return Correlation(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), n)


def draw(table: pd.DataFrame, title: str, subtitle: str) -> Drawing:
    """A point for each language, with its name and the interval of its average."""
    width, height = 5.4, 3.7
    figure = drawing(width, height, title, subtitle)
    axes = figure.add_axes((0.095, 0.13, 0.875, top(height) - 0.2))
    known = table[table["average"].notna()]
    few = known[known["ci_low"].notna() & known["ci_high"].notna()]
    axes.vlines(few["percent"], few["ci_low"], few["ci_high"], color=BLUE, linewidth=1, alpha=0.6, zorder=2)
    axes.plot(known["percent"], known["average"], "o", color=BLUE, markersize=5, markeredgecolor="white", zorder=3)
    positive = known["percent"] > 0
    if len(known) and positive.all() and known["percent"].max() > _LOGARITHMIC_FROM * known["percent"].min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("share of the pre-training documents, % (logarithmic; r is of the percentages themselves)")
    else:
        axes.set_xlabel("share of the pre-training documents, %")
    axes.set_ylabel("average score of the model tuned on it")
    axes.margins(x=0.14, y=0.1)
    axes.grid(color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    halo = [Stroke(linewidth=2, foreground="white"), Normal()]
    for row in _placed(known):
        axes.annotate(
            language_name(str(row.name)), (row["percent"], row["average"]), xytext=(5, row["shift"]),
            textcoords="offset points", va="center_baseline", fontsize=7, color=INK, zorder=4, path_effects=halo,
        )  # fmt: skip
    absent = table.loc[table["average"].isna(), "train_language"]
    if len(absent):
        text = f"missing: {', '.join(map(language_name, absent))}"
        axes.text(1, 1.02, text, transform=axes.transAxes, fontsize=6.5, color=QUIET, ha="right")
    text = f"{correlate(table)}\npublished: r = {published.CORRELATION}, n = {published.LANGUAGES}"
    axes.text(0, 1.02, text, transform=axes.transAxes, fontsize=7.5, color=QUIET, linespacing=1.4)
    return figure


def _placed(known: pd.DataFrame) -> list[pd.Series]:
    """The rows with a ``shift`` in points that keeps names of neighbours apart: one below the other."""
    ordered = known.set_index("train_language").sort_values(["percent", "average"])
    rows: list[pd.Series] = []
    for _, row in ordered.iterrows():
        near = [one for one in rows if math.isclose(one["percent"], row["percent"], rel_tol=0.02)]
        close = [one for one in near if abs(one["average"] - row["average"]) < 1]
        rows.append(row.copy())
        rows[-1]["shift"] = 7.0 if close else 0.0
    return rows
