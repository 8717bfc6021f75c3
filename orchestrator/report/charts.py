"""The figures as the page draws them: from the numbers, for any width of screen, every point with its exact values.

A print is read on paper; on a phone its text is two millimetres high and a value has to be guessed. So the page draws
the same figures once more out of HTML and SVG in which everything across is a percentage and text keeps its size. This
module decides what a study's figures hold and what is said of each place in them; :mod:`orchestrator.report.plots`
works out where it stands. How it looks is the template's and the style sheet's.

This module must never know a file, and never draw: the prints are :mod:`orchestrator.report.figures`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from orchestrator.languages import ENGLISH
from orchestrator.report.cells import Cells, Value, level_of
from orchestrator.report.plots import Plot, Scale, Spot, known, score_range, score_steps
from orchestrator.report.responses import CellKey
from orchestrator.report.views import Level, StudyView, language_name, levels, non_english, study_rows

_INTERVALS_UP_TO = 8
"""Columns of a heat map beyond which there is no room for an interval in a cell."""
_FEW_LEVELS = 7
"""Levels up to which each can be named under a plot on a phone."""


@dataclass(frozen=True)
class HeatMap:
    """Scores by what was tuned on (rows) and evaluated in (columns), the last column the average."""

    corner: str
    columns: tuple[tuple[str, str], ...]
    """(code, name), where there is room for one of the two."""
    rows: tuple[tuple[str, str, tuple[Spot, ...]], ...]
    """(code or model, name, spots)."""
    outlined: frozenset[tuple[int, int]]
    """Cells that are 50 by definition."""
    intervals: bool
    """Whether there is room for an interval in a cell."""
    template = "heat"


@dataclass(frozen=True)
class Plots:
    """One plot, or small ones side by side."""

    plots: tuple[Plot, ...]
    legend: tuple[tuple[str, str], ...]
    """(tone, name)."""
    below: str
    small: bool = False
    template = "plots"


class Strip(NamedTuple):
    """One model on a scale of scores: percent from the left."""

    name: str
    mixed: bool
    marks: tuple[float, ...]
    mean: float | None
    spot: Spot


@dataclass(frozen=True)
class Strips:
    """Scores side by side on one scale: a small mark for each language, a large one for their mean."""

    groups: tuple[tuple[str, tuple[Strip, ...]], ...]
    """Strips under a heading."""
    grid: tuple[tuple[float, str], ...]
    middle: float
    below: str
    template = "strips"


Chart = HeatMap | Plots | Strips


class Charts:
    """Draws the charts of studies.

    Args:
        table: the score table as :func:`orchestrator.report.views.clean` returns it.
        samples: cell -> place among the page's samples.
        averages: as :class:`orchestrator.report.views.Details` has them, for the intervals of averages.
    """

    def __init__(
        self, table: pd.DataFrame, samples: Mapping[CellKey, int], averages: pd.DataFrame | None = None
    ) -> None:
        self._table, self._samples, self._averages = table, samples, averages

    def of_study(self, study: StudyView) -> dict[str, Chart]:
        """The study's charts by the names of the prints they go with."""
        rows = study_rows(self._table, study)

        def spots(key: Callable[[Any], Hashable]) -> _Spots:
            return _Spots(rows, study, key, self._averages, self._samples)

        if study.kind == "custom":
            return {study.label: _heat_map(spots(lambda row: row.model), study)}
        if study.kind in ("monolingual", "slavic", "base"):
            return {study.label: _heat_map(spots(lambda row: row.train_languages), study)}
        if not len(rows):
            return {}
        if study.kind == "pinch":
            by_level, found = spots(level_of), levels(rows)
            return {
                f"{study.label}-averages": _pinch_averages(by_level, found, study),
                f"{study.label}-languages": _pinch_languages(by_level, found, study),
            }
        if study.kind == "permutations":
            return {study.label: _permutations(spots(lambda row: row.train_languages.count("+") + 1), study)}
        return {study.label: _pairs(spots(lambda row: row.train_languages), study)} if study.pairs else {}


