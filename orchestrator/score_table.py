"""The score table: one row per (study, model, evaluation language), from what the store holds.

Rows exist whether or not their scores do; what is not there is empty, never a number. Scores of a judge other than
the sweep's own can be asked for as long as its verdicts are in the store.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import pyarrow.parquet as pq

from orchestrator.grids import BASE
from orchestrator.identity import Step
from orchestrator.plan import Model, Plan, ScoreCell
from orchestrator.scoring import DIAGONAL, Score, score
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
        self._scores: dict[str, Score] = {}
        self._shares: dict[str, float | None] = {}

    def rows(self) -> list[Row]:
        """Every row, in the order of the studies."""
        return [self._row(cell) for cell in self.plan.cells]

    def rows_of(self, model: Model) -> list[Row]:
        """The rows of one model."""
        return [self._row(cell) for cell in self.plan.cells if cell.model is model]

    def done(self) -> tuple[int, int]:
        """How many rows have a score, of how many."""
        have = sum(row["if_score"] is not None or row["invalid"] not in (None, 0) for row in self.rows())
        return have, len(self.plan.cells)

    def score_of(self, cell: ScoreCell) -> Score | None:
        """A cell's score, or None while its comparison is not made."""
        return DIAGONAL if cell.comparison is None else self._score(cell.comparison)

    def _row(self, cell: ScoreCell) -> Row:
        listed = cell.row.listed
        row: Row = dict.fromkeys(COLUMNS)
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
        return row

    def _score(self, comparison: Step) -> Score | None:
        if comparison.key not in self._scores:
            if self._elsewhere is None:
                entry = self.store.find("comparison", comparison.key)
            else:
                entry = self._elsewhere.get((comparison.payload["baseline"], comparison.payload["model"]))
            if entry is None:
                return None
            table = pq.read_table(entry.path / "verdicts.parquet", columns=["instruction_id", "order", "choice"])
            columns = table.to_pydict()
            self._scores[comparison.key] = score(
                zip(columns["instruction_id"], columns["order"], columns["choice"], strict=True)
            )
        return self._scores[comparison.key]

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
            entry = self.store.find("generation_set", generation_set.key)
            if entry is None:
                return None
            self._shares[generation_set.key] = in_language_share(entry)
        return self._shares[generation_set.key]


def in_language_share(entry: Entry) -> float | None:
    """Share of a response set that is in its prompt's language, over the responses long enough to tell."""
    flags = pq.read_table(entry.path / "responses.parquet", columns=["in_language"])["in_language"].to_pylist()
    told = [flag for flag in flags if flag is not None]
    return sum(told) / len(told) if told else None


def as_csv(rows: list[Row]) -> str:
    """The table as CSV with a header; missing values empty, booleans true and false."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(row[name]) for name in COLUMNS})
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return round(value, 6) if isinstance(value, float) else value
