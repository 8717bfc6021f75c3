"""Where a run takes place: Ray on this machine or a cluster, and how its cores are divided.

On a machine without a GPU the lane, the engine and the judge live side by side, each on its share of the cores.
With GPUs, `placement` says who has which.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator

import ray

from orchestrator.run.growth import gpus_may_come
from orchestrator.run.loopback import on_loopback
from trainables.errors import EnvironmentProblem

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
"""Set for the driver and the workers it starts: less noise, nothing phoned home, a livelier Ray Train,
and threads that do not spin against each other where lane and engine share few cores."""


@dataclasses.dataclass(frozen=True)
class Room:
    """What there is: cores of the largest machine, which is where a worker has to fit, and GPUs of all of them."""

    cpus: float
    gpus: float
    grows: bool = False
    """Whether machines with GPUs join when they are asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shares:
    """What a worker takes of the cores, and how many lane workers there are where no GPU counts them."""

    use_gpus: bool
    lane_workers: int
    lane_cpus: float
    """Of each of a lane's workers; 0 beside a GPU, which is what counts there."""
    lane_threads: int
    engine_threads: int
    sentence: str


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Room]:
    """Ray, for the duration: the cluster at ``address``, or one of our own on this machine.

    Raises:
        EnvironmentProblem: when Ray cannot be started or reached.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    environment = {"env_vars": {name: os.environ[name] for name in QUIET}}
    try:
        if address is None:
            with on_loopback():
                ray.init(
                    address="local",
                    num_cpus=max(2, os.cpu_count() or 2),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=200 * 2**20,
                    runtime_env=environment,
                )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
    except Exception as problem:  # a node that does not come up in time is a bare Exception of Ray's
        where = "on this machine" if address is None else f"at {address}"
        raise EnvironmentProblem(f"Ray could not be started {where}: {problem}") from problem
    try:
        with _quiet():
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield Room(
                cpus=max((resources.get("CPU", 0.0) for resources in nodes), default=0.0) or 1.0,
                gpus=sum(resources.get("GPU", 0.0) for resources in nodes),
                grows=address is not None and gpus_may_come(),
            )
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints what a dying node has to say, its log included, to the standard output; whoever waits says what died.

    Nothing of ours goes there during a run.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


def share(room: Room, small: bool) -> Shares:
    """Divide the cores.

    Args:
        small: the base is so small that a second thread slows its steps down; a second worker does not.
    """
    if room.gpus or room.grows:
        there = f"{room.gpus:.0f} GPUs" if room.gpus else "GPUs come when they are asked for"
        return Shares(
            use_gpus=True,
            lane_workers=0,
            lane_cpus=0,
            lane_threads=4,
            engine_threads=4,
            sentence=f"{there}: fine-tunes, engines and judges come and go on them as there is work.",
        )
    threads = max(1, int(room.cpus) // 2)
    workers = min(2, int(room.cpus)) if small else 1
    return Shares(
        use_gpus=False,
        lane_workers=workers,
        lane_cpus=0.5 / workers,
        lane_threads=1 if small else threads,
        engine_threads=threads,
        sentence=f"No GPU: one lane for fine-tunes ({'two workers' if workers > 1 else 'one worker'}) and one "
        f"engine side by side on {room.cpus:.0f} cores.",
    )