class _Spots:
    """One study's scores and averages with what is said of each."""

    def __init__(
        self,
        rows: pd.DataFrame,
        study: StudyView,
        key: Callable[[Any], Hashable],
        averages: pd.DataFrame | None,
        samples: Mapping[CellKey, int],
    ) -> None:
        self.scores = Cells(rows, study, key, averages)
        self._samples = samples
        self._rows: dict[tuple[Hashable, str], list[Any]] = {}
        row: Any
        for row in rows.itertuples(index=False):
            self._rows.setdefault((key(row), str(row.eval_language)), []).append(row)

    def cell(self, key: Hashable, code: str, title: str = "") -> Spot:
        """One score, with the responses behind it."""
        score, found = self.scores.cell(key, code), self._rows.get((key, code), [])
        if score.missing:
            return Spot(f"{title}\nmissing")
        first, lines = found[0], [title, f"IF {score.value:.1f}{_interval(score)}"]
        if not any(row.n > 0 for row in found):
            lines[1] += ", by definition"
        elif len(found) == 1:
            lines.append(f"{first.wins:.0f} wins, {first.ties:.0f} ties, {first.losses:.0f} losses")
        else:
            lines.append(f"mean of {len(found)} models")
        return _spot(score, lines, self._samples.get((first.model, first.baseline, code)))

    def mean(self, key: Hashable, codes: Sequence[str], group: str, title: str, each: bool = False) -> Spot:
        """An average over languages; with ``each``, their own scores are said too."""
        score = self.scores.average(key, codes, group)
        lines = [title]
        lines.append("missing: a score of it is" if score.missing else f"IF {score.value:.1f}{_interval(score)}")
        if each:
            lines += [f"{language_name(code)} {_number(self.scores.cell(key, code))}" for code in codes]
        elif not score.missing:
            lines.append(f"mean over {len(codes)} languages")
        return _spot(score, lines)


def _heat_map(spots: _Spots, study: StudyView) -> HeatMap:
    by_model = study.kind == "custom"
    names = [str(key) for key in spots.scores.keys] if by_model else list(study.languages)
    lines, outlined = [], set()
    for y, name in enumerate(names):
        title = name if by_model else f"Tuned on {language_name(name)}"
        line = [spots.cell(name, code, f"{title}, evaluated in {language_name(code)}") for code in study.evaluate_in]
        line.append(spots.mean(name, study.evaluate_in, "all", f"{title}, average of the row"))
        lines.append((name, name if by_model else language_name(name), tuple(line)))
        if study.kind in ("monolingual", "slavic") and name in study.evaluate_in:
            outlined.add((y, study.evaluate_in.index(name)))
    return HeatMap(
        corner="Model" if by_model else "Tuned on",
        columns=tuple((code, language_name(code)) for code in study.evaluate_in),
        rows=tuple(lines),
        outlined=frozenset(outlined),
        intervals=len(study.evaluate_in) <= _INTERVALS_UP_TO,
    )


def _pinch_averages(spots: _Spots, found: Sequence[Level], study: StudyView) -> Plots:
    series = _pinch_series(study)
    lines = {
        name: [spots.mean(level, codes, group, name) if group else spots.cell(level, codes[0], name) for level in found]
        for name, _, group, codes in series
    }
    single = [[spots.cell(level, code) for level in found] for code in non_english(study)]
    ends = [end for line in lines.values() for spot in line for end in (spot.value, spot.low, spot.high)]
    scale = Scale(len(found), [*ends, *(spot.value for line in single for spot in line)])
    drawn = [scale.line("faint", line) for line in single]
    drawn += [
        scale.line(
            tone, lines[name], bool(group) and len(series) <= 2, [lines[other] for other in lines if other != name]
        )
        for name, tone, group, _ in series
    ]
    said = []
    for level, *at_level in zip(found, *lines.values(), strict=True):
        missing = any(spot.value is None for spot in at_level)
        text = "\n".join([_heading(level), *(_short(spot) for spot in at_level)])
        said.append(Spot(text, None if missing else at_level[0].value))
    legend = [(tone, name) for name, tone, *_ in series] + [("faint", "each language other than English")]
    below = "how much of the tuning data is multilingual (even steps, not to scale); uprights: 95% intervals"
    return Plots((scale.plot(drawn, _level_ticks(found), said),), tuple(legend), below)


def _pinch_languages(spots: _Spots, found: Sequence[Level], study: StudyView) -> Plots:
    lines = {
        code: [spots.cell(level, code, f"{language_name(code)}, {_heading(level)}") for level in found]
        for code in study.evaluate_in
    }
    ends = [end for line in lines.values() for spot in line for end in (spot.value, spot.low, spot.high)]
    scale = Scale(len(found), ends, small=True)
    ticks = _level_ticks(found)
    plots = []
    for code, line in lines.items():
        tone = "english" if code == ENGLISH else "seen" if code in study.languages else "unseen"
        drawn = [scale.line("faint", lines[other]) for other in study.evaluate_in if other != code]
        name = language_name(code) + (" (unseen)" if tone == "unseen" else "")
        plots.append(scale.plot([*drawn, scale.line(tone, line)], ticks, line, name, tone))
    below = "how much of the tuning data is multilingual; uprights: 95% intervals; faint: the other languages"
    return Plots(tuple(plots), (), below, small=True)


