"""Workers land where it was decided, in real Ray on nodes with GPUs that do not exist, and give way as decided."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.exceptions import RayError
from ray.util.placement_group import placement_group_table

from orchestrator.run.crew import STARTS, Crew, Member, Post, on_node
from orchestrator.run.gpus import Nodes, gpu_memory
from orchestrator.run.placement import Demand, Role, Seat, Size
from orchestrator.run.trial import LaneActor
from tests.faults import ROOT
from trainables.errors import EnvironmentProblem
from trainables.lane import Lane

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head with GPUs of its own that nobody is to use, and two nodes of four."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2, num_gpus=4)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, namespace="test-crew", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@ray.remote(num_cpus=0)
class Waiter:
    """Holds its GPUs and does nothing; or cannot even start."""

    def start(self, sound: bool = True) -> str:
        if not sound:
            raise RuntimeError("it does not start")
        return ray.get_runtime_context().get_node_id()

    def where(self) -> tuple[str, list[Any]]:
        return ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()

    def stop(self) -> None:
        pass


class Work:
    """What waits, and who was hired for it."""

    def __init__(self, nodes: Nodes | None, gpus: dict[Role, int]) -> None:
        self.demands = {role: Demand() for role in gpus}
        self.sound = True
        self.given_up: list[str] = []
        self.said: list[str] = []
        self.crew = Crew(nodes, lambda sentence: self.said.append(sentence) if "Waiting" in sentence else None)
        for role, count in gpus.items():
            self.crew.add(role, self._post(role, count))

    def _post(self, role: Role, gpus: int) -> Post:
        return Post(
            size=lambda: Size(gpus=gpus),
            hire=self._hire,
            demand=lambda: self.demands[role],
            give_up=self.given_up.append,
            gently=role is Role.LANE,
        )

    def _hire(self, name: str, seat: Seat) -> tuple[Any, Any]:
        actor: Any = Waiter.options(name=name, **on_node(seat)).remote()  # type: ignore[attr-defined]
        return actor, actor.start.remote(self.sound)

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, [(one.name, one.activity, one.seat) for one in self.crew.members()]
            self.crew.settle()
            time.sleep(0.05)

    def up(self, role: Role) -> list[Member]:
        return [member for member in self.crew.members(role) if member.ready is None]


@pytest.fixture
def work(cluster: Cluster) -> Iterator[Work]:
    work = Work(Nodes(), {Role.LANE: 4, Role.ENGINE: 2, Role.JUDGE: 1})
    yield work
    work.crew.stop(patience=5)


def head() -> str:
    return next(node["NodeID"] for node in ray.nodes() if "node:__internal_head__" in node["Resources"])


def free() -> tuple[float, float]:
    """CPUs and GPUs that nobody has."""
    there = ray.available_resources()
    return there.get("CPU", 0.0), there.get("GPU", 0.0)


def test_lanes_engines_and_judges_land_on_the_nodes_and_gpus_decided_for_them(work: Work) -> None:
    work.demands[Role.LANE] = Demand(ready=1, left=1, models=1)
    work.demands[Role.ENGINE] = Demand(ready=1, left=1, models=1)
    work.demands[Role.JUDGE] = Demand(ready=9, left=9, models=3)
    work.until(lambda: len(work.up(Role.LANE)) == len(work.up(Role.ENGINE)) == 1 and len(work.up(Role.JUDGE)) == 2)
    used = set()
    for member in work.crew.members():
        node, gpus = ray.get(member.actor.where.remote())
        assert member.seat == ((node, len(gpus)),)
        assert node != head(), "the head does no GPU work"
        used |= {(node, gpu) for gpu in gpus}
    assert len(used) == 8, "every GPU has one owner"


def test_what_a_lane_leaves_goes_to_engines_and_judges_at_once(work: Work) -> None:
    work.demands[Role.LANE] = Demand(ready=2, left=2, models=2)
    work.until(lambda: len(work.up(Role.LANE)) == 2)
    lane = work.crew.take(Role.LANE)
    assert lane is not None
    lane.step = "a fine-tune"
    work.demands[Role.LANE] = Demand()
    work.demands[Role.ENGINE] = Demand(ready=1, left=1, models=1)
    work.demands[Role.JUDGE] = Demand(ready=5, left=5, models=1)
    work.until(lambda: len(work.up(Role.ENGINE)) == 1 and len(work.up(Role.JUDGE)) == 2)
    assert work.crew.members(Role.LANE) == [lane], "who is at work is not disturbed"
    work.crew.give_back(lane)
    work.until(lambda: len(work.up(Role.JUDGE)) == 5)
    assert not work.crew.members(Role.LANE)


def test_gpus_that_others_use_are_left_to_them(work: Work) -> None:
    node = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != head())
    theirs: Any = Waiter.options(**on_node(((node, 1),)))  # type: ignore[attr-defined]
    other = theirs.remote()
    assert ray.get(other.start.remote()) == node
    work.demands[Role.LANE] = Demand(ready=2, left=2, models=2)
    work.until(lambda: len(work.up(Role.LANE)) == 1)
    time.sleep(2)
    work.crew.settle()
    (lane,) = work.crew.members(Role.LANE)
    assert lane.seat[0][0] != node
    ray.kill(other)
    work.until(lambda: len(work.up(Role.LANE)) == 2)


def test_a_worker_on_a_lost_node_is_ended_and_another_comes_up_when_there_is_room(cluster: Cluster, work: Work) -> None:
    node = cluster.add_node(num_cpus=1, num_gpus=4)
    cluster.wait_for_nodes()
    work.demands[Role.LANE] = Demand(ready=3, left=3, models=3)
    work.until(lambda: len(work.up(Role.LANE)) == 3)
    (lost,) = [member for member in work.up(Role.LANE) if member.seat[0][0] == node.node_id]
    cluster.remove_node(node, allow_graceful=False)
    work.until(lambda: lost not in work.crew.members() and len(work.crew.members()) == 2)
    cluster.add_node(num_cpus=1, num_gpus=4)
    work.until(lambda: len(work.up(Role.LANE)) == 3)


def test_nobody_gives_up_waiting_for_gpus_while_something_here_works_without(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.run.crew.NODES_WITHIN", 0.5)
    work = Work(Nodes(), {Role.LANE: 99, Role.JUDGE: 0})
    work.demands[Role.JUDGE] = Demand(ready=1, left=1, models=1)
    work.until(lambda: len(work.up(Role.JUDGE)) == 1)
    judge = work.crew.take(Role.JUDGE)
    assert judge is not None
    assert judge.seat == ()
    work.demands[Role.LANE] = Demand(ready=1, left=1, models=1)
    busy_until = time.monotonic() + 2
    work.until(lambda: time.monotonic() > busy_until)
    work.crew.give_back(judge)
    for _ in range(10):
        work.crew.settle(busy=True)
        time.sleep(0.2)
    assert not work.said
    with pytest.raises(EnvironmentProblem, match="no room on the cluster's GPUs"):
        work.until(lambda: False)
    assert len(work.said) == 1
    work.crew.stop(patience=5)


def fake_memory() -> tuple[float, float]:
    return 80e9, 500e9


def test_a_node_all_of_whose_gpus_others_use_does_not_hide_the_memory_of_the_rest(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.run.gpus._look", fake_memory)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU") == 4][:2]
    busy = nodes[0]
    other: Any = Waiter.options(**on_node(((busy, 4),))).remote()  # type: ignore[attr-defined]
    assert ray.get(other.start.remote()) == busy
    assert gpu_memory(nodes, timeout=20) == [(80e9, 500e9)]
    assert gpu_memory([busy], timeout=2) == []
    ray.kill(other)


CORES = """
import sys
from orchestrator.run import cluster
with cluster.connected(sys.argv[1]) as room:
    pass
