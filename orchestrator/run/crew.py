"""The resident workers of a run: brought up and ended as `placement` decides, and watched while they come up.

A worker is an actor (a process, or for a lane a group of them) that holds its GPUs until it is killed. Who feeds it
with steps says which role may start and how (:class:`Post`); the crew knows nodes, GPUs, deadlines, and who is idle.
Thread-safe, because fine-tunes are handed out in Ray Tune's thread.

This module must never know what a step is.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.run.gpus import Nodes
from orchestrator.run.growth import Growth
from orchestrator.run.placement import TURN, Activity, Decision, Demand, Role, Seat, Size, Worker, decide
from trainables.errors import EnvironmentProblem, UserError

READY_WITHIN = 600.0
"""Seconds a worker has to come up (a 7B model from a slow disk, say)."""
STARTS = 3
"""How often in a row a role's workers may fail to start before the run gives its steps up."""
STOPS_WITHIN = 150.0
"""Seconds a worker that was asked to stop has for that."""
NODES_WITHIN = 1800.0
"""Seconds to wait for room on a cluster that does not grow, with nothing running here."""
LINGER = 120.0
"""Seconds a worker may hold GPUs with nothing to do, where nobody here wants them; another session might."""


@dataclasses.dataclass(eq=False)
class Member:
    """One worker, and what it is at."""

    name: str
    role: Role
    seat: Seat
    actor: Any
    ready: Any
    """Answered with a sentence when it is up; None from then on."""
    since: float
    """When it was started, or last taken."""
    idle_since: float = 0.0
    call: Any = None
    step: Any = None
    said: Any = None
    """How far it was when it last said something else."""
    heard: float = 0.0
    """When that was."""
    loaded: str = ""
    """Key of the model whose weights were used last."""
    taken: bool = False

    @property
    def activity(self) -> Activity:
        if self.ready is not None:
            return Activity.STARTING
        return Activity.BUSY if self.taken else Activity.IDLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Post:
    """How a role is filled."""

    size: Callable[[], Size | None]
    """What a worker takes; None as long as none may be started."""
    hire: Callable[[str, Seat], tuple[Any, Any]]
    """Starts a worker; returns its actor, and a reference that is answered when it is ready."""
    demand: Callable[[], Demand]
    give_up: Callable[[str], None]
    """Called when its workers do not start, with why."""
    failed: Callable[[BaseException], None] = lambda problem: None
    """Called each time one does not start, with what its start raised."""
    told: bool = True
    """Whether a reader is told when one is ready."""
    gently: bool = False
    """Whether a worker is asked to ``stop`` before it is killed."""


