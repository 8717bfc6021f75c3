"""The paper's figures from a score table: PNG for screens, PDF for print, and the numbers as CSV.

Which figures there are follows from the studies: heat maps for ``monolingual``, ``slavic``, ``base`` and ``custom``,
averages and small multiples for ``pinch``, means by number of languages for ``permutations``, dots for ``pairs``. What
is missing is hatched, and an average that lacks a cell is missing too. Every figure and caption names the judge and
the base model, because a figure travels without its page. The same table gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Drawing

from orchestrator.report import curves, heatmap
from orchestrator.report.canvas import STYLE
from orchestrator.report.outputs import Outputs
from orchestrator.report.views import (
    Figure,
    ReportContext,
    StudyView,
    clean,
    language_name,
    levels,
    study_rows,
)


@dataclass(frozen=True)
class _Plan:
    name: str
    title: str
    text: str
    draw: Callable[[pd.DataFrame, StudyView, str, str], Drawing]
    numbers: pd.DataFrame
    csv: str


def draw_figures(table: pd.DataFrame, studies: Sequence[StudyView], context: ReportContext, out: Path) -> list[Figure]:
    """Draw every figure of every study into a folder, as ``<sweep>-<study>….png``, ``.pdf`` and ``.csv``.

    Args:
        table: the score table, one row per (study, model, evaluation language); rows may be missing or have no score.
        studies: in the order of the page.
        context: names the sweep, the base and the judge.
        out: made if it is not there; nothing but earlier figures of the same name is replaced.

    Raises:
        trainables.errors.UserError: when the folder cannot be written to, or somebody's own file has a figure's name.
    """
    outputs = Outputs(out)
    rows_of = {study.label: study_rows(clean(table), study) for study in studies}
    figures = []
    for study in studies:
        rows = rows_of[study.label]
        for plan in _plans(rows, study):
            stem = f"{context.sweep}-{plan.name}"
            missing = int(plan.numbers["if_score"].isna().sum())
            subtitle = f"base model {context.base} · judge {context.judge} · 50: not to be told apart from the baseline"
            subtitle += " · hatched: missing" if missing else ""
            with matplotlib.rc_context(STYLE):
                drawn = plan.draw(rows, study, plan.title, subtitle)
                png, pdf = _bytes(drawn, "png"), _bytes(drawn, "pdf")
                width = int(drawn.get_figwidth() * 92)
            note = f" {missing} {'value is' if missing == 1 else 'values are'} missing and hatched." if missing else ""
            figures.append(
                Figure(
                    name=plan.name,
                    title=plan.title,
                    caption=f"{plan.text}{note} Base model: {context.base}. Judge: {context.judge}.",
                    png=outputs.write(f"{stem}.png", png),
                    pdf=outputs.write(f"{stem}.pdf", pdf),
                    csv=outputs.write(f"{stem}.csv", plan.csv),
                    alt=f"{plan.title}. The numbers are in {stem}.csv and in the score table.",
                    width=width,
                    missing=missing,
                )
            )
    return figures


def _plans(rows: pd.DataFrame, study: StudyView) -> Iterator[_Plan]:
    if study.kind in ("monolingual", "slavic", "base", "custom"):
        yield _heat_map(rows, study)
    elif study.kind == "pinch" and levels(rows):
        yield from _pinch(rows, study)
    elif study.kind == "permutations" and len(rows):
        numbers = curves.permutation_numbers(rows, study)
        yield _Plan(
            study.label,
            "More tuning languages, scores in languages never tuned on",
            "Uniform mixtures over one to more languages; each point is a mean over the models with as many. "
            f"Evaluated in {_list(study.evaluate_in)}, which no mixture holds.",
            curves.draw_permutations,
            numbers,
            _csv(numbers),
        )
    elif study.kind == "pairs" and study.pairs:
        numbers = curves.pair_numbers(rows, study)
        yield _Plan(
            study.label,
            "Two languages instead of one",
            "Each language alone and the two half and half, with the same number of examples, evaluated in the "
            "languages of neither: a small mark for each language, a large one for their mean.",
            curves.draw_pairs,
            numbers,
            _csv(numbers),
        )


def _heat_map(rows: pd.DataFrame, study: StudyView) -> _Plan:
    table = heatmap.matrix(rows, study)
    title, text = {
        "base": (
            "Tuned models against the base model that was not tuned",
            "Rows: the language tuned on. Columns: the language evaluated in. The baseline is the pre-trained model.",
        ),
        "custom": (
            f"Instruction following of the mixtures of {study.label}",
            "Rows: the mixture tuned on. Columns: the language evaluated in. The baseline is the model tuned on the "
            "column's language alone.",
        ),
    }.get(
        study.kind,
        (
            "Tuned on one language, evaluated in all",
            "Rows: the language tuned on. Columns: the language evaluated in. The baseline is the model tuned on the "
            "column's language alone, so the outlined diagonal is 50 by definition; the average includes it.",
        ),
    )
    if len(study.evaluate_in) <= heatmap._INTERVALS_UP_TO:
        text += " Small: the 95% interval."
    numbers = table.reset_index().melt(id_vars=[table.index.name], var_name="eval_language", value_name="if_score")
    return _Plan(study.label, title, text, heatmap.draw, numbers, heatmap.csv(table))


def _pinch(rows: pd.DataFrame, study: StudyView) -> Iterator[_Plan]:
    numbers = curves.pinch_numbers(rows, study)
    lines = [series.name for series in curves.pinch_series(study)]
    averages = numbers[numbers["series"].isin(lines)]
    single = numbers[numbers["series"].isin([language_name(language) for language in study.evaluate_in])]
    mixture = f"English with a share spread evenly over {_list(study.languages)}"
    yield _Plan(
        f"{study.label}-averages",
        f"How small a pinch is enough ({study.label})",
        f"Tuned on {mixture}; the size of the training set never changes. Means over evaluation languages.",
        curves.draw_pinch_averages,
        averages,
        _csv(averages),
    )
    yield _Plan(
        f"{study.label}-languages",
        f"Language by language ({study.label})",
        f"Tuned on {mixture}. Bands: 95% intervals over instructions; grey: the other languages.",
        curves.draw_pinch_languages,
        single,
        _csv(single),
    )


def _list(codes: Sequence[str]) -> str:
    names = [language_name(code) for code in codes]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _csv(numbers: pd.DataFrame) -> str:
    text = io.StringIO()
    numbers.to_csv(text, index=False, float_format="%.2f", lineterminator="\n")
    return text.getvalue()


def _bytes(drawn: Drawing, kind: str) -> bytes:
    """The file's content, without a date, so that the same numbers are the same bytes."""
    metadata = {"Software": "Pinch"} if kind == "png" else {"Creator": "Pinch", "CreationDate": None}
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, metadata=metadata, dpi=200)
    return buffer.getvalue()
