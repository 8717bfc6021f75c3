"""Figures 3 to 6: scores along a scale (how much is multilingual, how many languages) and side by side (pairs).

Averages come without an interval: their languages share one set of instructions, so the intervals of single languages
do not add up to one. What spreads around an average is drawn instead, language by language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.patheffects import Normal, Stroke

from orchestrator.languages import ENGLISH
from orchestrator.report.canvas import (
    BLUE,
    GREEN,
    HATCH,
    INK,
    QUIET,
    VERMILION,
    drawing,
    missing_column,
    missing_row,
    score_axis,
    score_range,
    top,
)
from orchestrator.report.views import (
    Level,
    StudyView,
    average,
    cell,
    language_name,
    levels,
    non_english,
    of_level,
)


@dataclass(frozen=True)
class Series:
    """One line: a name, the languages it averages, and how it is drawn."""

    name: str
    languages: tuple[str, ...]
    colour: str
    marker: str
    dashes: tuple[int, tuple[float, ...]] | str = "-"


def pinch_series(study: StudyView) -> list[Series]:
    """English; the other languages seen, and those unseen where the study has both, else all of them as one."""
    others = non_english(study)
    seen = tuple(language for language in others if language in study.languages)
    unseen = tuple(language for language in others if language not in study.languages)
    found = []
    if seen and unseen:
        found = [
            Series("Seen languages", seen, BLUE, "o"),
            Series("Unseen languages", unseen, VERMILION, "^"),
        ]
    elif others:
        found = [Series("Non-English", others, BLUE if seen else VERMILION, "o" if seen else "^")]
    if ENGLISH in study.evaluate_in:
        found.append(Series("English", (ENGLISH,), INK, "s", (0, (4, 2))))
    return found


def pinch_numbers(rows: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """One row for every level and line: ``level,percent,count,series,languages,if_score,ci_low,ci_high``."""
    lines = [(series.name, series.languages) for series in pinch_series(study) if series.languages != (ENGLISH,)]
    lines += [(language_name(language), (language,)) for language in study.evaluate_in]
    found = []
    for level in levels(rows):
        part = of_level(rows, level)
        for name, languages in lines:
            alone = languages[0] if len(languages) == 1 else ""
            found.append(
                {
                    "level": level.label,
                    "percent": level.percent,
                    "count": level.count,
                    "series": name,
                    "languages": "+".join(languages),
                    "if_score": average(part, languages),
                    "ci_low": cell(part, alone, "ci_low"),
                    "ci_high": cell(part, alone, "ci_high"),
                }
            )
    return pd.DataFrame(found).astype({"count": "Int64"})


def draw_pinch_averages(rows: pd.DataFrame, study: StudyView, title: str, subtitle: str) -> Drawing:
    """The averages of a pinch study, level by level."""
    width, height = 6.6, 3.4
    figure = drawing(width, height, title, subtitle)
    axes = figure.add_axes((0.075, 0.145, 0.74, top(height) - 0.165))
    found = levels(rows)
    lines = [
        (series, [average(of_level(rows, level), series.languages) for level in found])
        for series in pinch_series(study)
    ]
    single = {language: [cell(of_level(rows, level), language) for level in found] for language in non_english(study)}
    ends = score_range(value for values in [*single.values(), *(values for _, values in lines)] for value in values)
    for values in single.values():
        axes.plot(values, color="#d3d8dc", linewidth=0.8, zorder=1.6)
    labels: list[tuple[float, Series]] = []
    averaged = [values for series, values in lines if series.languages != (ENGLISH,)]
    english = next((values for series, values in lines if series.languages == (ENGLISH,)), [0.0] * len(found))
    for series, values in lines:
        axes.plot(
            values,
            color=series.colour,
            linestyle=series.dashes,
            marker=series.marker,
            linewidth=2,
            markersize=5.5,
            markeredgecolor="white",
            markeredgewidth=0.8,
            zorder=3,
        )
        if averaged == [values]:  # two lines of numbers would run into each other
            _number_points(axes, values, english, series.colour)
        known = [value for value in values if not np.isnan(value)]
        labels.append((known[-1] if known else 0.0, series))
    for x in range(len(found)):
        if any(np.isnan(values[x]) for _, values in lines):
            missing_column(axes, x, 0.5)
    score_axis(axes, ends)
    axes.set_xlim(-0.4, len(found) - 0.6)
    _label_ends(axes, labels, len(found) - 1)
    axes.set_xticks(range(len(found)), [level.label if len(found) <= 7 else _narrow(level) for level in found])
    axes.set_xlabel("how much of the tuning data is multilingual (even steps on the axis, not to scale)", fontsize=7.5)
    axes.set_ylabel("instruction following (IF)", fontsize=7.5)
    return figure


def _number_points(axes: Axes, values: Sequence[float], beside: Sequence[float], colour: str) -> None:
    """Values in figures, on the side of their points where the other line is not."""
    for x, value in enumerate(values):
        if np.isnan(value):
            continue
        above = value > beside[x]
        axes.annotate(
            f"{value:.1f}",
            (x, value),
            xytext=(0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=7.5,
            fontweight="bold",
            color=colour,
            zorder=4,
            path_effects=[Stroke(linewidth=2.2, foreground="white"), Normal()],
        )


def _narrow(level: Level, crowded: bool = False) -> str:
    """A label for a narrow place; a count's stands lower, where its neighbours' are not."""
    return ("\n" + level.label) if crowded and level.count is not None else level.label.replace(" ex.", "\nex.")


def _label_ends(axes: Axes, labels: Sequence[tuple[float, Series]], last: int) -> None:
    """Names at the ends of the lines instead of a legend, moved apart where the lines meet."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.062
    ordered = sorted(labels, key=lambda label: label[0])
    heights = [value for value, _ in ordered]
    for place in range(1, len(heights)):
        heights[place] = max(heights[place], heights[place - 1] + step)
    for place in reversed(range(len(heights))):
        above = heights[place + 1] - step if place + 1 < len(heights) else high
        heights[place] = min(heights[place], above)
    for height, (value, series) in zip(heights, ordered, strict=True):
        axes.annotate(
            series.name, (last, value), xytext=(axes.get_xlim()[1] + 0.1, height), color=series.colour, fontsize=8,
            fontweight="normal" if series.colour == QUIET else "bold", va="center", annotation_clip=False,
        )  # fmt: skip


