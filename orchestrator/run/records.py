"""What a run tells its tracker: each model with its scores and curves, the sweep with its counts.

It reads results from the store, so that the next session can tell what this one could not; see
`orchestrator.tracking` for how it is sent.
"""

from __future__ import annotations

import json

import pandas as pd
import pyarrow.parquet as pq

from orchestrator.identity import Step
from orchestrator.plan import Model, Plan
from orchestrator.run.board import Board, State
from orchestrator.score_table import COLUMNS, ScoreTable
from orchestrator.store import Store
from orchestrator.tracking import ModelRecord, SweepRecord, Tracker


class Recorder:
    """Keeps MLflow's picture of a sweep in step with the store."""

    def __init__(self, plan: Plan, store: Store, board: Board) -> None:
        self.plan, self.store, self.board = plan, store, board
        self.tracker = Tracker(store.root, plan.sweep.name)
        self.table = ScoreTable(plan, store)
        self._by_step: dict[str, list[Model]] = {}
        for cell in plan.cells:
            if cell.comparison is not None:
                self._by_step.setdefault(cell.comparison.key, []).append(cell.model)

    def made(self, step: Step) -> None:
        """A step was just published: tell what it changed."""
        if step.kind == "comparison":
            for model in dict.fromkeys(self._by_step[step.key]):
                self.model(model)
        elif step.kind in ("fine_tune", "selection"):
            self.model(self.plan.model_of_step[step.key])
        self.sweep()

    def all(self) -> None:
        """Tell everything there is; what MLflow has already is not sent again."""
        self.sweep()
        for model in self.plan.models:
            self.model(model)

    def sweep(self) -> None:
        counts = {}
        for kind in ("fine_tune", "selection", "generation_set", "comparison"):
            states = self.board.counts(kind)
            counts[kind] = (states[State.DONE], sum(states.values()))
        self.tracker.sync_sweep(
            SweepRecord(base=self.plan.base_source.label, judge=self.plan.sweep.judge.label, counts=counts)
        )

    def model(self, model: Model) -> None:
        if model.fine_tune is None or model.rule is None:
            return
        fine_tune = self.store.find("fine_tune", model.fine_tune.key)
        if fine_tune is None:
            return
        rows = self.table.rows_of(model)
        curve = pq.read_table(fine_tune.path / "curve.parquet").to_pandas()
        selection = self.store.find("selection", model.weights.key)
        dev = None
        if selection is not None:
            scores = json.loads((selection.path / "scores.json").read_text())["scores"]
            dev = {int(row["step"]): float(row["rouge_l"]) for row in scores}
        pinch = next(
            (cell.row.listed for cell in self.plan.cells if cell.model is model and cell.row.listed.kind == "pinch"),
            None,
        )
        record = ModelRecord(
            key=model.key,
            name=model.name,
            mixture=dict(model.rule.counts),
            studies=model.studies,
            base=self.plan.base_source.label,
            judge=self.plan.sweep.judge.label,
            recipe=self.plan.sweep.recipe.identity(),
            percent=pinch.percent if pinch else None,
            count=pinch.count if pinch else None,
            seed=model.seed or 0,
            state="FINISHED" if all(row["if_score"] is not None for row in rows) else "RUNNING",
        )
        self.tracker.sync_model(record, pd.DataFrame(rows, columns=list(COLUMNS)), curve, dev)

    def close(self, status: str, timeout: float = 30.0) -> None:
        """End the sweep's run."""
        self.tracker.close(status, timeout=timeout)  # type: ignore[arg-type]
