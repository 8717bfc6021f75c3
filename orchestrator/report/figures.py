"""The paper's figures from a score table, study by study; how a figure gets to the disk is ``prints``'.

Which figures there are follows from the studies: heat maps for ``monolingual``, ``slavic``, ``base`` and ``custom``,
averages and small multiples for ``pinch``, means by number of languages for ``permutations``, dots for ``pairs``. Where
a study is the paper's, a figure holds it against the published values; where the shares of the pre-training corpus are
known, another asks whether they matter. What is missing is hatched, and an average that lacks a cell is missing too.
The same table gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from orchestrator.languages import MAIN12, SLAVIC
from orchestrator.report import beside, published, shares, spoken
from orchestrator.report.counts import Counts
from orchestrator.report.curves import Pinch
from orchestrator.report.heatmap import INTERVALS_UP_TO, HeatMap
from orchestrator.report.outputs import Outputs
from orchestrator.report.pairs import Pairs
from orchestrator.report.prints import Print, csv, write
from orchestrator.report.views import Figure, ReportContext, StudyView, clean, language_name, study_rows

_BELOW = "50: not to be told apart from the baseline"
_ALONE = ("monolingual", "slavic")


def draw_figures(
    table: pd.DataFrame,
    studies: Sequence[StudyView],
    context: ReportContext,
    out: Path,
    *,
    averages: pd.DataFrame | None = None,
    pretraining: Mapping[str, float] | None = None,
) -> list[Figure]:
    """Draw every figure of every study into a folder, as ``<sweep>-<study>….png``, ``.pdf`` and ``.csv``.

    Args:
        table: the score table, one row per (study, model, evaluation language); rows may be missing or have no score.
        studies: in the order of the page.
        context: names the sweep, the base and the judge.
        out: made if it is not there; nothing but earlier figures of the same name is replaced.
        averages: ``study, model, group, average, ci_low, ci_high``, for the intervals of averages; default none.
        pretraining: percent of the base's pre-training documents in each language, for figure 8; default none.

    Raises:
        trainables.errors.UserError: when the folder cannot be written to, or somebody's own file has a figure's name.
    """
    outputs, scores = Outputs(out), clean(table)
    return [
        write(planned, context, outputs)
        for study in studies
        for planned in _prints(study_rows(scores, study), study, context, averages, pretraining or {})
    ]


def _prints(
    rows: pd.DataFrame,
    study: StudyView,
    context: ReportContext,
    averages: pd.DataFrame | None,
    pretraining: Mapping[str, float],
) -> Iterator[Print]:
    if study.kind in (*_ALONE, "base") or (study.kind == "custom" and len(rows)):
        scores = HeatMap(rows, study, averages)
        yield _heat_map(scores)
        yield from _beside(scores, context)
        if study.kind == "monolingual" and not set(study.languages) <= set(SLAVIC):
            yield from _shares(scores, pretraining)
        if study.kind in _ALONE and rows["in_language_share"].notna().any():
            yield _spoken(rows, study)
    elif study.kind == "pinch":
        pinch = Pinch(rows, study, averages)
        if pinch.levels:
            yield from _pinch(pinch)
    elif study.kind == "permutations" and len(rows):
        yield _counts(Counts(rows, study, averages))
    elif study.kind == "pairs" and study.pairs:
        yield _pairs(Pairs(rows, study, averages))


def _heat_map(scores: HeatMap) -> Print:
    study = scores.study
    rows = "Rows: the language tuned on. Columns: the language evaluated in. "
    alone = "The baseline is the model tuned on the column's language alone"
    title, text = {
        "base": (
            "Tuned models against the base model that was not tuned",
            f"As figure 10 of the paper. {rows}The baseline is the pre-trained model.",
        ),
        "custom": (
            f"Instruction following of the mixtures of {study.label}",
            f"Rows: the mixture tuned on. Columns: the language evaluated in. {alone}.",
        ),
    }.get(
        study.kind,
        (
            "Tuned on one language, evaluated in all",
            f"{_like(study)}{rows}{alone}, so the outlined diagonal is 50 by definition; the average includes it.",
        ),
    )
    if set(study.languages) <= set(SLAVIC):
        title = "Tuned on one Slavic language, evaluated in all"
    if any(scores.intelligible(code) for code in study.languages):
        text += " Dashed: the two languages are mutually intelligible."
    text += " Small: the 95% interval." if len(study.evaluate_in) <= INTERVALS_UP_TO else ""
    values = scores.values
    return Print(
        name=study.label,
        title=title,
        text=text,
        alt=_ranking(values["avg"]),
        draw=scores.draw,
        csv=scores.csv(),
        missing=int(values.isna().sum().sum()),
        below=_BELOW,
    )


def _like(study: StudyView) -> str:
    if set(study.languages) == set(SLAVIC):
        return "As figure 7 of the paper. "
    return "As figure 1 of the paper. " if set(study.languages) == set(MAIN12) else ""


def _beside(scores: HeatMap, context: ReportContext) -> Iterator[Print]:
    theirs = published.matrix(scores.study)
    if theirs is None:
        return
    here = scores.values
    numbers = beside.numbers(here, theirs)
    cells, means = beside.correlations(numbers, scores.study)
    found = [f"over {n} {what} r = {r:.2f}" for (r, n), what in ((cells, "cells"), (means, "averages")) if r == r]
    said = f"Pearson's correlation of the two: {' and '.join(found)}. " if found else ""
    yield Print(
        name=f"{scores.study.label}-published",
        title="This run beside the published values"
        + (" (against the base model)" if scores.study.kind == "base" else ""),
        text=f"Left: this run less the published value. Right: one against the other. {said}{published.note(context)}",
        alt=said.strip() or "No score yet.",
        draw=lambda title, subtitle: beside.draw(here, theirs, scores.study, title, subtitle),
        csv=csv(numbers),
        missing=int(numbers["if_score"].isna().sum()),
    )


def _shares(scores: HeatMap, pretraining: Mapping[str, float]) -> Iterator[Print]:
    numbers = shares.numbers(scores, pretraining)
    if len(numbers) < 4:  # three points have no interval
        return
    found = shares.correlate(numbers)
    yield Print(
        name=f"{scores.study.label}-shares",
        title="Average score against the language's share of pre-training",
        text=(
            "As figure 8 of the paper, English left out. A point is a language tuned on alone; upright: the 95% "
            f"interval of its average. Pearson's {found} (Fisher). Published: r = {published.CORRELATION}, "
            f"n = {published.LANGUAGES}."
        ),
        alt=f"{found}.",
        draw=lambda title, subtitle: shares.draw(numbers, title, subtitle),
        csv=csv(numbers),
        missing=int(numbers["average"].isna().sum()),
    )


def _spoken(rows: pd.DataFrame, study: StudyView) -> Print:
    numbers = spoken.numbers(rows, study)
    share = spoken.overall(numbers)
    said = "" if math.isnan(share) else f"{share:.1f}% of the responses of models tuned on another language are. "
    return Print(
        name=f"{study.label}-in-language",
        title="Responses in the language of their prompt, in percent",
        text=(
            f"As appendix E of the paper, where 239 of 240 were. {said}Rows: the language tuned on. Columns: the "
            "language of the prompt. Last: the mean over the languages that are not the row's."
        ),
        alt=said.strip() or "Not known yet.",
        draw=lambda title, subtitle: spoken.draw(numbers, title, subtitle),
        csv=numbers.to_csv(float_format="%.1f", lineterminator="\n"),
        missing=int(numbers.isna().sum().sum()),
    )


def _pinch(pinch: Pinch) -> Iterator[Print]:
    study = pinch.study
    lines, single = pinch.numbers(pinch.series), pinch.numbers(pinch.single)
    mixture = f"Tuned on English with a share spread evenly over {_list(study.languages)}"
    unseen = set(study.evaluate_in) - set(study.languages)
    like = f"As figure {4 if unseen else 3} of the paper. "
    yield Print(
        name=f"{study.label}-averages",
        title=f"How small a pinch is enough ({study.label})",
        text=(
            f"{like}{mixture}; the size of the training set never changes. Lines: means over evaluation languages, "
            f"English apart.{_INTERVALS if lines['ci_low'].notna().any() else ''}"
        ),
        alt=_ends(lines),
        draw=pinch.draw_averages,
        csv=csv(lines),
        missing=int(lines["if_score"].isna().sum()),
    )
    yield Print(
        name=f"{study.label}-languages",
        title=f"Language by language ({study.label})",
        text=f"{mixture}. Bands: 95% intervals over instructions; grey: the other languages.",
        alt=_ends(single),
        draw=pinch.draw_languages,
        csv=csv(single),
        missing=int(single["if_score"].isna().sum()),
        below=_BELOW,
    )


_INTERVALS = " Upright: 95% intervals over instructions."


def _counts(counts: Counts) -> Print:
    numbers = counts.numbers()
    means = " ".join(
        f"{size}: {'missing' if value.missing else f'{value.value:.1f}'}."
        for size, value in zip(counts.sizes, counts.means, strict=True)
    )
    text = (
        "As figure 5 of the paper. Uniform mixtures over one to more languages; each point is a mean over the models "
        f"with as many, hollow marks are the models. Evaluated in {_list(counts.study.evaluate_in)}, which no mixture "
        "holds."
    )
    if any(value.known for value in counts.means):
        text += " Upright: the mean of the models' 95% intervals, as wide as the mean's can be."
    return Print(
        name=counts.study.label,
        title="More tuning languages, scores in languages never tuned on",
        text=text,
        alt=f"Average by number of tuning languages: {means}",
        draw=counts.draw,
        csv=csv(numbers),
        missing=int(numbers["if_score"].isna().sum()),
        below=_BELOW,
    )


def _pairs(pairs: Pairs) -> Print:
    numbers = pairs.numbers()
    means = "; ".join(
        f"{' + '.join(map(language_name, tuned_on.split('+')))} {'missing' if mean.missing else f'{mean.value:.1f}'}"
        for _, tuned_on, _, mean in pairs.lines
    )
    return Print(
        name=pairs.study.label,
        title="Two languages instead of one",
        text=(
            "As figure 6 of the paper. Each language alone and the two half and half, with the same number of "
            "examples, evaluated in the languages of neither: a small mark for each language, a large one for their "
            "mean."
        ),
        alt=f"Means: {means}.",
        draw=pairs.draw,
        csv=csv(numbers),
        missing=int(numbers["if_score"].isna().sum()),
        below=_BELOW,
    )


def _ranking(averages: pd.Series) -> str:
    known = averages.dropna()
    if known.empty:
        return "No average yet."
    best, worst = str(known.idxmax()), str(known.idxmin())
    return (
        f"The highest average is {language_name(best)}'s, {known.max():.1f}, the lowest {language_name(worst)}'s, "
        f"{known.min():.1f}."
    )


def _ends(numbers: pd.DataFrame) -> str:
    """Where each line begins and ends."""
    found = []
    for name, part in numbers.dropna(subset="if_score").groupby("series", sort=False):
        first, last = part.iloc[0], part.iloc[-1]
        ends = [first] if len(part) == 1 else [first, last]
        found.append(f"{name} {', '.join(f'{one.if_score:.1f} at {one.level}' for one in ends)}")
    return f"{'; '.join(found)}." if found else "No score yet."


def _list(codes: Sequence[str]) -> str:
    names = [language_name(code) for code in codes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