def draw_pinch_languages(rows: pd.DataFrame, study: StudyView, title: str, subtitle: str) -> Drawing:
    """One small panel for each evaluation language, with its interval, over the others in grey."""
    languages = study.evaluate_in
    across = min(4, len(languages)) if len(languages) != 6 else 3
    down = -(-len(languages) // across)
    width, height = 7.2, 0.75 + 1.6 * down + 0.25
    figure = drawing(width, height, title, subtitle)
    found = levels(rows)
    parts = [of_level(rows, level) for level in found]
    scores = {language: [cell(part, language) for part in parts] for language in languages}
    bounds = {
        language: (
            [cell(part, language, "ci_low") for part in parts],
            [cell(part, language, "ci_high") for part in parts],
        )
        for language in languages
    }
    ends = score_range(value for low, high in bounds.values() for value in [*low, *high])
    grid = figure.add_gridspec(
        down,
        across,
        left=0.065,
        right=0.985,
        top=top(height) - 0.22 / height,
        bottom=0.52 / height,
        hspace=0.5,
        wspace=0.14,
    )
    positions = list(range(len(found)))
    for place, language in enumerate(languages):
        axes = figure.add_subplot(grid[place // across, place % across])
        for other in languages:
            if other != language:
                axes.plot(positions, scores[other], color="#d3d8dc", linewidth=0.8, zorder=1.6)
        unseen = language not in study.languages
        colour = INK if language == ENGLISH else VERMILION if unseen else BLUE
        marker = "s" if language == ENGLISH else "^" if unseen else "o"
        low, high = bounds[language]
        axes.fill_between(positions, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
        axes.vlines(positions, low, high, color=colour, alpha=0.35, linewidth=0.8, zorder=2)
        axes.plot(positions, scores[language], color=colour, marker=marker, linewidth=1.5, markersize=3.6,
                  markeredgecolor="white", markeredgewidth=0.5, zorder=3)  # fmt: skip
        for x, value in zip(positions, scores[language], strict=True):
            if np.isnan(value):
                missing_column(axes, x, 0.7)
        score_axis(axes, ends)
        if place % across:
            axes.set_yticklabels([])
        axes.set_title(language_name(language) + (" (unseen)" if unseen else ""), fontsize=8, loc="left", pad=4,
                       fontweight="bold", color=colour)  # fmt: skip
        axes.set_xlim(-0.45, len(found) - 0.55)
        crowded = len(found) > 6
        shown = [x for x in positions if not crowded or found[x].count is not None or found[x].percent % 20 == 0]
        axes.set_xticks(shown, [_narrow(found[x], crowded) for x in shown], fontsize=6.5)
        axes.tick_params(axis="y", labelsize=6.5)
    figure.text(
        0.5,
        0.06 / height,
        "how much of the tuning data is multilingual",
        ha="center",
        fontsize=7.5,
        color=QUIET,
    )
    return figure


def permutation_numbers(rows: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """Mean IF of the models with as many tuning languages: ``tuning_languages,eval_language,if_score``."""
    sizes = rows["train_languages"].str.count(r"\+") + 1
    found = []
    for size in sorted(sizes.unique()):
        part = rows[sizes == size]
        for language in study.evaluate_in:
            found.append({"tuning_languages": size, "eval_language": language, "if_score": cell(part, language)})
        found.append({"tuning_languages": size, "eval_language": "avg", "if_score": average(part, study.evaluate_in)})
    return pd.DataFrame(found, columns=["tuning_languages", "eval_language", "if_score"])


def draw_permutations(rows: pd.DataFrame, study: StudyView, title: str, subtitle: str) -> Drawing:
    """Scores in languages that were never tuned on, by how many were."""
    width, height = 6.0, 3.5
    figure = drawing(width, height, title, subtitle)
    axes = figure.add_axes((0.085, 0.15, 0.66, top(height) - 0.18))
    table = permutation_numbers(rows, study).pivot(index="tuning_languages", columns="eval_language", values="if_score")
    ends = score_range(table.to_numpy().ravel())
    positions = list(table.index)
    for language in study.evaluate_in:
        axes.plot(positions, table[language], color=HATCH, linewidth=0.9, marker=".", markersize=4, zorder=2)
    axes.plot(
        positions,
        table["avg"],
        color=VERMILION,
        linewidth=2.2,
        marker="^",
        markersize=6,
        markeredgecolor="white",
        zorder=3,
    )
    for x in positions:
        if np.isnan(table.loc[x, "avg"]):
            missing_column(axes, x, 0.5)
    score_axis(axes, ends)
    last = [Series(language_name(language), (language,), QUIET, ".") for language in study.evaluate_in]
    labels = [(table[series.languages[0]].dropna().iloc[-1:].sum(), series) for series in last]
    labels.append((table["avg"].dropna().iloc[-1:].sum(), Series("Average", (), VERMILION, "^")))
    axes.set_xlim(min(positions) - 0.3, max(positions) + 0.3)
    _label_ends(axes, labels, positions[-1])
    axes.set_xticks(positions)
    axes.set_xlabel("languages tuned on (mean over the models with as many)", fontsize=7.5)
    axes.set_ylabel("IF in languages never tuned on", fontsize=7.5)
    return figure


def pair_numbers(rows: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """IF of each language alone and of both: ``pair,tuned_on,eval_language,if_score``; evaluated in neither of them."""
    found = []
    for pair in study.pairs:
        others = [language for language in study.evaluate_in if language not in pair]
        for tuned_on in (pair[0], pair[1], "+".join(sorted(pair))):
            part = rows[rows["train_languages"] == tuned_on]
            scores = [(language, cell(part, language)) for language in others] + [("avg", average(part, others))]
            found += [
                {"pair": "+".join(pair), "tuned_on": tuned_on, "eval_language": language, "if_score": value}
                for language, value in scores
            ]
    return pd.DataFrame(found, columns=["pair", "tuned_on", "eval_language", "if_score"])


def draw_pairs(rows: pd.DataFrame, study: StudyView, title: str, subtitle: str) -> Drawing:
    """Each pair's three models: small dots for the languages in neither, a large mark for their average."""
    width, height = 6.6, 0.95 + 0.92 * len(study.pairs) + 0.3
    figure = drawing(width, height, title, subtitle)
    numbers = pair_numbers(rows, study)
    left = 1.9
    axes = figure.add_axes((left / width, 0.5 / height, (width - left - 0.65) / width, top(height) - 0.55 / height))
    low, high = score_range(numbers["if_score"])
    labels, places = [], []
    for group, pair in enumerate(study.pairs):
        both = "+".join(sorted(pair))
        marks = ((pair[0], QUIET, "s"), (pair[1], QUIET, "D"), (both, GREEN, "o"))
        for line, (tuned_on, colour, marker) in enumerate(marks):
            y = group * 4 + line
            part = numbers[(numbers["pair"] == "+".join(pair)) & (numbers["tuned_on"] == tuned_on)]
            single = part[part["eval_language"] != "avg"]["if_score"]
            mean = part.loc[part["eval_language"] == "avg", "if_score"].iloc[0]
            if np.isnan(mean):
                missing_row(axes, y, 0.7)
                axes.text(high + (high - low) * 0.02, y, "missing", va="center", color=QUIET, fontsize=7)
            else:
                axes.text(high + (high - low) * 0.02, y, f"{mean:.1f}", va="center", color=colour, fontweight="bold")
            axes.plot(single, [y] * len(single), ".", color=colour, alpha=0.5, markersize=5, zorder=2.5)
            axes.plot([mean], [y], marker, color=colour, markersize=8, markeredgecolor="white", zorder=3)
            labels.append(" + ".join(language_name(language) for language in tuned_on.split("+")))
            places.append(y)
    axes.set_ylim(max(places, default=0) + 0.8, -0.95)
    axes.set_xlim(low, high)
    axes.axvline(50, color=QUIET, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1.5)
    axes.grid(axis="x", color="#e3e7ea", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_yticks(places, labels)
    axes.spines["left"].set_visible(False)
    for tick, place in zip(axes.get_yticklabels(), places, strict=True):
        tick.set_fontweight("bold" if place % 4 == 2 else "normal")
    axes.set_xlabel("IF in the languages of neither (small: each language; large: their mean)", fontsize=7.5)
    return figure
