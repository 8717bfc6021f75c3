"""Appendix E: is a response in the language of its prompt, also when the model was tuned on another?

Rows are what was tuned on, columns what was asked in; the last column is the mean over the languages that the model was
not tuned on. Responses too short to tell the language of are part of nothing here.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from orchestrator.report import painting
from orchestrator.report.canvas import MISSING_KEY, WIDE, drawing, key
from orchestrator.report.cells import Cells, mean
from orchestrator.report.views import StudyView, language_name


def numbers(rows: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """Percent of the responses that are in the language of their prompt: a row for each language tuned on, a column for
    each evaluated in, and ``others``, the mean over those that are not the row's; NaN where it is not known."""
    cells = Cells(rows, study, lambda row: row.train_languages)
    table = pd.DataFrame(
        [[100 * cells.share(code, asked) for asked in study.evaluate_in] for code in study.languages],
        index=pd.Index(study.languages, name="train_language"),
        columns=list(study.evaluate_in),
        dtype=float,
    )
    table["others"] = [
        mean(float(table[asked][code]) for asked in study.evaluate_in if asked != code) for code in study.languages
    ]
    return table


def overall(table: pd.DataFrame) -> float:
    """The mean over all pairs of different languages that are known; NaN for none."""
    known = [
        float(table[asked][code])
        for code in table.index
        for asked in table.columns[:-1]
        if asked != code and not math.isnan(float(table[asked][code]))
    ]
    return mean(known)


def draw(table: pd.DataFrame, title: str, subtitle: str) -> Drawing:
    """The shares as a small heat map."""
    rows, columns = table.shape
    left, side, tall, below = 0.95, min(0.55, 5.1 / columns), 0.25, 0.98
    width = max(4.6, min(WIDE, left + side * (columns + painting.GAP + 0.3) + 0.1))
    height = 0.62 + tall * rows + below
    figure = drawing(width, height, title, subtitle)
    long = columns + painting.GAP + 0.3
    axes = figure.add_axes((left / width, below / height, side * long / width, tall * rows / height))
    values = table.to_numpy(dtype=float)
    scale = painting.shares(values)
    middles = painting.paint(axes, values, scale, _percent, size=6.8, last=1.3)
    axes.set_yticks(range(rows), [language_name(code) for code in table.index], fontsize=7)
    labels = [*map(language_name, table.columns[:-1]), "Others"]
    axes.set_xticks(middles, labels, fontsize=7, rotation=40, ha="right", va="top", rotation_mode="anchor")
    axes.get_xticklabels()[-1].set_fontweight("bold")
    axes.set_xlabel("language of the prompt", labelpad=0)
    axes.set_ylabel("tuned on")
    if np.isnan(values).any():
        key(figure, [MISSING_KEY])
    painting.colour_key(figure, scale, [scale.low, scale.high])
    return figure


def _percent(value: float) -> str:
    """Whole percents, rounded down between 99 and 100: only all is all."""
    return f"{math.floor(value) if 99 < value < 100 else round(value)}"