print(room.cpus)
"""


def test_workers_are_given_no_more_cores_than_the_largest_machine_has(cluster: Cluster) -> None:
    node = cluster.add_node(num_cpus=3)
    cluster.wait_for_nodes()
    command = [sys.executable, "-c", CORES, cluster.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3.0", done.stderr
    cluster.remove_node(node)


def test_a_role_whose_workers_do_not_start_is_given_up_and_says_why(cluster: Cluster) -> None:
    work = Work(Nodes(), {Role.ENGINE: 1})
    work.sound = False
    work.demands[Role.ENGINE] = Demand(ready=1, left=1, models=1)
    work.until(lambda: bool(work.given_up))
    assert f"did not start in {STARTS} tries" in work.given_up[0]
    assert not work.crew.members()


def test_a_lanes_workers_run_on_the_nodes_that_it_is_given(cluster: Cluster) -> None:
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != head()][:2]
    lane = Lane(workers=2, resources={"CPU": 0.5}, env={"OMP_NUM_THREADS": "1"}, nodes=nodes)
    lane.start()
    try:
        assert sorted(lane.placed.values()) == sorted(nodes)
    finally:
        lane.stop()


@pytest.mark.parametrize("room", [True, False], ids=["while it comes up", "while it waits for room"])
def test_a_lane_that_is_stopped_early_leaves_its_room_to_others(cluster: Cluster, room: bool) -> None:
    node = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != head())
    before = free()
    owner: Any = LaneActor.options(max_concurrency=2).remote()  # type: ignore[attr-defined]
    settings: Any = SimpleNamespace(workers=2, cpus_per_worker=0.5 if room else 64, threads=1)
    seat = ((node, 1),) if room else ()
    started = owner.start.remote(settings, seat, None)
    time.sleep(4)
    ray.get(owner.stop.remote(), timeout=120)
    with pytest.raises(RayError):
        ray.get(started, timeout=30)
    ray.kill(owner)
    deadline = time.monotonic() + 20
    while free() != before:
        assert time.monotonic() < deadline, "its placement group is still there"
        time.sleep(0.2)
    waiting = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    assert not waiting, "none that takes room later, either"
