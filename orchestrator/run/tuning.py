"""Fine-tunes under Ray Tune: a searcher that claims them, and trials that run them on a resident lane.

A fixed grid could not skip what another session holds, so Tune asks a :class:`Searcher`: `suggest` claims the next
fine-tune from the board, returns None to wait, and FINISHED when nothing is left. The trial is a class Trainable
with ``reuse_actors``: its lane (one Ray Train worker group) stays up and takes one fine-tune after another, so a
fine-tune costs its steps and not a cold start. A lane in which a fine-tune failed is torn down. While the base is still
being made, the first trials bring the lanes up and end when there is something to tune.

Tune's own state is not kept: the store says what is done.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from orchestrator.identity import Step
from orchestrator.plan import Model, Plan
from orchestrator.run.board import Board, State
from orchestrator.run.jobs import Place
from orchestrator.run.staging import EXAMPLES_FILE, StoreStaging, order
from trainables.errors import EnvironmentProblem, StepFailed, UserError
from trainables.parallel import Parallel

SILENCE = 1800.0
"""Seconds a fine-tune may say nothing before its lane is given up."""
LOOK_EVERY = 0.5
"""Seconds between two looks for the base."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What every fine-tune of a run has in common; nothing here is part of a key."""

    place: Place
    base: str
    template: str
    workers: int
    use_gpu: bool
    cpus_per_worker: float
    threads: int
    parallel: Parallel


class FineTuneTrial(tune.Trainable):
    """One lane, and the fine-tune it is on. A training iteration of Tune is one report of the lane."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], settings: LaneSettings, recipe: Any, steps: dict[str, Step], staging: StoreStaging
    ) -> None:
        self._settings, self._recipe, self._steps, self._staging = settings, recipe, steps, staging
        self._lane: Any = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._key = config["key"]
        self._begun = False

    def step(self) -> dict[str, Any]:
        """One report of the lane, or the end of the fine-tune; ``step`` is always there, Tune insists on its metric."""
        return {"key": self._key, "step": 0, "done": False, **(self._next() if self._key else self._wait())}

    def _wait(self) -> dict[str, Any]:
        """Bring the lane up, then look for the base now and then; done when it is there, or never will be.

        A lane that does not come up is no matter here: the fine-tune that needs it tries again, and says why.
        """
        from trainables.lane import LaneDied

        store = self._settings.place.open()
        try:
            self._bring_up()
        except LaneDied:
            self._tear_down()
            return {"done": True}
        base = self._settings.base
        if store.find("base", base) is None and base not in store.failures():
            time.sleep(LOOK_EVERY)
            return {}
        return {"done": True}

    def _next(self) -> dict[str, Any]:
        from trainables.lane import LaneDied

        try:
            if not self._begun:
                self._begin(self._steps[self._key])
            message = self._lane.next_report(timeout=SILENCE)
            if message is None:
                raise LaneDied(f"no word from the lane for {SILENCE:.0f} s")
            if message["kind"] == "report":
                return message["report"]
            return {"done": True, "published": True, "step": self._recipe.steps}
        except (StepFailed, UserError) as problem:
            self._tear_down()
            return {"done": True, "failed": str(problem)}
        except (EnvironmentProblem, OSError) as problem:
            self._tear_down()
            return {"done": True, "broken": str(problem)}
        except LaneDied as problem:
            self._tear_down()
            return {"done": True, "lost": str(problem)}

    def _begin(self, step: Step) -> None:
        """Hand the fine-tune to the lane, by names: its workers may be on other machines."""
        from trainables.finetune import FineTuneJob

        settings = self._settings
        self._bring_up()
        job = FineTuneJob(
            name=step.name,
            base=Path(settings.base),
            examples=Path(EXAMPLES_FILE),
            recipe=self._recipe,
            seed=int(step.payload["seed"]),
            template=settings.template,
            out=Path(step.folder),
            resume=True,
            parallel=settings.parallel,
        )
        self._lane.submit(job)
        self._begun = True

    def _bring_up(self) -> None:
        """Raises LaneDied when the lane cannot be started; does nothing when it is up."""
        from trainables.lane import Lane

        settings = self._settings
        if self._lane is None:
            self._lane = Lane(
                workers=settings.workers,
                use_gpu=settings.use_gpu,
                resources={"CPU": settings.cpus_per_worker},
                env={"OMP_NUM_THREADS": str(settings.threads)},
                staging=self._staging,
            )
            self._lane.start()

    def _tear_down(self) -> None:
        if self._lane is not None:
            self._lane.stop()
            self._lane = None

    def cleanup(self) -> None:
        self._tear_down()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are the lane's, in the attempt's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see above."""


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
        lanes: int,
        prepare: Callable[[Model], None],
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(metric="step", mode="max")
        self._plan, self._board, self._prepare, self._report = plan, board, prepare, report
        self._to_bring_up = min(lanes, board.counts("fine_tune")[State.TODO])
        self._models = {model.fine_tune.key: model for model in plan.models if model.fine_tune}
        self._baselines = plan.baseline_keys()
        self._trials: dict[str, Step] = {}
        _LIVE[id(self)] = self

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return _live, (id(self),)

    def suggest(self, trial_id: str) -> Any:
        if self._board.stopping.is_set() or not self._board.unfinished():
            return Searcher.FINISHED
        if self._board.state(self._plan.base) is not State.DONE:
            if not self._to_bring_up:
                return None
            self._to_bring_up -= 1
            return {"key": "", "name": "lane"}
        step = self._board.claim("fine_tune", prefer=lambda step: 0 if step.key in self._baselines else 1)
        if step is None:
            return None
        try:
            self._prepare(self._models[step.key])
        except OSError as problem:
            self._board.lost(step, str(problem))
            return None
        self._trials[trial_id] = step
        return {"key": step.key, "name": step.name}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self._report(result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        step = self._trials.pop(trial_id, None)
        if step is None:
            return
        result = result or {}
        if result.get("failed"):
            self._board.failed(step, str(result["failed"]))
        elif result.get("broken"):
            self._board.give_up(step, str(result["broken"]))
        elif result.get("published") and self._board.store.find("fine_tune", step.key) is not None:
            self._board.done(step)
        else:
            self._board.reopen()  # what it needed may have been quarantined
            self._board.lost(step, str(result.get("lost") or "its trial died"))

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
        lanes: int,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.plan, self.board, self.settings, self.lanes, self.report = plan, board, settings, lanes, report
        self.error: BaseException | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="pinch-tune-"))
        self._thread = threading.Thread(target=self._run, name="pinch-tuning", daemon=True)

    def start(self) -> None:
        self._thread.start()

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
        steps = {step.key: step for step in self.plan.of_kind("fine_tune")}
        settings = self.settings
        staging = StoreStaging(settings.place, settings.base, {step.folder: step for step in steps.values()})
        trainable = tune.with_parameters(
            FineTuneTrial, settings=settings, recipe=self.plan.sweep.recipe, steps=steps, staging=staging
        )
        # The lane's worker group has a placement group of its own, which Tune does not see.
        trainable = tune.with_resources(trainable, {"cpu": 0.01})
        prepare = partial(order, self.board.store, self.plan)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ClaimingSearcher(self.plan, self.board, self.lanes, prepare, self.report),
                num_samples=-1,
                max_concurrent_trials=self.lanes,
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
