"""The score table: one row per (study, model, evaluation language), from what the store holds.

Rows exist whether or not their scores do; what is not there is empty, never a number. Scores of a judge other than
the sweep's own can be asked for as long as its verdicts are in the store.

Each verdict file is read once; what averages, differences and judge quality need of it, the two answers about each
instruction, is kept: two bytes each, and its id.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from orchestrator.grids import BASE
from orchestrator.identity import Step
from orchestrator.plan import Model, Plan, ScoreCell
from orchestrator.scores.judge_quality import QUALITY_COLUMNS, Quality, Responses, quality, read_responses
from orchestrator.scores.scoring import DIAGONAL, Judged, Score, judged_columns, score
from orchestrator.store import Entry, Store
from trainables.errors import UserError

COLUMNS = (
    "study",
    "model",
    "model_key",
    "train_languages",
    "percent",
    "count",
    "seed",
    "eval_language",
    "seen",
    "baseline",
    "judge",
    "if_score",
    "ci_low",
    "ci_high",
    "wins",
    "ties",
    "losses",
    "invalid",
    "n",
    "first_position_rate",
    "in_language_share",
)

Row = dict[str, Any]


class ScoreTable:
    """Scores of a plan as far as they are made; reads each result once. Not thread-safe."""

    def __init__(self, plan: Plan, store: Store, judge: str | None = None) -> None:
        """Args:
            judge: the label of another judge whose verdicts are in the store; default the sweep's own.

        Raises:
            UserError: when no verdict of that judge is there.
        """
        self.plan, self.store = plan, store
        self.judge = judge or plan.sweep.judge.label
        self._elsewhere: dict[tuple[str, str], Entry] | None = None
        if self.judge != plan.sweep.judge.label:
            self._elsewhere = self._comparisons_of(self.judge)
        self._answers: dict[str, Judged] = {}
        self._scores: dict[str, Score] = {}
        self._quality: dict[str, Quality] = {}
        self._responses: dict[str, Responses] = {}
        self._shares: dict[str, float | None] = {}

    def rows(self, quality: bool = False) -> list[Row]:
        """Every row, in the order of the studies; with ``quality``, the judge's quality measures behind it."""
        for kind in ("comparison", "generation_set"):
            self.store.foresee(kind)
        return [self._row(cell, quality) for cell in self.plan.cells]

    def rows_of(self, model: Model, quality: bool = False) -> list[Row]:
        """The rows of one model."""
        return [self._row(cell, quality) for cell in self.cells_of(model)]

    def cells_of(self, model: Model) -> list[ScoreCell]:
        """The cells behind the rows of one model, in the same order."""
        return [cell for cell in self.plan.cells if cell.model is model]

    def frame(self, quality: bool = False) -> pd.DataFrame:
        """Every row as a DataFrame; with ``quality``, its five columns after the twenty-one."""
        return pd.DataFrame(self.rows(quality), columns=list(columns(quality)))

    def done(self) -> tuple[int, int]:
        """How many rows have a score, of how many."""
        have = sum(row["if_score"] is not None or row["invalid"] not in (None, 0) for row in self.rows())
        return have, len(self.plan.cells)

    def score_of(self, cell: ScoreCell) -> Score | None:
        """A cell's score, or None while its comparison is not made."""
        if cell.comparison is None:
            return DIAGONAL
        key = cell.comparison.key
        if key not in self._scores:
            answers = self.answers(cell)
            if answers is None:
                return None
            self._scores[key] = score(answers)
        return self._scores[key]

    def answers(self, cell: ScoreCell) -> Judged | None:
        """What the judge said of each instruction; None on the diagonal, and while the comparison is not made."""
        if cell.comparison is None:
            return None
        key = cell.comparison.key
        if key not in self._answers:
            entry = self._comparison(cell.comparison)
            if entry is None:
                return None
            path = self.store.file(entry, "verdicts.parquet")
            table = pq.read_table(path, columns=["instruction_id", "order", "choice"])
            self._answers[key] = judged_columns(*table.columns)
        return self._answers[key]

    def quality_of(self, cell: ScoreCell) -> Quality | None:
        """How far a cell's score can be trusted; None on the diagonal, and while the comparison is not made."""
        answers = self.answers(cell)
        if answers is None or cell.comparison is None:
            return None
        key = cell.comparison.key
        if key not in self._quality:
            baseline, model = (self._responses_of(step) for step in cell.comparison.needs[:2])
            self._quality[key] = quality(answers, baseline, model)
        return self._quality[key]

    def _row(self, cell: ScoreCell, with_quality: bool = False) -> Row:
        listed = cell.row.listed
        row: Row = dict.fromkeys(columns(with_quality))
        row |= {
            "study": listed.study,
            "model": cell.name,
            "model_key": cell.model.key,
            "train_languages": "+".join(listed.rule.languages),
            "percent": listed.percent,
            "count": listed.count,
            "seed": cell.model.seed,
            "eval_language": cell.row.language,
            "seen": cell.row.seen,
            "baseline": BASE if cell.baseline.rule is None else cell.baseline.name,
            "judge": self.judge,
        }
        result = self.score_of(cell)
        if result is not None:
            row |= result.as_dict()
            row["in_language_share"] = self._share(cell.generation_set)
        measures = self.quality_of(cell) if with_quality else None
        if measures is not None:
            row |= measures.as_dict()
        return row

    def _comparison(self, comparison: Step) -> Entry | None:
        if self._elsewhere is None:
            return self.store.glance("comparison", comparison.key)
        return self._elsewhere.get((comparison.payload["baseline"], comparison.payload["model"]))

    def _comparisons_of(self, judge: str) -> dict[tuple[str, str], Entry]:
        entries = self.store.entries("comparison").values()
        found = {
            (entry.manifest["payload"]["baseline"], entry.manifest["payload"]["model"]): entry
            for entry in entries
            if entry.facts.get("judge") == judge
        }
        if not found:
            known = sorted({str(entry.facts.get("judge")) for entry in entries})
            raise UserError(f"--judge {judge}: the store has no verdicts of it; it has {', '.join(known) or 'none'}.")
        return found

    def _share(self, generation_set: Step) -> float | None:
        if generation_set.key not in self._shares:
            entry = self.store.glance("generation_set", generation_set.key)
            if entry is None:
                return None
            self._shares[generation_set.key] = in_language_share(self.store.file(entry, "responses.parquet"))
        return self._shares[generation_set.key]

    def _responses_of(self, generation_set: Step) -> Responses | None:
        if generation_set.key not in self._responses:
            entry = self.store.glance("generation_set", generation_set.key)
            if entry is None:
                return None
            self._responses[generation_set.key] = read_responses(self.store.file(entry, "responses.parquet"))
        return self._responses[generation_set.key]


