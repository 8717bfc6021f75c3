"""Fine-tunes under Ray Tune: a searcher that claims them for the lanes that are free.

A fixed grid could not skip what another session holds, so Tune asks a :class:`Searcher`: `suggest` claims the next
fine-tune from the board when a lane is free for it, returns None to wait, and FINISHED when nothing is left. While the
base is still being made, the first trial only starts its own process.

Tune's own state is not kept: the store says what is done.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.plan import Model, Plan
from orchestrator.run.agenda import Order
from orchestrator.run.board import Board, State
from orchestrator.run.crew import Crew, Member, Post
from orchestrator.run.gpus import HEAD
from orchestrator.run.placement import Demand, Role, Seat, Size
from orchestrator.run.staging import StoreStaging, order
from orchestrator.run.trial import FineTuneTrial, LaneActor, LaneSettings
from trainables.errors import EnvironmentProblem

AT_ONCE = 256
"""Fine-tunes under way at once; each has a process of Tune's."""


class Lanes(Protocol):
    """Where a searcher gets lanes from; the crew."""

    def take(self, role: Role) -> Member | None: ...

    def give_back(self, member: Member, sound: bool = True) -> None: ...

    def on_lost_node(self, member: Member) -> bool: ...


_LIVE: weakref.WeakValueDictionary[int, ClaimingSearcher] = weakref.WeakValueDictionary()


def _live(number: int) -> ClaimingSearcher:
    return _LIVE[number]


class ClaimingSearcher(Searcher):
    """Asks the board for the next fine-tune whenever Tune has room for one.

    Tune pickles what it is given into its own records; this object is its threads and locks, so a copy made in this
    process is the object itself, and nowhere else is there one.
    """

    def __init__(
        self,
        plan: Plan,
        board: Board,
        lanes: Lanes,
        prepare: Callable[[Model], None],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(metric="step", mode="max")
        self._plan, self._board, self._lanes, self._prepare, self._report = plan, board, lanes, prepare, report
        self._started_early = False
        self._models = {model.fine_tune.key: model for model in plan.models if model.fine_tune}
        self._order = Order.of(plan)
        self._trials: dict[str, Member] = {}
        _LIVE[id(self)] = self

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return _live, (id(self),)

    def suggest(self, trial_id: str) -> Any:
        if self._board.stopping.is_set() or not self._board.unfinished():
            return Searcher.FINISHED
        if self._board.state(self._plan.base) is not State.DONE:
            if self._started_early:
                return None
            self._started_early = True
            return {"key": "", "lane": ""}
        lane = self._lanes.take(Role.LANE)
        if lane is None:
            return None
        step = self._order.next(self._board.claim, Role.LANE)
        if step is None:
            self._lanes.give_back(lane)
            return None
        try:
            self._prepare(self._models[step.key])
        except Exception as problem:  # noqa: BLE001  (whatever it is, the step goes back to the board)
            self._lanes.give_back(lane)
            self._board.lost(step, str(problem))
            return None
        lane.step = step
        self._trials[trial_id] = lane
        return {"key": step.key, "lane": lane.name}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        lane = self._trials.pop(trial_id, None)
        if lane is None:
            return
        step, result = lane.step, result or {}
        blameless = self._lanes.on_lost_node(lane)
        self._lanes.give_back(lane, sound=bool(result.get("published")))
        if result.get("failed"):
            self._board.failed(step, str(result["failed"]))
        elif result.get("broken"):
            self._board.give_up(step, str(result["broken"]))
        elif result.get("published") and self._board.store.find("fine_tune", step.key) is not None:
            self._board.done(step)
        else:
            self._board.reopen()  # what it needed may have been quarantined
            why = str(result.get("lost") or "its trial died")
            self._report({"key": step.key, "lost": why})
            self._board.lost(step, why, blameless)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the store says what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see above."""


class Tuning:
    """Ray Tune in a thread of its own, so that evaluation goes on beside it."""

    def __init__(
        self,
        plan: Plan,
        board: Board,
        settings: LaneSettings,
        crew: Crew,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.plan, self.board, self.settings, self.crew, self.report = plan, board, settings, crew, report
        self.error: BaseException | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="pinch-tune-"))
        self._thread = threading.Thread(target=self._run, name="pinch-tuning", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, size: Callable[[], Size | None]) -> Post:
        """How the crew brings lanes up."""
        in_order = Order.of(self.plan)

        def demand() -> Demand:
            found = self.board.demand(Role.LANE, in_order.model_of)
            # Without GPUs it comes up while the base is made; GPUs are not held before there is a fine-tune for them.
            return dataclasses.replace(found, soon=0 if self.crew.uses_gpus else min(1, found.left))

        return Post(
            size=size, hire=self._hire, demand=demand, give_up=self._give_up, told=self.crew.uses_gpus, gently=True
        )

    def _hire(self, name: str, seat: Seat) -> tuple[Any, Any]:
        options: dict[str, Any] = {"name": name, "max_concurrency": 2}
        if seat:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(seat[0][0], soft=False)
        actor: Any = LaneActor.options(**options).remote()  # type: ignore[attr-defined]
        return actor, actor.start.remote(self.settings, seat, self._staging)

    @cached_property
    def _staging(self) -> Any:
        """Where every lane finds how its workers come by files; put down once, as it names every fine-tune."""
        steps = {step.folder: step for step in self.plan.of_kind("fine_tune")}
        return ray.put(StoreStaging(self.settings.place, self.settings.base, steps))

    def _prepare(self, model: Model) -> None:
        order(self.board.store, self.plan, model)

    def _give_up(self, why: str) -> None:
        while step := self.board.claim("fine_tune"):
            self.board.lost(step, why)

    def check(self) -> None:
        """Raises EnvironmentProblem when Tune ended by itself, which it never should while there is work."""
        if self._thread.ident is not None and not self._thread.is_alive() and self.board.unfinished("fine_tune"):
            raise EnvironmentProblem(f"Ray Tune stopped before the fine-tunes were done: {self.error}") from self.error

    @property
    def started(self) -> bool:
        return self._thread.ident is not None

    def join(self, timeout: float) -> None:
        """Wait for Tune to end, then drop its scratch folder."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _run(self) -> None:
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        # Tune would send its trials the keys of AWS, and Ray writes what is sent into a log; a machine has its own.
        ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
        steps = {step.key: step for step in self.plan.of_kind("fine_tune")}
        trainable = tune.with_parameters(
            FineTuneTrial, settings=self.settings, recipe=self.plan.sweep.recipe, steps=steps
        )
        # What a fine-tune takes is its lane's, which Tune does not see. The head outlives other nodes.
        trainable = tune.with_resources(trainable, {"cpu": 0, HEAD: 0.001})
        searcher = ClaimingSearcher(self.plan, self.board, self.crew, self._prepare, self.report)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=min(AT_ONCE, len(steps)) if self.crew.uses_gpus else 1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(self._scratch),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        try:
            tuner.fit()
        except BaseException as problem:  # noqa: BLE001  (handed to the session, which is another thread)
            self.error = problem