class Crew:
    """See the module. Posts are added by those who hand out steps; nothing starts before :meth:`settle` is called."""

    def __init__(
        self,
        nodes: Nodes | None,
        say: Callable[[str], None],
        growth: Growth | None = None,
    ) -> None:
        """
        Args:
            nodes: None where no GPUs are used.
            growth: where the cluster grows when it is asked to.
        """
        self._nodes, self._say, self._growth = nodes, say, growth
        self.held_back: Callable[[], bool] = lambda: False
        """Whether nobody may be started, because the machines are needed otherwise."""
        self._waiting_since: float | None = None
        self._said_waiting = False
        if nodes is not None:
            nodes.held = self.held
        self._posts: dict[Role, Post] = {}
        self._members: dict[str, Member] = {}
        self._failures = dict.fromkeys(Role, 0)
        self._came_up: dict[Role, float] = {}
        """Seconds that the last worker of each role took to come up."""
        self._tuned: list[float] = []
        """Seconds of each fine-tune."""
        self._hired = 0
        self._leaving: list[tuple[Any, Any, float]] = []
        self._lock = threading.RLock()

    @property
    def uses_gpus(self) -> bool:
        return self._nodes is not None

    def add(self, role: Role, post: Post) -> None:
        """Say how a role is filled."""
        self._posts[role] = post

    def members(self, *roles: Role) -> list[Member]:
        """Who is there, starting ones included; of these roles, or all."""
        with self._lock:
            return [member for member in self._members.values() if not roles or member.role in roles]

    def held(self) -> dict[str, int]:
        """GPUs that this crew holds, by node."""
        held: dict[str, int] = {}
        for member in self.members():
            for node, gpus in member.seat:
                held[node] = held.get(node, 0) + gpus
        return held

    def settle(self, busy: bool = False) -> None:
        """Look at who comes up, then end and start as is decided.

        Args:
            busy: the run is at work without workers of the crew, so that nobody waits for GPUs in vain.
        """
        with self._lock:
            for member in self.members():
                if not member.taken and self.on_lost_node(member):
                    self.end(member)
                elif member.ready is not None:
                    self._look(member)
            self._see_off()
            for role, post in self._posts.items():
                if self._failures[role] >= STARTS and not self.members(role):
                    post.give_up(f"its worker did not start in {STARTS} tries")
            decision = self._decide()
            for name in decision.end:
                self.end(self._members[name])
            for member in self.members():
                idle = member.activity is Activity.IDLE and member.seat
                if idle and time.monotonic() - member.idle_since > LINGER:
                    self.end(member)
            for role, seat in decision.start:
                self._start(role, seat)
            if self._nodes is not None:
                self._wait_for_nodes(self._nodes, decision, busy)

    def take(self, role: Role) -> Member | None:
        """A worker that is up, idle, and to stay: the caller's until it is given back."""
        with self._lock:
            if not any(member.activity is Activity.IDLE for member in self.members(role)):
                return None
            decision = self._decide()
            for member in self.members(role):
                if member.activity is Activity.IDLE and member.name not in decision.end:
                    member.taken, member.since, member.heard = True, time.monotonic(), time.monotonic()
                    return member
        return None

    def give_back(self, member: Member, sound: bool = True) -> None:
        """Idle again; or not sound, and ended."""
        with self._lock:
            if member.step is not None:
                if member.role is Role.LANE and sound:
                    self._tuned.append(time.monotonic() - member.since)
                member.idle_since = time.monotonic()
            member.taken, member.call, member.step = False, None, None
            if not sound:
                self.end(member)

    def end(self, member: Member) -> None:
        """End a worker; its GPUs are free when its processes are gone, and Ray has the next one wait for that."""
        with self._lock:
            if self._members.pop(member.name, None) is None:
                return
            if self._posts[member.role].gently:
                self._leaving.append((member.actor, member.actor.stop.remote(), time.monotonic()))
            else:
                ray.kill(member.actor)

    def stop(self, patience: float) -> None:
        """End everyone, by force those that have not ended after so many seconds."""
        with self._lock:
            for member in self.members():
                self.end(member)
            if self._leaving:
                stopped = [answer for _, answer, _ in self._leaving]
                ray.wait(stopped, num_returns=len(stopped), timeout=patience)
            for actor, _, _ in self._leaving:
                ray.kill(actor)
            self._leaving = []
            if self._growth is not None:
                self._growth.stop()

    def on_lost_node(self, member: Member) -> bool:
        """Whether a node that the worker had GPUs on is gone."""
        return any(node not in self._nodes.whole() for node, _ in member.seat) if self._nodes else False

    def _decide(self) -> Decision:
        nodes = self._nodes.free() if self._nodes else {}
        posts = {} if self.held_back() else self._posts
        sizes = {role: size for role, post in posts.items() if (size := post.size()) is not None}
        demands = {}
        for role, post in self._posts.items():
            demand = post.demand()
            may = role in sizes and self._failures[role] < STARTS
            demands[role] = demand if may else Demand(left=demand.left)
        workers = [
            Worker(name=member.name, role=member.role, seat=member.seat, activity=member.activity)
            for member in self.members()
            if all(node in nodes for node, _ in member.seat)
        ]
        return decide(nodes, workers, sizes, demands, self._turn())

    def _turn(self) -> int:
        """So many models that bringing workers up takes a tenth of the time of tuning them, and no fewer than usual."""
        if not self._tuned:
            return TURN
        return max(TURN, math.ceil(10 * sum(self._came_up.values()) / max(1.0, statistics.median(self._tuned))))

    def _start(self, role: Role, seat: Seat) -> None:
        self._hired += 1
        name = f"{role}-{self._hired}"
        actor, ready = self._posts[role].hire(name, seat)
        self._members[name] = Member(name, role, seat, actor, ready, time.monotonic())

    def _wait_for_nodes(self, nodes: Nodes, decision: Decision, busy: bool) -> None:
        """Ask a cluster that grows for what there is no room for; wait for one that does not, but not for ever.

        Raises:
            EnvironmentProblem: nothing has been running and nothing had room for too long.
        """
        wanted: Counter[Size] = Counter()
        for role, number in decision.lacking:
            if (size := self._posts[role].size()) is not None and size.gpus:
                wanted[size] += number
        unknown = any(post.demand().ready and post.size() is None for post in self._posts.values())
        if not wanted and unknown and not self.held_back() and not any(nodes.free().values()):
            wanted[Size(gpus=1)] += 1  # how large the others are is known when there is a GPU to ask
        if self._growth is not None:
            self._growth.ask(wanted)
        now = time.monotonic()
        if not wanted:
            self._waiting_since, self._said_waiting = None, False
        elif busy or any(member.seat or member.taken for member in self._members.values()):
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now
            if self._said_waiting:
                return
            self._said_waiting = True
            needs = " or ".join(str(size.gpus) for size in wanted)
            free, whole = sum(nodes.free().values()), sum(nodes.whole().values())
            self._say(f"Waiting for GPUs: {needs} in one place are needed; {free} of the cluster's {whole} are free.")
        elif self._growth is None and now - self._waiting_since > NODES_WITHIN:
            raise EnvironmentProblem(
                f"no room on the cluster's GPUs for {NODES_WITHIN / 60:.0f} minutes: {sum(nodes.free().values())} of "
                f"{sum(nodes.whole().values())} are free, and none of the workers that are needed fits. What is "
                "published stays; add GPUs and run again."
            )

    def _look(self, member: Member) -> None:
        """See whether a worker that comes up is up."""
        done, _ = ray.wait([member.ready], timeout=0)
        what = str(member.role)
        if not done:
            if time.monotonic() - member.since > READY_WITHIN:
                self._say(f"The {what} was not ready after {READY_WITHIN:.0f} s; starting it again.")
                self._failed(member)
            return
        try:
            sentence = ray.get(member.ready)
        except (RayError, EnvironmentProblem, UserError) as problem:
            self._say(f"The {what} did not start: {last_line(problem)}")
            self._posts[member.role].failed(problem)
            self._failed(member)
            return
        self._failures[member.role] = 0
        self._came_up[member.role] = seconds = time.monotonic() - member.since
        if self._posts[member.role].told:
            self._say(f"{what.capitalize()} ready in {seconds:.0f} s: {sentence}")
        member.ready, member.idle_since = None, time.monotonic()

    def _see_off(self) -> None:
        """Kill those who have stopped, or had time to."""
        staying = []
        for actor, stopped, since in self._leaving:
            done, _ = ray.wait([stopped], timeout=0)
            if done or time.monotonic() - since > STOPS_WITHIN:
                ray.kill(actor)
            else:
                staying.append((actor, stopped, since))
        self._leaving = staying

    def _failed(self, member: Member) -> None:
        if not self.on_lost_node(member):
            self._failures[member.role] += 1
        self.end(member)


def on_node(seat: Seat) -> dict[str, Any]:
    """Ray options that put an actor on its seat: all its GPUs on one node, that one or none."""
    if not seat:
        return {"num_gpus": 0}
    ((node, gpus),) = seat
    return {"num_gpus": gpus, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def gpus_on(seat: Seat) -> int:
    """How many; at least one, which is what an engine without a GPU counts as."""
    return max(1, sum(gpus for _, gpus in seat))


def last_line(problem: BaseException) -> str:
    """What happened, without Ray's list of what it may be due to."""
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[-1].partition(" Some common causes include")[0]
