"""A fine-tune as a trial of Ray Tune, and the owner of the lane it runs on.

A lane (one Ray Train worker group) is brought up and ended by the crew and takes one fine-tune after another, so a
fine-tune costs its steps and not a cold start; a trial only tells it what to do and hears what it says. A lane in which
a fine-tune failed is ended. What a lost lane has saved stays, and the next try goes on from it.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError

from orchestrator.identity import Step
from orchestrator.run.jobs import Place
from orchestrator.run.placement import Seat
from orchestrator.run.staging import EXAMPLES_FILE
from trainables.errors import EnvironmentProblem, LaneDied, StepFailed, UserError
from trainables.job import FineTuneJob
from trainables.parallel import Parallel
from trainables.staging import Staging

ENDS_WITHIN = 150.0
"""Seconds a lane has to end before its owner is killed."""
LOOK_EVERY = 0.5
"""Seconds between two looks for the base."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaneSettings:
    """What every fine-tune of a run has in common; nothing here is part of a key."""

    place: Place
    base: str
    template: str
    workers: int
    """Of a lane without GPUs."""
    cpus_per_worker: float
    threads: int
    silence: float
    """Seconds a fine-tune may say nothing before its lane is given up."""
    parallel: Parallel


@ray.remote(num_cpus=0)
class LaneActor:
    """Owns one lane. ``start`` must be called, and answered, before anything but ``stop`` is.

    Made with two threads, it can be stopped while it starts; stop it before it is killed, see `lane_trainer`.
    """

    def __init__(self) -> None:
        self._lane: Any = None

    def start(self, settings: LaneSettings, seat: Seat, staging: Staging) -> str:
        """Bring the lane up; returns a sentence about it.

        Args:
            staging: how the lane's workers, wherever they are, come by files and publish.

        Raises:
            LaneDied: it cannot be started.
        """
        from trainables.lane import Lane

        nodes = [node for node, gpus in seat for _ in range(gpus)]
        self._lane = Lane(
            workers=len(nodes) or settings.workers,
            use_gpu=bool(nodes),
            resources={"CPU": settings.cpus_per_worker},
            env={"OMP_NUM_THREADS": str(settings.threads)},
            nodes=nodes,
            staging=staging,
        )
        self._lane.start()
        return f"{self._lane.workers} workers"

    def submit(self, job: Any) -> None:
        self._lane.submit(job)

    def next_report(self, timeout: float) -> dict[str, Any] | None:
        return self._lane.next_report(timeout)

    def stop(self) -> None:
        """End the lane, also while it comes up."""
        if self._lane is not None:
            self._lane.stop()


class FineTuneTrial(tune.Trainable):
    """A fine-tune, as Tune sees it. A training iteration of Tune is one report of the lane."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], settings: LaneSettings, recipe: Any, steps: dict[str, Step]
    ) -> None:
        self._settings, self._recipe, self._steps = settings, recipe, steps
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True

    def _take(self, config: dict[str, Any]) -> None:
        self._key, self._lane_name = config["key"], config["lane"]
        self._lane: Any = None

    def step(self) -> dict[str, Any]:
        """One report of the lane, or the end of the fine-tune; ``step`` is always there, Tune insists on its metric."""
        return {"key": self._key, "step": 0, "done": False, **(self._next() if self._key else self._wait())}

    def _wait(self) -> dict[str, Any]:
        """Look for the base now and then; done when it is there, or never will be."""
        store = self._settings.place.open()
        base = self._settings.base
        if store.find("base", base) is None and base not in store.failures():
            time.sleep(LOOK_EVERY)
            return {}
        return {"done": True}

    def _next(self) -> dict[str, Any]:
        try:
            if self._lane is None:
                self._begin(self._steps[self._key])
            message = self._ask(self._lane.next_report.remote(self._settings.silence))
            if message is None:
                raise LaneDied(f"no word from the lane for {self._settings.silence:.0f} s")
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
            self._tear_down()  # what was saved stays: the next try adopts it
            return {"done": True, "lost": str(problem)}

    def _begin(self, step: Step) -> None:
        """Hand the fine-tune to the lane, by names: its workers may be on other machines."""
        settings = self._settings
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
        try:
            self._lane = ray.get_actor(self._lane_name)
        except ValueError:
            raise LaneDied(f"{self._lane_name} is gone") from None
        self._ask(self._lane.submit.remote(job))

    def _ask(self, answer: Any) -> Any:
        """What the lane answers.

        Raises:
            LaneDied: its owner is gone; or what the lane raises.
        """
        try:
            return ray.get(answer)
        except RayTaskError as problem:
            raise problem.cause from None
        except RayError as problem:
            raise LaneDied(f"the lane's owner is gone: {problem}") from problem

    def _tear_down(self) -> None:
        """End the lane, so that nothing of it still writes; the crew is told by the trial's result."""
        if self._lane is None:
            return
        try:
            ray.get(self._lane.stop.remote(), timeout=ENDS_WITHIN)
        except (RayError, TimeoutError):
            pass  # gone already, or killed now
        ray.kill(self._lane)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: checkpoints are the lane's, in the attempt's folder."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing, see above."""