def _permutations(spots: _Spots, study: StudyView) -> Plots:
    sizes = sorted(key for key in spots.scores.keys if isinstance(key, int))
    means = []
    for size in sizes:
        models = len(spots.scores.models(size))
        title = f"{size} tuning {'language' if size == 1 else 'languages'}, mean of {models} models"
        means.append(spots.mean(size, study.evaluate_in, "all", title, each=True))
    single = [[spots.cell(size, code) for size in sizes] for code in study.evaluate_in]
    ends = [end for spot in means for end in (spot.value, spot.low, spot.high)]
    scale = Scale(len(sizes), [*ends, *(spot.value for line in single for spot in line)])
    drawn = [*(scale.line("faint", line) for line in single), scale.line("unseen", means, labels=True)]
    plot = scale.plot(drawn, [(str(size), 0) for size in sizes], means)
    legend = (("unseen", "average over the languages never tuned on"), ("faint", "each of them"))
    return Plots((plot,), legend, "languages tuned on (mean over the models with as many)")


def _pairs(spots: _Spots, study: StudyView) -> Strips:
    models = {
        (pair, tuned_on): [code for code in study.evaluate_in if code not in pair]
        for pair in study.pairs
        for tuned_on in (*pair, "+".join(sorted(pair)))
    }
    values = [spots.scores.cell(tuned_on, code).value for (_, tuned_on), codes in models.items() for code in codes]
    low, high = score_range(values)

    def x(score: float) -> float:
        return round(100 * (score - low) / (high - low), 2)

    groups: dict[str, list[Strip]] = {}
    for (pair, tuned_on), codes in models.items():
        name = " + ".join(language_name(code) for code in tuned_on.split("+"))
        spot = spots.mean(tuned_on, codes, "all", f"Tuned on {name}", each=True)
        scores = [spots.scores.cell(tuned_on, code) for code in codes]
        marks = tuple(x(score.value) for score in scores if not score.missing)
        strip = Strip(name, "+" in tuned_on, marks, None if spot.value is None else x(spot.value), spot)
        groups.setdefault(" and ".join(language_name(code) for code in pair), []).append(strip)
    return Strips(
        tuple((heading, tuple(strips)) for heading, strips in groups.items()),
        tuple((x(score), str(score)) for score in score_steps(low, high)),
        x(50),
        "IF in the languages of neither; small marks: each language, large: their mean",
    )


def _pinch_series(study: StudyView) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(name, tone, group of the averages, languages) of each line; English has no group, it is one cell."""
    others = non_english(study)
    seen = tuple(code for code in others if code in study.languages)
    unseen = tuple(code for code in others if code not in study.languages)
    found: list[tuple[str, str, str, tuple[str, ...]]] = []
    if seen and unseen:
        found = [("Seen languages", "seen", "seen", seen), ("Unseen languages", "unseen", "unseen", unseen)]
    elif others:
        found = [("Other than English", "seen" if seen else "unseen", "non_english", others)]
    if ENGLISH in study.evaluate_in:
        found.append(("English", "english", "", (ENGLISH,)))
    return found


def _heading(level: Level) -> str:
    return {0.0: "English alone", 100.0: "Uniform mixture"}.get(level.percent, level.words)


def _level_ticks(found: Sequence[Level]) -> list[tuple[str, int]]:
    """A label for each level and its rank: counts and the uniform mixture are always named."""
    few = len(found) <= _FEW_LEVELS

    def rank(level: Level) -> int:
        if level.count is not None or level.percent == 100:
            return 0
        return (0 if few else 2) if level.percent == 0 else 1 if few or level.percent == 50 else 2

    return [(level.label, rank(level)) for level in found]


def _short(spot: Spot) -> str:
    """A spot's name and numbers in one line."""
    name, number, *_ = spot.text.split("\n")
    return f"{name} {number.removeprefix('IF ')}"


def _number(score: Value) -> str:
    return "missing" if score.missing else f"{score.value:.1f}"


def _interval(score: Value) -> str:
    return f", 95% {score.low:.1f} to {score.high:.1f}" if score.known else ""


def _spot(score: Value, lines: Sequence[str], sample: int | None = None) -> Spot:
    return Spot("\n".join(lines), known(score.value), known(score.low), known(score.high), sample)
