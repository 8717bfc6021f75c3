"""The GPUs of a cluster: where they are, whose they are, how large, and how many one worker of a run takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import ray
from ray._private import state as ray_state
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.gpu_memory import longest_example
from orchestrator.sweep import Sweep
from trainables.errors import EnvironmentProblem
from trainables.memory import MARGIN
from trainables.model_shape import ModelShape
from trainables.parallel import choose

HEAD = "node:__internal_head__"
LOOK_EVERY = 1.0
"""Seconds between two looks at what nodes there are."""
WEIGHTS_SHARE = 0.65
"""Of a GPU's memory, what an engine's weights may take; the rest is for what it keeps of its requests."""


class Nodes:
    """GPUs that a run may use, by node id.

    Where other nodes have GPUs those of the head stay unused: what goes wrong there takes the cluster along.
    """

    def __init__(self) -> None:
        self.held: Callable[[], Mapping[str, int]] = dict
        """GPUs that the run itself holds, by node."""
        self._looked = float("-inf")
        self._whole: dict[str, int] = {}
        self._free: dict[str, int] = {}

    def whole(self) -> dict[str, int]:
        """All that are alive."""
        self._look()
        return self._whole

    def free(self) -> dict[str, int]:
        """The same, less what others on the cluster use; what the run holds is included."""
        self._look()
        return self._free

    def _look(self) -> None:
        if time.monotonic() - self._looked < LOOK_EVERY:
            return
        self._looked = time.monotonic()
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        total = {node: int(resources.get("GPU", 0)) for node, resources in alive.items()}
        elsewhere = {node: gpus for node, gpus in total.items() if gpus and HEAD not in alive[node]}
        self._whole = elsewhere or {node: gpus for node, gpus in total.items() if gpus}
        available, held = ray_state.available_resources_per_node(), self.held()
        self._free = {}
        for node, gpus in self._whole.items():
            ours = held.get(node, 0)
            others = max(0.0, gpus - available.get(node, {}).get("GPU", 0.0) - ours)
            self._free[node] = max(ours, int(gpus - others))


def gpu_memory(nodes: Iterable[str], timeout: float = 120.0) -> list[tuple[float, float] | None]:
    """What nodes say, each of which should have a GPU to spare: bytes of a GPU, and of main memory that is free beside.

    None of one without a CUDA device; one that does not answer in time is left out.
    """
    look = ray.remote(num_cpus=0, num_gpus=0.01, max_calls=1)(_look)
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote() for node in nodes
    ]
    answered, silent = ray.wait(asked, num_returns=len(asked), timeout=timeout)
    for one in silent:
        ray.cancel(one)
    found = []
    for one in answered:
        with contextlib.suppress(RayError):  # its node is gone
            found.append(ray.get(one))
    return found


def _look() -> tuple[float, float] | None:
    import psutil
    import torch

    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory), float(psutil.virtual_memory().available)


def gpus_of_lane(
    sweep: Sweep, shape: ModelShape | None, memory: tuple[float, float] | None, nodes: Mapping[str, int], count: int
) -> int:
    """GPUs of a fine-tune: as the sweep says; else the fewest that hold it, and more while there are GPUs to spare.

    Args:
        shape: of the base; None where it is not known, as ``memory`` may be: then one.
        memory: bytes of a GPU, and of free main memory beside all of a node's.
        nodes: GPUs, by node.
        count: fine-tunes to do. While all of them together leave half of the GPUs idle, each takes twice as many, up
            to a node's.

    Raises:
        EnvironmentProblem: more are asked for than there are.
    """
    asked, everything, node = sweep.runtime.gpus_per_fine_tune, sum(nodes.values()), max(nodes.values())
    if asked != "auto":
        if asked > everything:
            raise EnvironmentProblem(
                f"runtime.gpus_per_fine_tune: {asked} are asked for and the cluster has {everything}; lower it or add "
                "GPUs."
            )
        return asked
    gpus = 1
    if shape is not None and memory is not None:
        room, host = (1 - MARGIN) * memory[0], memory[1]
        sizes = [size for size in (2**power for power in range(12)) if size <= everything]
        fitting = [
            (found.offload, size)
            for size in sizes
            if (
                found := choose(
                    sweep.runtime.parallel,
                    sweep.recipe,
                    shape,
                    size,
                    longest_example(sweep.recipe),
                    room,
                    host / min(size, node),
                )
            )
        ]
        gpus = min(fitting)[1] if fitting else sizes[-1]
    while 2 * gpus * count <= everything and 2 * gpus <= min(node, sweep.recipe.batch_size):
        gpus *= 2
    return gpus


def gpus_of_engine(
    asked: Literal["auto"] | int,
    setting: str,
    shape: ModelShape | None,
    memory: tuple[float, float] | None,
    nodes: Mapping[str, int],
) -> int:
    """GPUs of an engine, all in one node: as the sweep says, else the fewest that hold the weights in bf16.

    Raises:
        EnvironmentProblem: no node has so many.
    """
    most = max(nodes.values())
    if asked != "auto":
        wanted, why = asked, "are asked for"
    elif shape is None or memory is None:
        return 1
    else:
        wanted, why = 1, "are needed for its weights"
        while 2 * shape.parameters / wanted > WEIGHTS_SHARE * memory[0] or shape.heads % wanted:
            wanted *= 2
            if wanted > shape.heads:
                break
    if wanted > most:
        raise EnvironmentProblem(
            f"runtime.{setting}: {wanted} GPUs in one node {why}, and the largest node has {most}; use a node with "
            "more or larger GPUs, or a smaller model."
        )
    return wanted
