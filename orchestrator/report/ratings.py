"""Figure 2: people's ratings of responses, excellent, pass or fail, with the published ones beside them.

The published rows are of the paper's own models, raters and instructions; they say what a good model was rated there.
The interval of "excellent" takes each rating as independent (Wilson, 1927): where two people rate the same responses it
is a little too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Patch

from orchestrator.report import published
from orchestrator.report.canvas import INK, MISSING_KEY, QUIET, drawing, key, mark, missing_row, top
from orchestrator.report.outputs import Outputs
from orchestrator.report.prints import Print, csv, write
from orchestrator.report.views import Figure, ReportContext, language_name

PARTS = ("excellent", "pass", "fail")
_FACES: dict[str, dict[str, Any]] = {
    "excellent": {"facecolor": "#0072b2", "edgecolor": "white"},
    "pass": {"facecolor": "#a9d3ec", "edgecolor": "white"},
    "fail": {"facecolor": "#f6dcc8", "edgecolor": "#d55e00", "hatch": "////"},
}
_NUMBERED_FROM = 4.0
"""Percent below which a part is too narrow for its number."""


def draw_ratings(rows: Iterable[Mapping[str, Any]], context: ReportContext, out: Path) -> Figure:
    """Draw figure 2 into a folder, as ``<sweep>-ratings.png``, ``.pdf`` and ``.csv``.

    Args:
        rows: ``language``, then ``excellent``, ``pass`` and ``fail`` in percent, and ``n``, the number of ratings; in
            the order to be shown. An empty value is missing.

    Raises:
        trainables.errors.UserError: when the folder cannot be written to.
    """
    table = numbers(rows)
    here = table[table["source"] == "here"]
    said = [
        f"{language_name(row['language'])} {row['excellent']:.0f}% excellent"
        for row in here.to_dict("records")
        if not math.isnan(row["excellent"])
    ]
    text = (
        "As figure 2 of the paper. Thick: this run; thin: published, people's ratings of the paper's models. The line "
        "is the 95% interval of excellent, each rating taken as independent."
    )
    planned = Print(
        name="ratings",
        title="Responses as people rate them",
        text=text,
        alt=f"{'; '.join(said)}." if said else "No ratings yet.",
        draw=lambda title, subtitle: draw(table, title, subtitle),
        csv=csv(table),
        missing=int(here["excellent"].isna().sum()),
    )
    return write(planned, context, Outputs(out))


def numbers(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """``language,source,excellent,pass,fail,n,ci_low,ci_high``: this run's rows, each followed by the published one of
    its language, then LIMA's."""
    theirs = published.ratings().set_index("language")
    found: list[tuple[Any, ...]] = []
    for row in rows:
        parts = [math.nan if row.get(part) is None else float(row[part]) for part in PARTS]
        n = int(row.get("n") or 0)
        found.append((row["language"], "here", *parts, n, *wilson(parts[0], n)))
        if row["language"] in theirs.index:
            found.append((row["language"], "published", *theirs.loc[row["language"]], 100, math.nan, math.nan))
    for language in theirs.index[-1:]:
        found.append((language, "published", *theirs.loc[language], None, math.nan, math.nan))
    table = pd.DataFrame(found, columns=["language", "source", *PARTS, "n", "ci_low", "ci_high"])
    return table.astype({"n": "Int64"})


def wilson(percent: float, n: int) -> tuple[float, float]:
    """The 95% interval of a percentage of n; NaN over none."""
    if math.isnan(percent) or n < 1:
        return math.nan, math.nan
    share, z = percent / 100, 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return 100 * (middle - half), 100 * (middle + half)


def draw(table: pd.DataFrame, title: str, subtitle: str) -> Drawing:
    """A bar for each row: thick for this run, thin for what was published."""
    rows = table.to_dict("records")
    rated = {row["language"] for row in rows if row["source"] == "here"}
    places, labels, y = [], [], 0.0
    for row in rows:
        below = row["source"] != "here" and row["language"] in rated
        y += 0.62 if below else 0.95
        places.append(y)
        labels.append("published" if below else language_name(row["language"]))
    width, height = 5.6, 1.25 + 0.36 * (y + 0.5)
    figure = drawing(width, height, title, subtitle)
    axes = figure.add_axes((1.2 / width, 0.5 / height, (width - 1.35) / width, top(height) - 0.5 / height))
    for place, row in zip(places, rows, strict=True):
        _bar(axes, place, row)
    axes.set_xlim(0, 100)
    axes.set_ylim(y + 0.5, 0.45)
    axes.set_xticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)], fontsize=7)
    axes.set_yticks(places, labels)
    for label, source in zip(axes.get_yticklabels(), table["source"], strict=True):
        label.set_fontsize(8 if source == "here" else 6.5)
        label.set_color(INK if source == "here" else QUIET)
    axes.spines[:].set_visible(False)
    missing = [MISSING_KEY] if table["excellent"].isna().any() else []
    line = mark("95% interval of excellent", INK, "|", "-", size=4, linewidth=0.9)
    key(figure, [*(Patch(label=part, **_FACES[part]) for part in PARTS), line, *missing])
    return figure


def _bar(axes: Axes, y: float, row: Mapping[Hashable, Any]) -> None:
    thick = row["source"] == "here"
    if any(math.isnan(row[part]) for part in PARTS):
        missing_row(axes, y, 0.7)
        return
    start = 0.0
    for part in PARTS:
        axes.barh(y, row[part], left=start, height=0.7 if thick else 0.34, linewidth=0.6, **_FACES[part])
        if row[part] >= _NUMBERED_FROM:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6} if part == "fail" else None
            colour = "white" if part == "excellent" else INK
            axes.text(start + row[part] / 2, y, f"{row[part]:.0f}", ha="center", va="center_baseline", color=colour,
                      fontsize=7.5 if thick else 6, bbox=box)  # fmt: skip
        start += row[part]
    if not math.isnan(row["ci_low"]):
        axes.plot([row["ci_low"], row["ci_high"]], [y + 0.22] * 2, "|-", color=INK, linewidth=0.9, markersize=4)
