"""`pinch report`: what is in the store, told to the report room as plain records and drawn; also while running.

This is the seam between the two: the report room knows no store, and no other room knows how a page looks.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.corpus.tiny_statements import SHARES
from orchestrator.corpus_card import CorpusCards
from orchestrator.export.licences import licences
from orchestrator.grids import Listed
from orchestrator.people.annotations import answers_in, own_ratings, verdicts
from orchestrator.people.side_by_side import IN_WORDS, Chosen
from orchestrator.plan import Plan
from orchestrator.report.figures import draw_figures
from orchestrator.report.findings import findings
from orchestrator.report.headline import headline
from orchestrator.report.outputs import Outputs
from orchestrator.report.page import write_page
from orchestrator.report.ratings import draw_ratings
from orchestrator.report.tables import tables, write_tables
from orchestrator.report.views import Details, Gap, ReportContext, StudyView, clean
from orchestrator.review import review
from orchestrator.scores import summaries
from orchestrator.scores.agreement import agreement
from orchestrator.scores.score_table import ScoreTable, as_csv
from orchestrator.scores.sentences import intervals_note
from orchestrator.spent import spent
from orchestrator.store import Store
from orchestrator.studies import AnyStudy, PairsStudy
from trainables.errors import UserError


@dataclasses.dataclass(frozen=True)
class Report:
    """A report as it lies on the disk."""

    page: Path
    files: tuple[Path, ...]
    """Tables and prints, which the page links to."""
    headline: str
    """The page's first sentence."""


def write_report(
    plan: Plan, store: Store, location: str, out: Path, pretraining: Mapping[str, float] | None = None
) -> Report:
    """Draw the figures, write the tables and the page: beside the folder first, so that all of it comes or nothing.

    Args:
        location: the store as the user names it, for the commands the page shows.
        out: folder for page, figures and CSVs; only an earlier report's files are replaced.
        pretraining: percent of the base's pre-training documents in each language, for figure 8; default: those of
            ``tiny`` are known.

    Raises:
        UserError: when the folder cannot be written.
    """
    scores, outputs = ScoreTable(plan, store), Outputs(out)
    with tempfile.TemporaryDirectory(prefix="pinch-report-") as drawn:
        report = _draw(plan, store, scores, location, Path(drawn), pretraining or _known_shares(plan))
        outputs.take(Path(drawn))
    return Report(out / report.page.name, tuple(out / path.name for path in report.files), report.headline)


def _draw(
    plan: Plan, store: Store, scores: ScoreTable, location: str, out: Path, pretraining: Mapping[str, float]
) -> Report:
    table = scores.frame(quality=True)
    studies = [_view(study, plan.grid.listed) for study in plan.sweep.studies]
    context = _context(plan, store, location, table)
    details = _details(plan, store, scores, table, studies)
    answers = answers_in(plan, store)
    agreed = agreement(verdicts(answers, scores)) if answers else None
    try:
        figures = draw_figures(table, studies, context, out, averages=details.averages, pretraining=pretraining)
        figures += [draw_ratings(own_ratings(answers), context, out)] if answers else []
        figures += write_tables(tables(table, studies, agreement=agreed, pretraining=pretraining), context, out)
    except OSError as problem:
        raise UserError(f"--out {out}: cannot be written ({problem.strerror}); name another folder.") from None
    outputs = Outputs(out)
    written = [outputs.write(f"{context.sweep}-scores.csv", as_csv(scores.rows()))]
    if details.card:
        written.append(
            outputs.write(f"{context.sweep}-corpus.csv", as_csv(map(dict, details.card), tuple(details.card[0])))
        )
    samples = Chosen(plan, store, scores).samples(plan.cells)
    page = write_page(context, table, figures, samples, out, studies, details)
    prints = [path for figure in figures for path in (figure.pdf, figure.png, figure.csv)]
    answer = headline(clean(table), studies, context, details.averages)
    return Report(page, (*written, *prints), answer.sentence)


def _known_shares(plan: Plan) -> Mapping[str, float]:
    return SHARES if plan.base_source.kind == "tiny" else {}


def _details(plan: Plan, store: Store, scores: ScoreTable, table: pd.DataFrame, studies: list[StudyView]) -> Details:
    averages, differences = summaries.averages(scores), summaries.differences(scores)
    return Details(
        averages=averages,
        differences=differences,
        difference_sentences=summaries.difference_sentences(plan, differences),
        intervals_note=intervals_note(len(plan.sweep.seeds.train)),
        findings=findings(table, studies, averages=averages, differences=differences),
        card=CorpusCards(plan, store).corpus(),
        licences=licences(plan),
        cost=spent(plan, store),
    )


def _view(study: AnyStudy, listed: tuple[Listed, ...]) -> StudyView:
    rows = [model for model in listed if model.study == study.label]
    evaluated = dict.fromkeys(code for model in rows for code in model.evaluate_in)
    languages: tuple[str, ...] = getattr(study, "languages", ()) or tuple(
        dict.fromkeys(code for model in rows for code in model.rule.languages)
    )
    pairs: tuple[Any, ...] = study.pairs if isinstance(study, PairsStudy) else ()
    return StudyView(
        label=study.label,
        kind=study.study,  # type: ignore[arg-type]
        languages=languages,
        evaluate_in=tuple(evaluated),
        pairs=pairs,
    )


def _context(plan: Plan, store: Store, location: str, table: pd.DataFrame) -> ReportContext:
    sweep = plan.sweep
    looks = review(plan, store)
    counts: dict[str, tuple[int, int]] = {}
    for look in looks:
        done, total = counts.get(look.step.kind, (0, 0))
        counts[look.step.kind] = (done + (look.action == "reuse"), total + 1)
    failed = store.failures()
    gaps = [
        Gap(
            f"{look.step.kind} {look.step.name}",
            "failed" if look.step.key in failed else "blocked",
            look.reason.removeprefix("failed: "),
        )
        for look in looks
        if look.action == "blocked"
    ]
    recipe = {name.replace("_", " "): str(value) for name, value in sweep.recipe.identity().items()}
    recipe |= {"sampling": ", ".join(f"{name} {value}" for name, value in sweep.sampling.identity().items())}
    corpus = sweep.corpus
    flags = "" if location == "./pinch-store" else f" --store {location}"
    notes = []
    invalid = table["invalid"].fillna(0).sum()
    if invalid:
        notes.append(f"{invalid:.0f} instructions had a verdict that could not be parsed; they are left out of scores.")
    return ReportContext(
        sweep=sweep.name,
        base=plan.base_source.label,
        judge=sweep.judge.label,
        corpus=f"{corpus.source}, {corpus.train_count:,} examples to tune on, {corpus.eval_count} to evaluate",
        recipe=recipe,
        counts=counts,
        store=store.location,
        commands=(f"pinch run {plan.loaded.typed()}{flags}", f"pinch report {plan.loaded.typed()}{flags}"),
        generated_at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        working_model=plan.base_source.kind == "tiny" or sweep.judge.kind == "reference",
        running=any(look.action in ("wait", "run") for look in looks),
        gaps=gaps,
        notes=notes,
        cells_total=len(plan.cells),
        samples_note=IN_WORDS,
        version=metadata.version("pinch-sweeps"),
    )
