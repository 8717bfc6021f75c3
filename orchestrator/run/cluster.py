"""Where a run takes place: Ray on this machine or a cluster, and how its room is divided.

On a machine without a GPU the lane, the engine and the judge live side by side, each on its share of the cores.
With GPUs, fine-tunes and engines have GPUs of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from typing import Literal

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.run.loopback import on_loopback
from trainables.errors import EnvironmentProblem

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_DEDUP_LOGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Set for the driver and the workers it starts: less noise, nothing phoned home, a livelier Ray Train,
and threads that do not spin against each other where lane and engine share few cores."""


@dataclasses.dataclass(frozen=True)
class Room:
    """What there is: cores and GPUs of the whole cluster."""

    cpus: float
    gpus: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """How a run's room is divided."""

    lanes: int
    workers_per_lane: int
    cpus_per_worker: float
    lane_threads: int
    engine_threads: int
    engine_gpus: float
    gpus: float
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
    except (ConnectionError, OSError, RuntimeError, ValueError) as problem:
        where = "on this machine" if address is None else f"at {address}"
        raise EnvironmentProblem(f"Ray could not be started {where}: {problem}") from problem
    try:
        resources = ray.cluster_resources()
        yield Room(cpus=resources.get("CPU", 1.0), gpus=resources.get("GPU", 0.0))
    finally:
        ray.shutdown()


def gpu_memory(timeout: float = 120.0) -> tuple[float, float] | None:
    """Bytes of the smallest GPU, and of main memory that is free beside it, over the nodes that have GPUs.

    None where no CUDA device answers in time.
    """
    look = ray.remote(num_cpus=0, num_gpus=0.01, max_calls=1)(_look)
    with_gpus = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in with_gpus
    ]
    try:
        found = [memory for memory in ray.get(asked, timeout=timeout) if memory is not None]
    except (GetTimeoutError, RayError):
        return None
    return min(found) if found else None


def _look() -> tuple[float, float] | None:
    import psutil
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory), float(psutil.virtual_memory().available)


def place(room: Room, gpus_per_fine_tune: int | Literal["auto"], small: bool) -> Placement:
    """Divide the room.

    Args:
        small: the base is so small that a second thread slows its steps down; a second worker does not.

    Raises:
        EnvironmentProblem: when a fine-tune asks for more GPUs than there are.
    """
    gpus = int(room.gpus)
    if gpus == 0:
        threads = max(1, int(room.cpus) // 2)
        workers = min(2, int(room.cpus)) if small else 1
        return Placement(
            lanes=1,
            workers_per_lane=workers,
            cpus_per_worker=0.5 / workers,
            lane_threads=1 if small else threads,
            engine_threads=threads,
            engine_gpus=0,
            gpus=0,
            sentence=f"No GPU: one lane for fine-tunes ({'two workers' if workers > 1 else 'one worker'}) and one "
            f"engine side by side on {room.cpus:.0f} cores.",
        )
    per_run = 1 if gpus_per_fine_tune == "auto" else gpus_per_fine_tune
    if per_run > gpus:
        raise EnvironmentProblem(
            f"runtime.gpus_per_fine_tune: {per_run} are asked for and the cluster has {gpus}; lower it or add GPUs."
        )
    if gpus == 1:
        lanes, engine_gpus = 1, 0.5
    else:
        lanes, engine_gpus = max(1, (gpus - 1) // per_run), 1.0
    return Placement(
        lanes=lanes,
        workers_per_lane=per_run,
        cpus_per_worker=1,
        lane_threads=4,
        engine_threads=4,
        engine_gpus=engine_gpus,
        gpus=room.gpus,
        sentence=f"{gpus} GPUs: {lanes} lanes of {per_run} for fine-tunes, the rest for engines.",
    )
