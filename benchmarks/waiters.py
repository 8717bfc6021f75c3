"""Stand-ins for lanes, engines and judges: they hold their GPUs, wait, and publish empty results.

Apart from who uses them, for each is a process of its own, and what that has to import is no work of the sweep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import ray

from orchestrator.identity import Step
from orchestrator.run.jobs import Place
from orchestrator.store import Store


@ray.remote(num_cpus=0)
class Waiter:
    """An engine or a judge that waits; ``seconds`` are of each step, by its key."""

    def __init__(self, seconds: Mapping[str, float], swap: float) -> None:
        self._seconds, self._swap, self._loaded = seconds, swap, ""

    def start(self, seconds: float) -> str:
        time.sleep(seconds)
        return "it waits"

    def generate(self, place: Place, job: Any) -> None:
        if job.weights.name != self._loaded:
            time.sleep(self._swap)
            self._loaded = job.weights.name
        self.compare(place, job)

    select = generate

    def compare(self, place: Place, job: Any) -> None:
        time.sleep(self._seconds[job.step.key])
        publish(place.open(), job.step)


@ray.remote(num_cpus=0)
class WaitingLane:
    """A lane that waits, seen from outside as `orchestrator.run.trial.LaneActor` is."""

    def __init__(self, seconds: Mapping[str, float], place: Place, steps: Mapping[str, Step]) -> None:
        """``steps``: the fine-tunes, by folder."""
        self._seconds, self._place, self._steps = seconds, place, steps

    def start(self, seconds: float) -> str:
        time.sleep(seconds)
        return "it waits"

    def submit(self, job: Any) -> None:
        self._step = self._steps[job.out.name]

    def next_report(self, timeout: float) -> dict[str, Any]:
        time.sleep(self._seconds[self._step.name])
        publish(self._place.open(), self._step)
        return {"kind": "done", "facts": {}}

    def stop(self) -> None:
        pass


def publish(store: Store, step: Step) -> None:
    """An empty result."""
    store.publish(step, store.attempt(step), {})
