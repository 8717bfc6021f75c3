"""A lane: one Ray Train worker group that stays up and tunes one model after another.

Starting a worker group with torch, transformers and DeepSpeed in it takes about twenty seconds, a small fine-tune
less. So a lane starts its workers once (a TorchTrainer, whose loop takes jobs from a queue) and a fine-tune costs its
steps. The first worker reads a job and broadcasts it, all run it together, reports come back on a second queue.

A lane holds no state worth saving. After a failed job it is poisoned, for nobody knows what the failure left in
its workers: the owner stops it and starts another. Every wait here has a deadline, and the owner of a lane is
told of a dead worker instead of waiting for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainables.errors import EnvironmentProblem, LaneDied, StepFailed, UserError, cut
from trainables.finetune import finetune
from trainables.job import FineTuneJob
from trainables.staging import Staging

logger = logging.getLogger(__name__)

NODE_ID = "ray.io/node-id"
"""A label that Ray gives every node."""
_POLL_SECONDS = 0.5
_IDLE_SECONDS = 5.0
_NOTHING, _STOP = "nothing", "stop"
"""What the first worker tells the others instead of a job, which is JSON."""
_INTRODUCED_WITHIN = 60.0
"""Seconds in which a Train run that was just started says who leads it; before, it cannot be told to end."""
_ENDS_WITHIN = 90.0
"""Seconds in which it then ends: it hears nothing while its workers import what they need."""
_ROOM_WITHIN = 10
"""Seconds after which a run that waits for room asks for it anew; no room is held for it in between."""
_INFRASTRUCTURE = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|CUDA (driver )?error", re.IGNORECASE)
_KINDS: dict[str, type[Exception]] = {error.__name__: error for error in (StepFailed, UserError, EnvironmentProblem)}


class Lane:
    """A resident worker group. Not thread-safe, but for ``stop``, which may be called while another waits; one job at a
    time.

    ``workers``: processes. ``use_gpu``: one GPU each, NCCL between them; otherwise gloo on the CPU. ``resources``:
    what each worker takes in Ray (default one CPU). ``env``: environment variables of the workers. ``nodes``: the id
    of the Ray node of each worker; empty leaves that to Ray. ``staging``: turns the names in jobs into files where the
    workers are.
    ``start_deadline``: seconds to become ready, placement and imports included.
    """

    def __init__(
        self,
        workers: int = 1,
        use_gpu: bool = False,
        resources: Mapping[str, float] | None = None,
        env: Mapping[str, str] | None = None,
        *,
        nodes: Sequence[str] = (),
        staging: Staging | None = None,
        start_deadline: float = 300.0,
    ) -> None:
        self.workers, self.use_gpu = workers, use_gpu
        self.resources = dict(resources or {"CPU": 1})
        self.env = dict(env or {})
        self.nodes = list(nodes)
        self.staging = staging
        self.start_deadline = start_deadline
        self.poisoned = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._running = False
        self._controller: Any = None
        self._ready: dict[int, Any] = {}
        self.pids: dict[int, int] = {}
        self.placed: dict[int, str] = {}
        """Rank -> id of the node its worker runs on."""

    def start(self) -> None:
        """Start the workers and wait until all of them are ready.

        Raises:
            LaneDied: they were not ready within ``start_deadline``, or could not start; the lane is stopped.
        """
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_ROOM_WITHIN))
        self._storage = Path(tempfile.mkdtemp(prefix="pinch-lane-"))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": here}  # elsewhere they would be lost with another's node
        self._jobs, self._reports = Queue(actor_options=options), Queue(actor_options=options)
        self._thread = threading.Thread(target=self._fit, name="lane", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + self.start_deadline
        try:
            while len(self._ready) < self.workers:
                message = self._next(deadline - time.monotonic())
                if message is None:
                    raise LaneDied(
                        f"a lane of {self.workers} workers ({self._asked()}) was not ready after "
                        f"{self.start_deadline:.0f} s; {len(self._ready)} answered"
                    )
                if message["kind"] == "ready":
                    self._ready[message["rank"]] = message["worker"]
                    self.pids[message["rank"]] = message["pid"]
                    self.placed[message["rank"]] = message["node"]
        except BaseException:
            self.stop()
            raise

    def submit(self, job: FineTuneJob) -> None:
        """Hand a job to the workers; then ask :meth:`next_report` until it says done.

        Raises:
            LaneDied: the lane is not running, is poisoned, or has a job.
        """
        if self.poisoned or not self.alive or self._running:
            raise LaneDied(
                "the lane is " + ("poisoned" if self.poisoned else "busy" if self._running else "not running")
            )
        self._jobs.put(job.model_dump_json())
        self._running = True

    def next_report(self, timeout: float) -> dict[str, Any] | None:
        """The next ``{"kind": "report", "report": ...}`` or ``{"kind": "done", "facts": ...}``; None after ``timeout``.

        Raises:
            StepFailed, UserError, EnvironmentProblem: as :func:`finetune` does; the lane is poisoned.
            LaneDied: a worker died, or had no memory; the lane is poisoned.
        """
        message = self._next(timeout)
        if message is not None and message["kind"] == "failed":
            self.poisoned = True
            self._running = False
            raise _failure(message)
        if message is not None and message["kind"] == "done":
            self._running = False
        return message

    def stop(self) -> None:
        """End the workers: in a moment when idle, by force when a job runs or they do not answer. May be repeated."""
        import ray

        thread, self._thread = self._thread, None
        if thread is None:
            return
        if not self._running and not self.poisoned and thread.is_alive() and self._ready:
            self._quietly(lambda: self._jobs.put(None))
            thread.join(10)
        elif self.poisoned:
            thread.join(3)  # a failed job ends the run by itself
        if thread.is_alive() and self._ready:
            for worker in self._ready.values():
                self._quietly(partial(ray.kill, worker))
            thread.join(20)
        if thread.is_alive() and self._find_controller():
            self._quietly(self._controller.abort.remote)
        for queue in (self._jobs, self._reports):  # one that waits for room sees that they are gone
            self._quietly(partial(queue.shutdown, force=True))
        thread.join(_ENDS_WITHIN)
        if thread.is_alive():
            logger.warning("the Ray Train run of a lane did not end when it was told to")
        self._controller = None
        self._ready, self.pids, self.placed = {}, {}, {}
        self._running = False
        shutil.rmtree(self._storage, ignore_errors=True)

    @property
    def alive(self) -> bool:
        """Whether the worker group is up, as far as is known."""
        return self._thread is not None and self._thread.is_alive()

    def _fit(self) -> None:
        """In a thread of the owner: the Train run, from start to stop."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from trainables.lane_config import LaneTorchConfig
        from trainables.lane_trainer import LaneTrainer

        # Without a GPU of its own a worker must not see one, or DeepSpeed would take it.
        env = self.env if self.use_gpu else {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", **self.env}
        settings: dict[str, Any] = {"worker_runtime_env": {"env_vars": env}} if env else {}
        where: dict[str, Any] = {"label_selector": [{NODE_ID: node} for node in self.nodes]} if self.nodes else {}
        try:
            trainer = LaneTrainer(
                serve,
                queue=self._reports,
                train_loop_config={"jobs": self._jobs, "reports": self._reports, "staging": self.staging},
                torch_config=LaneTorchConfig(backend="nccl" if self.use_gpu else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=self.workers,
                    use_gpu=self.use_gpu,
                    resources_per_worker=self.resources,
                    **where,
                ),
                run_config=RunConfig(
                    name="lane",
                    storage_path=str(self._storage),
                    failure_config=FailureConfig(max_failures=0),
                    **settings,
                ),
            )
            trainer.fit()
        except BaseException as problem:  # noqa: BLE001  (kept for the owner, who is told by _next)
            self._error = problem

    def _next(self, timeout: float) -> dict[str, Any] | None:
        """The next message of any kind, or None; LaneDied once the workers are gone and all they said was read."""
        from ray.exceptions import RayError
        from ray.util.queue import Empty

        deadline = time.monotonic() + timeout
        while True:
            gone = not self.alive
            wait = 0.0 if gone else max(0.0, min(_POLL_SECONDS, deadline - time.monotonic()))
            try:
                message: dict[str, Any] = self._reports.get(block=wait > 0, timeout=wait or None)
                if message["kind"] != "controller":
                    return message
                self._controller = message["controller"]
            except Empty:
                if gone:
                    self.poisoned = True
                    raise LaneDied(f"the lane's workers are gone: {self._why()}") from self._error
                if time.monotonic() >= deadline:
                    return None
            except RayError as problem:
                self.poisoned = True
                raise LaneDied(f"the lane's queue is gone: {problem}") from problem

    def _why(self) -> str:
        """What ended the workers: in the first line in short, then all that Ray Train said."""
        failures = getattr(self._error, "worker_failures", {})
        short = "; ".join(f"{type(one).__name__} on worker {rank}" for rank, one in sorted(failures.items()))
        return "\n".join(filter(None, (short, str(self._error or "they ended"))))

    def _find_controller(self) -> bool:
        """During stop: whether the controller has said who it is, now or within the seconds it takes to start."""
        from ray.exceptions import RayError
        from ray.util.queue import Empty

        deadline = time.monotonic() + _INTRODUCED_WITHIN
        while self._controller is None and time.monotonic() < deadline:
            try:
                message = self._reports.get(timeout=_POLL_SECONDS)
                if message["kind"] == "controller":
                    self._controller = message["controller"]
            except Empty:
                continue  # whoever waits in start may have read it
            except RayError:
                break
        return self._controller is not None

    def _asked(self) -> str:
        return ", ".join(f"{name} {amount:g}" for name, amount in self.resources.items()) + " each"

    def _quietly(self, action: Callable[[], Any]) -> None:
        """During stop: what is already gone needs no ending."""
        from ray.exceptions import RayError

        try:
            action()
        except RayError as problem:
            logger.debug("while stopping a lane: %s", problem)


def serve(config: dict[str, Any]) -> None:
    """The loop of one worker: take jobs until told to stop. Runs inside Ray Train.

    A failure of any worker is reported by that worker and ends the loop, and with it the Train run.
    """
    import ray
    from ray.util.queue import Empty

    from trainables.world import join_world

    jobs, reports, staging = config["jobs"], config["reports"], config.get("staging")
    world = join_world()
    here = ray.get_runtime_context()
    place = {"worker": here.current_actor, "pid": os.getpid(), "node": here.get_node_id()}
    reports.put({"kind": "ready", "rank": world.rank, **place})

    def report(content: dict[str, Any]) -> None:
        reports.put({"kind": "report", "report": content})

    ended: float | None = None
    while True:
        # The first worker says "nothing yet" now and then, so that the others' wait never meets the collective timeout.
        order = _NOTHING
        if world.first:
            try:
                text = jobs.get(timeout=_IDLE_SECONDS)
                order = _STOP if text is None else _begun(text, staging, reports)
            except Empty:
                pass
        order = world.told(order)
        if order == _STOP:
            return
        if order == _NOTHING:
            continue
        try:
            idle = None if ended is None else time.monotonic() - ended
            facts = _run(FineTuneJob.model_validate_json(order), staging, world.first, idle, report)
            ended = time.monotonic()
        except BaseException as problem:
            reports.put(_said(problem, world.rank))
            raise
        if world.first:
            reports.put({"kind": "done", "facts": json.loads(json.dumps(facts))})


def _begun(text: str, staging: Staging | None, reports: Any) -> str:
    """On the first worker: a job with a folder to work in."""
    if staging is None:
        return text
    try:
        return staging.begin(FineTuneJob.model_validate_json(text)).model_dump_json()
    except BaseException as problem:
        reports.put(_said(problem, 0))
        raise


def _run(
    job: FineTuneJob, staging: Staging | None, first: bool, idle: float | None, report: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """One job on one worker; the first publishes it where there is a staging."""
    if staging is None:
        return finetune(job, report) | {"seconds_since_last_job": idle}
    job = staging.bring(job)
    try:
        with staging.saving(job) if first else contextlib.nullcontext():
            facts = finetune(job, report) | {"seconds_since_last_job": idle}
        if first:
            staging.publish(job, facts)
    except BaseException as problem:
        if first:
            staging.failed(job, problem)
        raise
    return facts


def _said(problem: BaseException, rank: int) -> dict[str, Any]:
    """A failure as plain values, so that reading it needs no class of the worker."""
    import torch

    kind = type(problem).__name__
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        kind = "OutOfMemory"
    elif isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem):
        kind = "OutOfMemory"  # as torch says it where there is no GPU
    elif isinstance(problem, FileNotFoundError | ConnectionError):
        kind = "LaneDied"  # what somebody else took away, or did not answer, is looked for again
    elif isinstance(problem, OSError) or "No space left on device" in str(problem):
        kind = EnvironmentProblem.__name__  # a full disk or a lost mount says nothing about the fine-tune
    elif isinstance(problem, RuntimeError) and _INFRASTRUCTURE.search(str(problem)):
        kind = "Lost"  # a worker that fails by itself says so before it goes; this one only lost its partner or device
    trace = "".join(traceback.format_exception(problem))
    return {"kind": "failed", "error": kind, "message": str(problem), "rank": rank, "traceback": trace}


def _failure(message: dict[str, Any]) -> Exception:
    """The exception a failed job is for the owner; what is not known to be otherwise is a deterministic failure."""
    kind, text = message["error"], message["message"]
    if kind in _KINDS:
        return _KINDS[kind](text)
    where = f"{kind} on worker {message['rank']}: {text}"
    if kind == "OutOfMemory":
        return LaneDied(
            f"{where}; set runtime.micro_batch lower, runtime.gradient_checkpointing: true or runtime.offload: true"
        )
    if kind == "Lost":
        return LaneDied(f"worker {message['rank']} lost the others, or its device: {cut(text.partition('. ')[0], 160)}")
    if kind in ("LaneDied", "KeyboardInterrupt", "SystemExit") or "Ray" in kind or "Dist" in kind:
        return LaneDied(where)
    return StepFailed(f"{where}\n{message['traceback']}")
