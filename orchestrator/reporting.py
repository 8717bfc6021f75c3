"""`pinch report`: what is in the store, told to the report room as plain records and drawn; also while running.

This is the seam between the two: the report room knows no store, and no other room knows how a page looks.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from orchestrator.corpus.base import EVAL_FILE, read_examples
from orchestrator.grids import Listed
from orchestrator.plan import Plan, ScoreCell
from orchestrator.report.figures import draw_figures
from orchestrator.report.page import write_page
from orchestrator.report.views import Gap, ReportContext, Sample, StudyView
from orchestrator.review import review
from orchestrator.score_table import COLUMNS, ScoreTable
from orchestrator.store import Store
from orchestrator.studies import AnyStudy, PairsStudy
from trainables.errors import UserError

SAMPLES_PER_LANGUAGE = 6


def write_report(plan: Plan, store: Store, location: str, out: Path) -> Path:
    """Draw the figures and write the page; returns the page's path.

    Args:
        location: the store as the user names it, for the commands the page shows.
        out: folder for page, figures and CSVs; only an earlier report's files are replaced.

    Raises:
        UserError: when the folder cannot be written.
    """
    table = pd.DataFrame(ScoreTable(plan, store).rows(), columns=list(COLUMNS))
    studies = [_view(study, plan.grid.listed) for study in plan.sweep.studies]
    context = _context(plan, store, location, table)
    try:
        figures = draw_figures(table, studies, context, out)
    except OSError as problem:
        raise UserError(f"--out {out}: cannot be written ({problem.strerror}); name another folder.") from None
    samples = _samples(plan, store)
    return write_page(context, table, figures, samples, out, studies)


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
        store=str(store.root),
        commands=(f"pinch run {plan.loaded.source}{flags}", f"pinch report {plan.loaded.source}{flags}"),
        generated_at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        working_model=plan.base_source.kind == "tiny" or sweep.judge.kind == "reference",
        running=any(look.action in ("wait", "run") for look in looks),
        gaps=gaps,
        notes=notes,
        cells_total=len(plan.cells),
    )


def _samples(plan: Plan, store: Store) -> list[Sample]:
    """A few judged instructions per language, each from another model, always the same ones."""
    by_language: dict[str, list[ScoreCell]] = {}
    seen: set[str] = set()
    for cell in plan.cells:
        if cell.comparison is not None and cell.comparison.key not in seen:
            seen.add(cell.comparison.key)
            by_language.setdefault(cell.row.language, []).append(cell)
    samples: list[Sample] = []
    for language, cells in by_language.items():
        found = [cell for cell in cells if cell.comparison and store.find("comparison", cell.comparison.key)]
        spread = found[:: max(1, len(found) // SAMPLES_PER_LANGUAGE)][:SAMPLES_PER_LANGUAGE]
        for position, cell in enumerate(spread):
            sample = _sample(plan, store, cell, language, position)
            if sample is not None:
                samples.append(sample)
    return samples


def _sample(plan: Plan, store: Store, cell: ScoreCell, language: str, position: int) -> Sample | None:
    assert cell.comparison is not None
    first, second = cell.comparison.needs[:2]
    entries = [store.find(step.kind, step.key) for step in (cell.comparison, first, second, plan.corpora[language])]
    if any(entry is None for entry in entries):
        return None
    verdicts_at, first_at, second_at, corpus_at = (entry.path for entry in entries if entry is not None)
    examples = read_examples(corpus_at / EVAL_FILE)[: plan.sweep.corpus.eval_count]
    example = examples[(position * 7) % len(examples)]
    texts = []
    for folder in (first_at, second_at):
        rows = pq.read_table(folder / "responses.parquet", columns=["instruction_id", "text"]).to_pylist()
        texts.append({row["instruction_id"]: row["text"] for row in rows}[example.id])
    verdicts = pq.read_table(verdicts_at / "verdicts.parquet").to_pylist()
    choices = {row["order"]: row["choice"] for row in verdicts if row["instruction_id"] == example.id}
    return Sample(
        study=cell.row.listed.study,
        language=language,
        instruction_id=example.id,
        instruction=example.instruction,
        baseline=cell.baseline.name,
        baseline_response=texts[0],
        model=cell.name,
        model_response=texts[1],
        choices=choices,
        reference=example.response,
    )
