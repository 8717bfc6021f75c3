"""The answer, in a sentence, before any table: how small a pinch is enough.

"Enough" is within one point of the uniform mixture, on the mean over the evaluation languages other than English. An
answer is given only when every cell it rests on is there; otherwise the sentence says how far the work is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from orchestrator.report.cells import Cells, Value, level_of
from orchestrator.report.views import (
    Level,
    ReportContext,
    StudyView,
    average,
    language_name,
    levels,
    non_english,
    study_rows,
)

WITHIN = 1.0
"""Points of IF below the uniform mixture that count as being as good."""


_END_NAMES = {0.0: "English alone", 100.0: "Uniform mixture"}


@dataclass(frozen=True)
class Stat:
    """One number beside the headline."""

    label: str
    value: str
    detail: str
    chosen: bool = False
    interval: str = ""
    """``41.2 – 46.5``, where it is known."""


@dataclass(frozen=True)
class Headline:
    """A sentence and the numbers it rests on."""

    sentence: str
    support: str
    stats: tuple[Stat, ...] = ()
    known: bool = True
    study: str = ""
    """The study it is about."""
    models: tuple[str, ...] = ()
    """The pinches among the numbers, as the study names their models, the one that is enough first."""


def headline(
    table: pd.DataFrame,
    studies: Sequence[StudyView],
    context: ReportContext,
    averages: pd.DataFrame | None = None,
) -> Headline:
    """The answer of the first pinch study; without one, the best single language; else how far the work is.

    Args:
        averages: as :class:`orchestrator.report.views.Details` has them, for the intervals.
    """
    pinch = next((study for study in studies if study.kind == "pinch"), None)
    if pinch is not None:
        found = _smallest_pinch(table, pinch, context, averages)
        return replace(found, study=pinch.label)
    alone = next((study for study in studies if study.kind in ("monolingual", "slavic")), None)
    return _best_language(table, alone, context) if alone is not None else _progress(context)


def _smallest_pinch(
    table: pd.DataFrame, study: StudyView, context: ReportContext, averages: pd.DataFrame | None
) -> Headline:
    rows = study_rows(table, study)
    others = non_english(study)
    found = levels(rows)
    cells = Cells(rows, study, level_of, averages)
    means = {level: cells.average(level, others, "non_english") for level in found}
    uniform = next((level for level in found if level.percent == 100), None)
    names = ", ".join(language_name(language) for language in others)
    support = f"Study {study.label}: mean instruction following over {names}."

    def stats(enough: Level | None = None) -> tuple[Stat, ...]:
        return tuple(_stat(level, means[level], level == enough) for level in _shown(found, uniform, enough))

    if uniform is None:
        known = [level for level in found if not means[level].missing]
        if not known or len(known) < len(found):
            return _progress(context, stats(), support)
        best = max(known, key=lambda level: means[level].value)
        sentence = f"On the languages other than English, the best level is {_phrase(best)}: {means[best].value:.1f}."
        return Headline(sentence, support, stats(), models=cells.models(best))
    enough = uniform
    for level in found:
        if means[level].missing or means[uniform].missing:
            return _progress(context, stats(), support)
        if means[level].value >= means[uniform].value - WITHIN:
            enough = level
            break
    if enough == uniform:
        sentence = "No pinch comes within 1 point of the uniform mixture on the languages other than English."
    elif enough.percent == 0:
        sentence = "English alone is within 1 point of the uniform mixture on the languages other than English."
    else:
        sentence = (
            "The smallest pinch within 1 point of the uniform mixture on the languages other than English: "
            f"{enough.words}."
        )
    pinches = sorted(
        (level for level in _shown(found, None, enough) if 0 < level.percent < 100), key=lambda level: level != enough
    )
    models = tuple(model for level in pinches for model in cells.models(level))
    return Headline(sentence, support, stats(enough if enough != uniform else None), models=models)


def _stat(level: Level, mean: Value, chosen: bool) -> Stat:
    value = "–" if mean.missing else f"{mean.value:.1f}"
    interval = f"{mean.low:.1f} – {mean.high:.1f}" if mean.known else ""
    return Stat(_short(level), value, _detail(level), chosen, interval)


def _shown(found: list[Level], uniform: Level | None, enough: Level | None = None) -> list[Level]:
    """English alone, the smallest pinch, the one that is enough, the uniform mixture."""
    pinches = [level for level in found if 0 < level.percent < 100]
    wanted = [level for level in found if level.percent == 0] + pinches[:1]
    wanted += [level for level in (enough, uniform) if level is not None]
    return list(dict.fromkeys(wanted))


def _short(level: Level) -> str:
    return _END_NAMES.get(level.percent, f"A pinch of {level.label.replace(' ex.', ' examples')}")


def _phrase(level: Level) -> str:
    name = _END_NAMES.get(level.percent)
    return "the uniform mixture" if level.percent == 100 else name or level.words


def _detail(level: Level) -> str:
    if level.percent == 0:
        return "no multilingual example"
    if level.percent == 100:
        return "an even share for every language"
    return f"{level.percent:.1f}% multilingual" if level.count is not None else "multilingual, the rest English"


def _best_language(table: pd.DataFrame, study: StudyView, context: ReportContext) -> Headline:
    rows = study_rows(table, study)
    means = {
        language: average(rows[rows["train_languages"] == language], study.evaluate_in) for language in study.languages
    }
    support = f"Study {study.label}: mean over {len(study.evaluate_in)} evaluation languages, the model's own included."
    if any(pd.isna(mean) for mean in means.values()):
        return _progress(context, support=support)
    ranked = sorted(means, key=lambda language: -means[language])
    sentence = (
        f"Tuned on one language, {language_name(ranked[0])} carries over best: {means[ranked[0]]:.1f} on average."
    )
    stats = tuple(
        Stat(language_name(language), f"{means[language]:.1f}", "tuned on it alone") for language in ranked[:3]
    )
    return Headline(sentence, support, stats)


def _progress(context: ReportContext, stats: tuple[Stat, ...] = (), support: str = "") -> Headline:
    done, total = context.comparisons
    failed = f", and {len(context.gaps)} steps are missing" if context.gaps and not context.running else ""
    sentence = f"No answer yet: {done:,} of {total:,} comparisons are judged{failed}."
    return Headline(sentence, support, stats, known=False)
