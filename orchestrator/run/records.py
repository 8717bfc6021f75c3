"""What a run tells its tracker: each model with its scores and curves, the sweep with its counts.

It reads results from the store, so that the next session can tell what this one could not; see
`orchestrator.tracking` for how it is sent.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from orchestrator import corpus_card
from orchestrator.corpus_card import CorpusCards
from orchestrator.identity import Step, key_of
from orchestrator.keeping import remembered
from orchestrator.kept_report import REPORTS, kept_report
from orchestrator.mlflow_runs import STORE_ID
from orchestrator.people.side_by_side import RULE, Chosen, as_table
from orchestrator.plan import Model, Plan
from orchestrator.run.board import Board, State
from orchestrator.scores.score_table import COLUMNS, ScoreTable
from orchestrator.store import Store, write_json
from orchestrator.tracking import CARD, SAMPLES, ModelRecord, SweepRecord, Tracker

logger = logging.getLogger(__name__)


class Recorder:
    """Keeps MLflow's picture of a sweep in step with the store."""

    def __init__(self, plan: Plan, store: Store, board: Board) -> None:
        self.plan, self.store, self.board = plan, store, board
        _share_name(store)
        self.tracker = Tracker(store.root, plan.sweep.name)
        self.table = ScoreTable(plan, store)
        self._chosen = Chosen(plan, store, self.table)
        self._by_step: dict[str, list[Model]] = {}
        for cell in plan.cells:
            if cell.comparison is not None:
                self._by_step.setdefault(cell.comparison.key, []).append(cell.model)

    def made(self, step: Step) -> None:
        """A step was just published: tell what it changed."""
        self.store.find(step.kind, step.key)
        if step.kind == "comparison":
            for model in dict.fromkeys(self._by_step[step.key]):
                self.model(model)
        elif step.kind in ("fine_tune", "selection"):
            self.model(self.plan.model_of_step[step.key])
        self.sweep()

    def all(self) -> None:
        """Tell everything there is; what MLflow has already is not sent again."""
        for kind in ("fine_tune", "selection", "generation_set", "comparison"):
            self.store.foresee(kind)
        self.sweep()
        for model in self.plan.models:
            self.model(model)

    def sweep(self, headline: str = "", files: Sequence[Path] = ()) -> None:
        counts = {}
        for kind in ("fine_tune", "selection", "generation_set", "comparison"):
            states = self.board.counts(kind)
            counts[kind] = (states[State.DONE], sum(states.values()))
        self.tracker.sync_sweep(
            SweepRecord(
                base=self.plan.base_source.label,
                judge=self.plan.sweep.judge.label,
                counts=counts,
                description=headline,
                files=files,
            )
        )

    def model(self, model: Model) -> None:
        if model.fine_tune is None or model.rule is None:
            return
        fine_tune = self.store.glance("fine_tune", model.fine_tune.key)
        if fine_tune is None:
            return
        rows = self.table.rows_of(model)
        curve = pq.read_table(self.store.file(fine_tune, "curve.parquet")).to_pandas()
        selection = self.store.glance("selection", model.weights.key)
        dev = None
        if selection is not None:
            scores = json.loads(self.store.file(selection, "scores.json").read_text())["scores"]
            dev = {int(row["step"]): float(row["rouge_l"]) for row in scores}
        pinch = next(
            (cell.row.listed for cell in self.plan.cells if cell.model is model and cell.row.listed.kind == "pinch"),
            None,
        )
        finished = all(row["if_score"] is not None for row in rows)
        card = self._card(model)
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
            state="FINISHED" if finished else "RUNNING",
            files=(self._samples(model), *([card] if card.is_file() else [])) if finished else (),
        )
        self.tracker.sync_model(record, pd.DataFrame(rows, columns=list(COLUMNS)), curve, dev)

    def _samples(self, model: Model) -> Path:
        """The model's responses side by side with its baselines', written if they are not there yet."""
        cells = self.table.cells_of(model)
        judged = sorted({cell.comparison.key for cell in cells if cell.comparison is not None})
        name = f"{model.key[:16]}-{key_of({'rule': RULE, 'judged': judged})[:8]}"
        path = self.store.root / REPORTS / self.plan.sweep.name / "samples" / name / SAMPLES
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, as_table(self._chosen.samples(cells)))
        return path

    def _card(self, model: Model | None) -> Path:
        """Where the card of a model's training set is kept, or the whole sweep's."""
        name = f"{model.key[:16]}-{corpus_card.RESULT_VERSION}" if model else "sweep"
        return self.store.root / REPORTS / self.plan.sweep.name / "cards" / name / CARD

    def _write_cards(self) -> Path:
        """Write the cards that are not there yet and tell their runs; returns the whole sweep's.

        At the end and not model by model: counting the tokens of a large corpus would hold the run up.
        """
        cards = CorpusCards(self.plan, self.store)
        for model in self.plan.models:
            path = self._card(model)
            if (
                model.fine_tune is not None
                and not path.is_file()
                and self.store.glance("fine_tune", model.fine_tune.key)
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, corpus_card.as_table(cards.mixture(model)))
                self.model(model)
        whole = self._card(None)
        whole.parent.mkdir(parents=True, exist_ok=True)
        write_json(whole, corpus_card.as_table(cards.corpus()))
        return whole

    def close(self, status: str, timeout: float = 30.0) -> None:
        """End the sweep's run; one that was not interrupted has its report and corpus cards attached."""
        if status == "FINISHED":
            try:
                report = kept_report(self.plan, self.store)
                self.sweep(report.headline, (*report.files, self._write_cards()))
            except Exception as problem:  # noqa: BLE001 - a picture that cannot be drawn ends no run
                logger.warning("MLflow gets no report (%s); pinch report says more.", problem)
        self.tracker.close(status, timeout=timeout)  # type: ignore[arg-type]


def _share_name(store: Store) -> None:
    """The store has one name among the runs of an MLflow server, on whatever machine it is asked for."""
    here = store.root / STORE_ID
    if store.elsewhere and not here.is_file():
        store.storage.create(STORE_ID, uuid.uuid4().hex.encode())
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(store.storage.read(STORE_ID) or b"")


def tell_here(store: Store) -> None:
    """Have the MLflow database of this machine say what a store elsewhere holds: every sweep that was run on it."""
    for _, plan in remembered(store):
        if plan is None:
            continue
        board = Board(plan.steps, store, lambda step, state: None)
        recorder = Recorder(plan, store, board)
        recorder.all()
        recorder.close("RUNNING" if board.unfinished() else "FINISHED", timeout=300.0)
