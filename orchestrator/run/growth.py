"""Asking a cluster that grows on demand for the GPUs that work waits for.

Workers are bound to nodes that are there, so they ask for none that are not. What Ray's autoscaler sees instead are
placement groups that wait for room; they are taken back as soon as there is some, and go when the run does, however
it ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from orchestrator.run.placement import Size
from trainables.errors import EnvironmentProblem

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts its configuration on the head, which is where a submitted run's driver is."""
SAID = "PINCH_GPUS_COME"
"""Environment variable that says so, true or false, where a cluster grows and nobody has written such a file: what a
RayCluster may grow to is known to KubeRay's autoscaler alone, which tells Ray nothing of it."""
AT_ONCE = 64
"""Workers of one size that are asked for at once; the cluster's own limits come first."""
TAKEN_WITHIN = 5.0
"""Seconds that workers have to take room that came."""


def gpus_may_come(file: Path = BOOTSTRAP) -> bool:
    """Whether this is the head of a cluster that may grow by machines with GPUs, by its configuration or :data:`SAID`.

    Raises:
        EnvironmentProblem: the variable says something else.
    """
    match os.environ.get(SAID, ""):
        case "":
            pass
        case "true" | "false" as said:
            return said == "true"
        case other:
            raise EnvironmentProblem(f"{SAID}: {other!r} is neither true nor false; write one of them, or unset it.")
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
        types = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))["available_node_types"].values()
        return any((kind.get("resources") or {}).get("GPU", 0) and kind.get("max_workers", 1) for kind in types)
    return False


class Growth:
    """The placement groups that wait, by the size of what they are for."""

    def __init__(self) -> None:
        self._waiting: dict[Size, list[PlacementGroup]] = {}
        self._room_came = float("-inf")

    def ask(self, wanted: Mapping[Size, int]) -> None:
        """Have so many more workers of each size wait for room, and no others.

        When room has come nothing waits for a moment: it is for workers, and another group would be given it.
        """
        if any(_has_room(group) for groups in self._waiting.values() for group in groups):
            self._room_came = time.monotonic()
        if time.monotonic() - self._room_came < TAKEN_WITHIN:
            wanted = Counter()
        for size in {*wanted, *self._waiting}:
            groups = self._waiting.setdefault(size, [])
            number = min(wanted.get(size, 0), AT_ONCE)
            while len(groups) > number:
                remove_placement_group(groups.pop())
            while len(groups) < number:
                groups.append(_waiting(size))

    def stop(self) -> None:
        """Ask for nothing more."""
        self.ask(Counter())


def _has_room(group: PlacementGroup) -> bool:
    table: Any = placement_group_table(group)
    return table.get("state") == "CREATED"


def _waiting(size: Size) -> PlacementGroup:
    if size.together:
        return placement_group([{"GPU": size.gpus}], strategy="STRICT_PACK")
    return placement_group([{"GPU": 1}] * size.gpus, strategy="PACK")
