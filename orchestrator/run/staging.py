"""A fine-tune's files between the store and the machine it runs on: inputs come, states are saved, the result goes.

What an interrupted try left behind is gone on from, on whatever machine the next one runs.

This runs inside a lane's workers.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.identity import Step
from orchestrator.plan import Model, Plan
from orchestrator.run.jobs import Place, entry_of, training_rows
from orchestrator.storage import StorageAway, TakenOver
from orchestrator.storage.base import as_json
from orchestrator.store import Corrupt, Store
from trainables.errors import EnvironmentProblem, LaneDied, StepFailed, UserError
from trainables.job import FineTuneJob

MIXTURE_FILE = "mixture.parquet"
EXAMPLES_FILE = "examples.parquet"
SAVE_EVERY = 30.0
"""Seconds between two looks for a state that is to outlive the machine."""

logger = logging.getLogger(__name__)


def order(store: Store, plan: Plan, model: Model) -> None:
    """Put down what a fine-tune is to be tuned on, for the machine that begins it; examples are named, not copied."""
    assert model.fine_tune is not None and model.mixture is not None
    told = {
        "assignment": dict(model.mixture.assignment),
        "dev": [key for key in model.mixture.assignment if key in plan.dev],
        "corpora": {code: plan.corpora[code].key for code in model.mixture.languages},
    }
    store.storage.write(_order(model.fine_tune), as_json(told))


def _order(step: Step) -> str:
    return f"orders/{step.folder}.json"


class StoreStaging:
    """A `trainables.staging.Staging` over a store. Jobs come with names: ``out`` is a step's folder, ``base`` a key."""

    def __init__(self, place: Place, base: str, steps: Mapping[str, Step]) -> None:
        """Args:
        steps: the fine-tunes there are, by folder.
        """
        self._place, self._base, self._steps = place, base, steps

    def begin(self, job: FineTuneJob) -> FineTuneJob:
        store, step = self._place.open(), self._steps[job.out.name]
        told = json.loads(store.storage.read(_order(step)) or b"null")
        if told is None:
            raise LaneDied(f"nothing says what {step.name} is to be tuned on: it was published by another session")
        assignment, dev = told["assignment"], set(told["dev"])
        with _corrupt_is_no_failure():
            out = store.adopt(step) or store.attempt(step)
            trained = {key: code for key, code in assignment.items() if key not in dev}
            training_rows(store, told["corpora"], trained, out / EXAMPLES_FILE)
        rows = sorted(assignment.items())
        table = {
            "id": [key for key, _ in rows],
            "language": [code for _, code in rows],
            "dev": [key in dev for key, _ in rows],
        }
        pq.write_table(pa.table(table), out / MIXTURE_FILE)
        store.save(out)
        return job.model_copy(update={"out": out})

    def bring(self, job: FineTuneJob) -> FineTuneJob:
        store = self._place.open()
        out = store.storage.here(job.out.name)
        with _corrupt_is_no_failure():
            base = store.use(entry_of(store, "base", self._base))
        return job.model_copy(update={"out": out, "examples": out / EXAMPLES_FILE, "base": base})

    @contextlib.contextmanager
    def saving(self, job: FineTuneJob) -> Iterator[None]:
        store, over = self._place.open(), threading.Event()

        def save() -> None:
            while not over.wait(SAVE_EVERY):
                try:
                    store.save(job.out)
                except (OSError, TakenOver) as problem:  # publishing will tell if it is still so then
                    logger.warning("a state of %s could not be saved: %s", job.name, problem)

        saver = threading.Thread(target=save, name="pinch-saver", daemon=True)
        saver.start()
        try:
            yield
        finally:
            over.set()
            saver.join()

    def publish(self, job: FineTuneJob, facts: dict[str, Any]) -> None:
        store, step = self._place.open(), self._steps[job.out.name.rpartition(".")[0]]
        (job.out / EXAMPLES_FILE).unlink(missing_ok=True)
        try:
            store.publish(step, job.out, facts)
        except TakenOver as problem:
            raise LaneDied(str(problem)) from problem
        store.storage.remove(_order(step))

    def failed(self, job: FineTuneJob, problem: BaseException) -> None:
        """A step that failed for good goes; a full disk is given its room back; everything else is gone on from."""
        full = isinstance(problem, OSError | EnvironmentProblem) and not isinstance(problem, StorageAway)
        if full or isinstance(problem, StepFailed | UserError):
            self._place.open().discard(job.out)


@contextlib.contextmanager
def _corrupt_is_no_failure() -> Iterator[None]:
    """An input that was quarantined is made again, and the fine-tune tried again: as after a lane that died."""
    try:
        yield
    except Corrupt as problem:
        raise LaneDied(str(problem)) from problem