def columns(quality: bool = False) -> tuple[str, ...]:
    """The table's columns: the twenty-one, and the measures of quality where they are asked for."""
    return (*COLUMNS, *QUALITY_COLUMNS) if quality else COLUMNS


def in_language_share(responses: Path) -> float | None:
    """Share of a response set that is in its prompt's language, over the responses long enough to tell."""
    flags = pq.read_table(responses, columns=["in_language"])["in_language"]
    told = flags.drop_null().to_numpy()
    return float(told.mean()) if len(told) else None


def as_csv(rows: Iterable[Row], names: tuple[str, ...] = COLUMNS) -> str:
    """Rows as CSV with a header; missing values empty, booleans true and false."""
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(row[name]) for name in names})
    return out.getvalue()


def write_tables(tables: Mapping[str, tuple[Path, str]]) -> None:
    """Write tables where the user said: option -> file and text. Files that were not there are, all or none.

    Raises:
        UserError: a file cannot be written, or is named twice; the option that named it is said.
    """
    made: list[Path] = []
    told: dict[Path, str] = {}
    for option, (path, text) in tables.items():
        try:
            if (same := told.setdefault(path.resolve(), option)) != option:
                raise UserError(f"{option} {path}: is the file of {same} too; name another file.")
            made += [] if path.exists() else [path]
            path.write_text(text, encoding="utf-8")
        except (OSError, UserError) as problem:
            for one in made:
                one.unlink(missing_ok=True)
            if isinstance(problem, UserError):
                raise
            raise UserError(f"{option} {path}: cannot be written ({problem.strerror}); name another file.") from None


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return round(value, 6) if isinstance(value, float) else value
