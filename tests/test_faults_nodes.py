"""Machines that are taken away: what ran there is done again elsewhere, what was published there stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Pinch
from tests.faults import Session, checkpointed, complete, digests, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that does no work, and two machines."""
    from ray.cluster_utils import Cluster

    from orchestrator.run.loopback import on_loopback

    with on_loopback():
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(2):
            made.add_node(num_cpus=2)
        yield made
        made.shutdown()


def working(cluster: Any, title: str) -> Any:
    """The node on which a worker calls itself so, or None."""
    for node in cluster.worker_nodes:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        for process in raylet.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(title):
                    return node
    return None


def test_machines_lost_during_a_fine_tune_generation_and_judging_cost_no_result(
    cluster: Any, small: Path, begun: Path, undisturbed: Path, pinch: Pinch
) -> None:
    session = Session(small, begun, "--address", cluster.address)
    before: dict[str, str] = {}
    for title in ("ray::RayTrainWorker", "ray::EngineActor.generate", "ray::JudgeActor"):
        if title == "ray::RayTrainWorker":
            until(lambda: checkpointed(begun), session)
        until(lambda title=title: working(cluster, title) is not None, session)  # type: ignore[misc]
        before |= digests(begun)
        cluster.remove_node(working(cluster, title), allow_graceful=False)
        cluster.add_node(num_cpus=2)
    assert session.wait() == 0, session.text()
    assert {path: digests(begun).get(path) for path in before} == before
    complete(begun, small, undisturbed, pinch)
