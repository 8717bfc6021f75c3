"""Figure 5: more and more languages to tune on, and scores in languages that none of them is.

A point is the mean over the models with as many languages, one for each order the languages were added in (table 4);
each order's own model is drawn too, small: what spreads is what the order, or the languages that came first, do.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure as Drawing

from orchestrator.report.canvas import (
    FAINT,
    MISSING_KEY,
    QUIET,
    VERMILION,
    drawing,
    key,
    mark,
    missing_column,
    score_axis,
    score_range,
    top,
)
from orchestrator.report.cells import Cells
from orchestrator.report.curves import Series, draw_line, faint_lines, last_known, name_ends
from orchestrator.report.views import StudyView, language_name

_AVERAGE = "avg"


class Counts:
    """One permutations study, to be drawn or written.

    Args:
        rows: the study's rows, cleaned.
        averages: of the sweep, for intervals; default none.
    """

    def __init__(self, rows: pd.DataFrame, study: StudyView, averages: pd.DataFrame | None = None) -> None:
        self.study = study
        by_size = Cells(rows, study, lambda row: size(row.train_languages), averages)
        by_model = Cells(rows, study, lambda row: row.train_languages, averages)
        self.sizes = sorted(key for key in by_size.keys if isinstance(key, int))
        self.lines = {code: [by_size.cell(count, code) for count in self.sizes] for code in study.evaluate_in}
        self.means = [by_size.average(count, study.evaluate_in, "all") for count in self.sizes]
        self.models = {str(key): by_model.average(key, study.evaluate_in, "all") for key in by_model.keys}

    def numbers(self) -> pd.DataFrame:
        """``tuning_languages,eval_language,train_languages,if_score,ci_low,ci_high``: the mean over the models with as
        many for each language and ``avg``, then each model's own average with what it was tuned on."""
        found: list[tuple[object, ...]] = []
        for place, count in enumerate(self.sizes):
            found += [(count, code, "", *values[place]) for code, values in self.lines.items()]
            found.append((count, _AVERAGE, "", *self.means[place]))
        for name, value in sorted(self.models.items(), key=lambda model: (size(model[0]), model[0])):
            found.append((size(name), _AVERAGE, name, *value))
        columns = ["tuning_languages", "eval_language", "train_languages", "if_score", "ci_low", "ci_high"]
        return pd.DataFrame(found, columns=columns)

    def draw(self, title: str, subtitle: str) -> Drawing:
        """The means by number of languages."""
        width, height = 6.0, 3.7
        figure = drawing(width, height, title, subtitle)
        axes = figure.add_axes((0.083, 0.185, 0.735, top(height) - 0.2))
        scores = [[value.value for value in values] for values in self.lines.values()]
        every = [number for line in scores for number in line] + [value.value for value in self.models.values()]
        ends = score_range([*every, *(end for value in self.means if value.known for end in (value.low, value.high))])
        faint_lines(axes, scores, self.sizes)
        average = Series("Average", (), "all", VERMILION, "^")
        own = [(size(name) - 0.13, value.value) for name, value in self.models.items() if not value.missing]
        axes.plot([x for x, _ in own], [y for _, y in own], "^", color="white", markeredgecolor=VERMILION,
                  markersize=3.6, markeredgewidth=0.7, zorder=2.6)  # fmt: skip
        draw_line(axes, self.sizes, self.means, average)
        for count, value in zip(self.sizes, self.means, strict=True):
            if value.missing:
                missing_column(axes, count, 0.5)
        score_axis(axes, ends)
        labels = [
            (last_known(values), Series(language_name(code), (code,), "", QUIET, "."))
            for code, values in self.lines.items()
        ]
        axes.set_xlim(self.sizes[0] - 0.35, self.sizes[-1] + 0.3)
        name_ends(axes, [*labels, (last_known(self.means), average)], self.sizes[-1])
        axes.set_xticks(self.sizes)
        axes.set_xlabel("languages tuned on (mean over the models with as many)")
        axes.set_ylabel("IF in languages never tuned on")
        self._key(figure)
        return figure

    def _key(self, figure: Drawing) -> None:
        hollow = {"markerfacecolor": "white", "markeredgewidth": 0.7}
        handles = [
            mark("one model's average", VERMILION, "^", size=3.6, **hollow),
            mark("one evaluation language", FAINT, "none", "-", linewidth=1.2),
        ]
        if any(value.known for value in self.means):
            handles.insert(0, mark("95% interval, at its widest", VERMILION, "|", size=7, markeredgewidth=1.2))
        missing = [MISSING_KEY] if any(value.missing for value in self.means) else []
        key(figure, [*handles, *missing])


def size(train_languages: str) -> int:
    """How many languages a mixture has."""
    return train_languages.count("+") + 1
