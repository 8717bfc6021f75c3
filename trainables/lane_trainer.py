"""A TorchTrainer that can be ended from outside while it waits for room.

A Train run's GPUs are in a placement group that its controller makes, and that outlives the controller when that is
killed: Ray gives it back when the whole job ends (2.60; its own cleaner for this needs a dashboard, and knows nothing
of groups that still wait). So a run is never killed but told to abort, and for that its controller has to be known.
While it waits for room it hears nothing, but it gives up for a moment now and then: there it looks whether its queue,
which goes with the lane, is still there.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import ControllerCallback

_ANSWERS_WITHIN = 60.0
"""Seconds a queue that is there has to answer."""


class _Link(ControllerCallback):
    """Puts the controller's handle into a queue, and ends the run when that is gone; runs in the controller."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def after_controller_start(self, train_run_context: Any) -> None:
        me = ray.get_runtime_context().current_actor
        self._queue.actor.put.remote({"kind": "controller", "controller": me})

    def before_controller_execute_resize_decision(self, resize_decision: Any) -> None:
        try:
            ray.get(self._queue.actor.qsize.remote(), timeout=_ANSWERS_WITHIN)
        except (RayActorError, GetTimeoutError) as gone:
            raise RuntimeError("the lane was stopped") from gone


class LaneTrainer(TorchTrainer):
    """Says ``{"kind": "controller", "controller": ...}`` on a queue as soon as it runs."""

    def __init__(self, *arguments: Any, queue: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._queue = queue

    def _create_default_callbacks(self) -> list[Any]:
        return [*super()._create_default_callbacks(), _Link(self._queue)]  # type: ignore[misc]
