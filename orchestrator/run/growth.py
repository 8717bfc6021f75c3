"""Asking a cluster that grows on demand for the GPUs that work waits for.

Workers are bound to nodes that are there, so they ask for none that are not. What Ray's autoscaler sees instead are
placement groups that wait for room; they are taken back as soon as there is some, and go when the run does, however
it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from orchestrator.run.placement import Size

BOOTSTRAP = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts its configuration on the head, which is where a submitted run's driver is."""
AT_ONCE = 64
"""Workers of one size that are asked for at once; the cluster's own limits come first."""


def gpus_may_come(file: Path = BOOTSTRAP) -> bool:
    """Whether this is the head of a cluster whose configuration has machines with GPUs.

    Where that is kept elsewhere, as KubeRay does, ``PINCH_CLUSTER_GROWS=1`` says it.
    """
    if os.environ.get("PINCH_CLUSTER_GROWS") == "1":
        return True
    with contextlib.suppress(OSError, yaml.YAMLError, AttributeError):
        types = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))["available_node_types"].values()
        return any((kind.get("resources") or {}).get("GPU", 0) and kind.get("max_workers", 1) for kind in types)
    return False


class Growth:
    """The placement groups that wait, by the size of what they are for."""

    def __init__(self) -> None:
        self._waiting: dict[Size, list[PlacementGroup]] = {}

    def ask(self, wanted: Mapping[Size, int]) -> None:
        """Have so many more workers of each size wait for room, and no others."""
        for size in {*wanted, *self._waiting}:
            groups = self._waiting.setdefault(size, [])
            for group in list(groups):
                table: Any = placement_group_table(group)
                if table.get("state") == "CREATED":  # room has come; it is for a worker
                    groups.remove(group)
                    remove_placement_group(group)
            number = min(wanted.get(size, 0), AT_ONCE)
            while len(groups) > number:
                remove_placement_group(groups.pop())
            while len(groups) < number:
                groups.append(_waiting(size))

    def stop(self) -> None:
        """Ask for nothing more."""
        self.ask(Counter())


def _waiting(size: Size) -> PlacementGroup:
    if size.together:
        return placement_group([{"GPU": size.gpus}], strategy="STRICT_PACK")
    return placement_group([{"GPU": 1}] * size.gpus, strategy="PACK")
