"""What the paper found, held against this run: held, not held, or cannot be told.

A finding is a comparison with a direction. It is *held* when the whole 95% interval of the difference lies on the
paper's side, *not held* when it lies on the other, and *cannot be told* when it holds both, or when something it rests
on is missing. Without intervals the numbers alone decide, and the sentence says so.

Differences are the paired ones of a sweep where it has them; else those of two averages as if independent, which is
wider. The paper's "almost 50" and "saturates" are given numbers here: within :data:`ALMOST` points of 50, and a smaller
gain for each language added after the fourth than before. This module must never know how anything is shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd

from orchestrator.report.cells import MISSING, Cells, Value, difference, level_of
from orchestrator.report.views import (
    Level,
    StudyView,
    clean,
    language_name,
    levels,
    non_english,
    study_rows,
)

ALMOST = 3.0
"""Points below 50 that are "almost 50"."""
BEST = ("en", "it", "es")
LOWEST = "hi"
AS_GOOD = 8 / 12
"""Share of the languages in which the uniform mixture was as good as the monolingual model or better."""
FOUR = 4

Verdict = Literal["held", "not held", "cannot be told"]


class Number(NamedTuple):
    """One number a verdict rests on; NaN where there is no interval."""

    label: str
    value: float
    ci_low: float = math.nan
    ci_high: float = math.nan


@dataclass(frozen=True)
class Finding:
    """One finding of the paper beside what this run says of it."""

    paper: str
    """What the paper found, a sentence."""
    here: str
    """What was found here, a sentence or two with the numbers."""
    verdict: Verdict
    numbers: tuple[Number, ...] = ()


def findings(
    table: pd.DataFrame,
    studies: Sequence[StudyView],
    *,
    averages: pd.DataFrame | None = None,
    differences: pd.DataFrame | None = None,
) -> list[Finding]:
    """The paper's findings in its order; one that no study of the run can tell says which it needs.

    Args:
        table: the score table, complete or not.
        averages: with intervals, columns ``study, model, group, average, ci_low, ci_high``.
        differences: paired, columns ``study, model, against, group, difference, ci_low, ci_high``.
    """
    sources = _Sources(clean(table), averages, differences)
    return [
        *_best_languages(sources, studies),
        *_forty_examples(sources, studies),
        *_uniform(sources, studies),
        *_more_languages(sources, studies),
    ]


class _Sources(NamedTuple):
    table: pd.DataFrame
    averages: pd.DataFrame | None
    differences: pd.DataFrame | None

    def cells(self, study: StudyView, key: Callable) -> Cells:
        return Cells(study_rows(self.table, study), study, key, self.averages)

    def paired(self, study: StudyView, model: Sequence[str], against: Sequence[str], group: str) -> Value:
        found = self.differences
        if found is None or len(model) != 1 or len(against) != 1:
            return MISSING
        same = (found["study"] == study.label) & (found["group"] == group)
        row = found[same & (found["model"] == model[0]) & (found["against"] == against[0])]
        return Value(*row.iloc[0][["difference", "ci_low", "ci_high"]].astype(float)) if len(row) else MISSING


# Which language to tune on (figure 1)


def _best_languages(sources: _Sources, studies: Sequence[StudyView]) -> Iterator[Finding]:
    best = "English, Italian and Spanish give the best average of all languages tuned on alone (46.8, 43.8, 43.5)."
    lowest = "Hindi gives the lowest average (33.2)."
    study = next((one for one in studies if one.kind == "monolingual" and {*BEST, LOWEST} < set(one.languages)), None)
    if study is None:
        needs = "It takes a monolingual study with English, Italian, Spanish, Hindi and another language."
        yield Finding(best, needs, "cannot be told")
        yield Finding(lowest, needs, "cannot be told")
        return
    cells = sources.cells(study, lambda row: row.train_languages)
    means = {code: cells.average(code, study.evaluate_in, "all") for code in study.languages}
    numbers = tuple(Number(language_name(code), *means[code]) for code in sorted(means, key=lambda c: -means[c].value))
    if any(mean.missing for mean in means.values()):
        yield _missing(best, "an average")
        yield _missing(lowest, "an average")
        return
    others = [code for code in study.languages if code not in BEST]
    last, first = min(BEST, key=lambda c: means[c].value), max(others, key=lambda c: means[c].value)
    gaps = [difference(means[one], means[other]) for one in BEST for other in others]
    here = ", ".join(f"{language_name(code)} {means[code].value:.1f}" for code in BEST)
    here += f"; the best other, {language_name(first)}, {means[first].value:.1f}. "
    least = difference(means[last], means[first])
    here += f"{language_name(last)} less {language_name(first)}: {_signed(least)}."
    yield Finding(best, here, _all_above(gaps), numbers)
    rest = [code for code in study.languages if code != LOWEST]
    last = min(rest, key=lambda code: means[code].value)
    here = f"Hindi {means[LOWEST].value:.1f}; the lowest other, {language_name(last)}, {means[last].value:.1f}. "
    here += f"{language_name(last)} less Hindi: {_signed(difference(means[last], means[LOWEST]))}."
    gaps = [difference(means[code], means[LOWEST]) for code in rest]
    yield Finding(lowest, here, _all_above(gaps), numbers)


# A pinch (figures 3 and 4)


def _forty_examples(sources: _Sources, studies: Sequence[StudyView]) -> Iterator[Finding]:
    paper = "Forty multilingual examples, the rest English, improve scores in the languages they are {}."
    told = {"seen": False, "unseen": False}
    for study in studies:
        rows = study_rows(sources.table, study)
        found = levels(rows) if study.kind == "pinch" else []
        forty = next((level for level in found if level.count == 40), None)
        none = next((level for level in found if level.percent == 0), None)
        if forty is None or none is None:
            continue
        cells = sources.cells(study, level_of)
        others = non_english(study)
        for group in told:
            codes = [code for code in others if (code in study.languages) == (group == "seen")]
            if not codes:
                continue
            told[group] = True
            sentence = paper.format("in" if group == "seen" else "not in, too")
            yield _improved(sources, study, cells, (forty, none), codes, group, sentence)
    for group, done in told.items():
        if not done:
            sentence = paper.format("in" if group == "seen" else "not in, too")
            where = "" if group == "seen" else " that is evaluated in a language outside its set"
            yield Finding(sentence, f"It takes a pinch study with 0% and 40 examples{where}.", "cannot be told")


def _improved(
    sources: _Sources,
    study: StudyView,
    cells: Cells,
    ends: tuple[Level, Level],
    codes: Sequence[str],
    group: str,
    sentence: str,
) -> Finding:
    with_forty, without = (cells.average(level, codes, group) for level in ends)
    if with_forty.missing or without.missing:
        return _missing(sentence, f"an average of {study.label}")
    gain = sources.paired(study, cells.models(ends[0]), cells.models(ends[1]), group)
    if gain.missing:
        gain = difference(with_forty, without)
    here = f"{study.label}, mean over {len(codes)} languages: {with_forty.value:.1f} with forty examples, "
    here += f"{without.value:.1f} without: {_signed(gain)}."
    numbers = (Number("40 examples", *with_forty), Number("English only", *without), Number("difference", *gain))
    return Finding(sentence, here, _all_above([gain]), numbers)


# The uniform mixture (figure 3)


def _uniform(sources: _Sources, studies: Sequence[StudyView]) -> Iterator[Finding]:
    paper = "The uniform mixture is as good as the monolingual model or better in 8 of 12 languages."
    study = max(
        (one for one in studies if one.kind == "pinch" and _level(sources, one, 100) is not None),
        key=lambda one: len(one.languages),
        default=None,
    )
    if study is None:
        yield Finding(paper, "It takes a pinch study with 100%.", "cannot be told")
        return
    cells = sources.cells(study, level_of)
    level = _level(sources, study, 100)
    codes = [code for code in study.languages if code in study.evaluate_in]
    scores = {code: cells.cell(level, code) for code in codes}
    if not codes or any(score.missing for score in scores.values()):
        yield _missing(paper, f"a score of the uniform mixture of {study.label}")
        return
    as_good = sum(score.value >= 50 for score in scores.values())
    surely = sum((score.low if score.known else score.value) >= 50 for score in scores.values())
    worse = sum((score.high if score.known else score.value) < 50 for score in scores.values())
    here = f"{study.label}: a score of 50 or more in {as_good} of {len(codes)} languages."
    if any(score.known for score in scores.values()):
        here += f" By the intervals better in {surely}, worse in {worse}, not to be told apart in "
        here += f"{len(codes) - surely - worse}."
    wanted = AS_GOOD * len(codes) - 1e-9
    verdict: Verdict = "cannot be told"
    if surely >= wanted:
        verdict = "held"
    elif len(codes) - worse < wanted:
        verdict = "not held"
    yield Finding(paper, here, verdict, tuple(Number(language_name(code), *scores[code]) for code in codes))


def _level(sources: _Sources, study: StudyView, percent: float) -> Level | None:
    return next((one for one in levels(study_rows(sources.table, study)) if one.percent == percent), None)


# More and more tuning languages (figure 5)


def _more_languages(sources: _Sources, studies: Sequence[StudyView]) -> Iterator[Finding]:
    rises = "Going from one tuning language to two, three and four raises scores in languages never tuned on."
    almost = "With four tuning languages those scores are almost 50."
    saturates = "With more than four tuning languages the gain saturates."
    study = next((one for one in studies if one.kind == "permutations"), None)
    cells = sources.cells(study, lambda row: row.train_languages.count("+") + 1) if study else None
    sizes = sorted(size for size in cells.keys if isinstance(size, int)) if cells else []
    if study is None or cells is None or not {1, FOUR} <= set(sizes):
        for paper in (rises, almost, saturates):
            yield Finding(paper, "It takes a permutations study with one to four languages.", "cannot be told")
        return
    means = {size: cells.average(size, study.evaluate_in, "all") for size in sizes}
    numbers = tuple(Number(f"{size} language{'s' * (size > 1)}", *mean) for size, mean in means.items())
    one, four = means[1], means[FOUR]
    if one.missing or four.missing:
        yield _missing(rises, "an average")
        yield _missing(almost, "an average")
    else:
        steps = ", ".join(f"{means[size].value:.1f}" for size in sizes if size <= FOUR)
        gain = difference(four, one)
        yield Finding(rises, f"One to four languages: {steps}; in all {_signed(gain)}.", _all_above([gain]), numbers)
        short = difference(four, Value(50 - ALMOST, 50 - ALMOST, 50 - ALMOST))
        text = f"{four.value:.1f}{_interval(four)} with four languages; almost 50 is {50 - ALMOST:g} or more here."
        yield Finding(almost, text, _all_above([short]), numbers)
    if sizes[-1] == FOUR:
        yield Finding(saturates, "It takes a permutations study with more than four languages.", "cannot be told")
        return
    most = means[sizes[-1]]
    if one.missing or four.missing or most.missing:
        yield _missing(saturates, "an average")
        return
    before = _scaled(difference(four, one), 1 / (FOUR - 1))
    after = _scaled(difference(most, four), 1 / (sizes[-1] - FOUR))
    here = f"Points for each language added: {_signed(before)} up to four, {_signed(after)} from four to {sizes[-1]}."
    yield Finding(saturates, here, _all_above([_apart(before, after)]), numbers)


def _apart(x: Value, y: Value) -> Value:
    """x less y where the two share a number and may err together: every value both intervals allow."""
    return Value(x.value - y.value, x.low - y.high, x.high - y.low)


def _scaled(value: Value, by: float) -> Value:
    return Value(*(by * number for number in value))


# Verdicts and words


def _all_above(gaps: Sequence[Value]) -> Verdict:
    """Held when every difference is surely above 0, not held when one is surely not."""
    if all((gap.low if gap.known else gap.value) > 0 for gap in gaps):
        return "held"
    if any((gap.high if gap.known else gap.value) <= 0 for gap in gaps):
        return "not held"
    return "cannot be told"


def _missing(paper: str, what: str) -> Finding:
    return Finding(paper, f"Not yet: {what} is missing.", "cannot be told")


def _signed(value: Value) -> str:
    return f"{value.value:+.1f}{_interval(value, signed=True)}"


def _interval(value: Value, signed: bool = False) -> str:
    if not value.known:
        return " (no interval)"
    ends = [f"{end:+.1f}" if signed else f"{end:.1f}" for end in (value.low, value.high)]
    return f" (95% interval {ends[0]} to {ends[1]})"
