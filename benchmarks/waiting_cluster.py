"""A sweep's steps as waits in real Ray, on nodes with GPUs that do not exist: for `benchmarks/schedule.py --ray`.

Everything is the run's own (board, leases, store, crew, Tune and its trials, the evaluation loop) but the work: lanes,
engines and judges are actors that hold their GPUs, wait, and publish empty results.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.cluster_utils import Cluster

from benchmarks.virtual_cluster import ROLE_OF, Times
from benchmarks.waiters import Waiter, WaitingLane, publish
from orchestrator.plan import Model, Plan
from orchestrator.run.board import Board
from orchestrator.run.cluster import QUIET
from orchestrator.run.crew import Crew, on_node
from orchestrator.run.evaluation import Evaluation
from orchestrator.run.gpus import Nodes
from orchestrator.run.jobs import Place
from orchestrator.run.placement import Role, Seat, Size
from orchestrator.run.trial import LaneSettings
from orchestrator.run.tuning import Tuning
from orchestrator.store import Store


class WaitingTuning(Tuning):
    """Fine-tunes that are waited for."""

    seconds: Mapping[str, float]
    start_seconds: float

    def _hire(self, name: str, seat: Seat) -> tuple[Any, Any]:
        steps = {step.folder: step for step in self.plan.of_kind("fine_tune")}
        options = {"name": name, **on_node(seat)}
        actor: Any = WaitingLane.options(**options).remote(self.seconds, self.settings.place, steps)  # type: ignore[attr-defined]
        return actor, actor.start.remote(self.start_seconds)

    def _prepare(self, model: Model) -> None:
        """Nothing: it is not tuned on anything."""


class WaitingEvaluation(Evaluation):
    """Selections, response sets and comparisons that are waited for."""

    seconds: Mapping[str, float]
    start_seconds: Mapping[Role, float]
    swap: float

    def _hire(self, role: Role, name: str, seat: Seat) -> tuple[Any, Any]:
        actor: Any = Waiter.options(name=name, **on_node(seat)).remote(self.seconds, self.swap)  # type: ignore[attr-defined]
        return actor, actor.start.remote(self.start_seconds[role])

    def _hire_engine(self, name: str, seat: Seat) -> tuple[Any, Any]:
        return self._hire(Role.ENGINE, name, seat)

    def _hire_judge(self, name: str, seat: Seat) -> tuple[Any, Any]:
        return self._hire(Role.JUDGE, name, seat)


def run(plan: Plan, shape: list[int], sizes: Mapping[Role, Size], times: Times, speed: float, say: Any) -> float:
    """Schedule a sweep with every wait divided by ``speed``; returns how many of the times' seconds it took."""
    with _started(shape) as root:
        store = Store(str(root / "store"))
        store.create()
        store.sessions.start("benchmark")
        for step in plan.steps:
            if step.kind not in ROLE_OF:
                publish(store, step)
        board = Board(plan.steps, store, lambda step, state: None)
        place = Place(str(store.root), store.sessions.id)
        waits = {step.key: times.of(step) / speed for step in plan.steps if step.kind in ROLE_OF}
        starts = {role: seconds / speed for role, seconds in times.start.items()}
        crew = Crew(Nodes(), lambda sentence: None)
        settings = LaneSettings(
            place=place,
            base=plan.base.key,
            template=plan.template,
            workers=0,
            cpus_per_worker=0,
            threads=1,
            silence=plan.sweep.runtime.silence,
            parallel=plan.sweep.runtime.parallel,
        )
        tuning = WaitingTuning(plan, board, settings, crew, lambda report: None)
        tuning.seconds = {model.fine_tune.name: waits[model.fine_tune.key] for model in plan.models if model.fine_tune}
        tuning.start_seconds = starts[Role.LANE]
        evaluation = WaitingEvaluation(plan, board, place, crew, lambda sentence: None, threads=1)
        evaluation.seconds, evaluation.start_seconds, evaluation.swap = waits, starts, times.swap / speed
        crew.add(Role.LANE, tuning.post(lambda: sizes[Role.LANE]))
        known: Any = SimpleNamespace(engine=lambda: sizes[Role.ENGINE], judge=lambda: sizes[Role.JUDGE])
        for role, post in evaluation.posts(known).items():
            crew.add(role, post)
        began = said = time.monotonic()
        tuning.start()
        while board.unfinished():
            tuning.check()
            evaluation.pump(0.5)
            if time.monotonic() - said > 60:
                said = time.monotonic()
                done = {kind: len([step for step in board.made if step.kind == kind]) for kind in ROLE_OF}
                say(f"  {said - began:.0f} s: {done}")
        took = (time.monotonic() - began) * speed
        board.stopping.set()
        evaluation.stop()
        tuning.join(20)
        crew.stop(5)
        store.sessions.stop()
        if gaps := board.gaps():
            raise RuntimeError(f"{len(gaps)} steps were not made, the first because {gaps[0]}")
        return took


@contextlib.contextmanager
def _started(shape: list[int]) -> Iterator[Path]:
    """A head without GPUs and a node for each of ``shape``; a folder for the store."""
    folder = Path(tempfile.mkdtemp(prefix="pinch-schedule-"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        for gpus in shape:
            cluster.add_node(num_cpus=1, num_gpus=gpus)
        cluster.wait_for_nodes()
        ray.init(
            address=cluster.address,
            namespace="schedule",
            log_to_driver=False,
            runtime_env={"env_vars": QUIET},
        )
        yield folder
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
