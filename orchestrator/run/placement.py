"""Which workers a run keeps, and on which GPUs: what is there and what is waiting in, what to start and end out.

A run has workers of three roles. A *lane* tunes, an *engine* answers, a *judge* compares; each holds its GPUs from its
start to its end, and does one step after another. Whenever something changes, :func:`decide` is told the whole state
and says what is to be started and ended. It remembers nothing, and must never know Ray, clocks, stores or steps: the
run asks it, and so does `benchmarks/schedule.py`, on a clock of its own.

The rules, the first that says something wins:

1. Work that is ready and fits is begun: where GPUs are free, or where a worker that has nothing to do can go.
2. The longest way to go is served first: fine-tunes, then engines, then judges.
3. A worker that came up for a role stays until that role has nothing ready, so that few GPUs are not spent on starts.
4. Lanes are the exception: once ``turn`` models per worker wait for an engine, or a judge, a lane that has just ended
   a fine-tune *gives way*. On a cluster with room for one lane that makes turns of so many models. Where lanes work
   side by side it is done only while many rounds of fine-tunes are left: in the last ones a lane that is missing
   leaves all the others waiting at the end.
5. What is free after that is made ready for what comes next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

TURN = 4
"""Models that may wait for each engine, or judge, before a lane gives way to another."""
MANY_ROUNDS = 8
"""From so many rounds of fine-tunes on, one more (an eighth) is worth having results early and a disk that holds."""


class Role(StrEnum):
    """In the order of the way to go: what a lane makes has an engine and a judge before it."""

    LANE = "lane"
    ENGINE = "engine"
    JUDGE = "judge"


class Activity(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"


Seat = tuple[tuple[str, int], ...]
"""Node and GPUs there, by node; empty for a worker without a GPU."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """What one worker of a role takes."""

    gpus: int
    """0 for a worker that needs none: it fits anywhere."""
    most: int | None = None
    """How many workers there may be; None for as many as fit."""
    together: bool = True
    """Whether all its GPUs must be in one node. A lane larger than any node may lie across several."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demand:
    """What waits for a role, in steps; all zero where it may not start yet."""

    ready: int = 0
    """Could be begun this moment, and nobody is on them."""
    soon: int = 0
    """Will be ready when what is being made now is made."""
    left: int = 0
    """All that are not done and not begun, ``ready`` and ``soon`` among them."""
    models: int = 0
    """How many models ``ready`` belongs to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Worker:
    name: str
    role: Role
    seat: Seat
    activity: Activity


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do now; ends come first, and what starts may use their GPUs."""

    end: tuple[str, ...] = ()
    start: tuple[tuple[Role, Seat], ...] = ()
    lacking: tuple[tuple[Role, int], ...] = ()
    """How many workers more there is work for, and no room."""


def decide(
    nodes: Mapping[str, int],
    workers: Iterable[Worker],
    sizes: Mapping[Role, Size],
    demands: Mapping[Role, Demand],
    turn: int,
) -> Decision:
    """What to start and what to end.

    Args:
        nodes: GPUs of every node that may be used, those that workers hold included.
        workers: all there are, none on other nodes.
        turn: see :data:`TURN`.
    """
    floor = _Floor(nodes, workers, sizes, demands)
    floor.dismiss()
    while floor.due(turn):
        pass
    for role in Role:
        while floor.lacks(role) and floor.serve(role):
            pass
    for role in Role:
        while floor.unprepared(role) and floor.start(role):
            pass
    lacking = [(role, floor.lacking(role)) for role in Role if floor.lacking(role)]
    return Decision(tuple(floor.ended), tuple(floor.started), tuple(lacking))


def _rounds(fine_tunes: int, lanes: int) -> int:
    """How often every lane must be used for so many fine-tunes."""
    return -(-fine_tunes // lanes)


class _Floor:
    """The state while a decision is made: what was decided so far is done to it."""

    def __init__(
        self,
        nodes: Mapping[str, int],
        workers: Iterable[Worker],
        sizes: Mapping[Role, Size],
        demands: Mapping[Role, Demand],
    ) -> None:
        self._nodes, self._sizes = nodes, sizes
        self._demands = {role: demands.get(role, Demand()) for role in Role}
        self._workers: dict[Role, dict[Activity, dict[str, Worker]]] = {
            role: {a: {} for a in Activity} for role in Role
        }
        self._free = dict(nodes)
        for worker in workers:
            self._workers[worker.role][worker.activity][worker.name] = worker
            self._take(worker.seat)
        self._new = dict.fromkeys(Role, 0)
        self.ended: list[str] = []
        self.started: list[tuple[Role, Seat]] = []

    # Questions

    def _of(self, role: Role, *activities: Activity) -> list[Worker]:
        return [worker for activity in activities or Activity for worker in self._workers[role][activity].values()]

    def _count(self, role: Role) -> int:
        return sum(map(len, self._workers[role].values())) + self._new[role]

    def _to_come(self, role: Role) -> int:
        """Workers that are, or will be, there for what is ready."""
        there = self._workers[role]
        return len(there[Activity.IDLE]) + len(there[Activity.STARTING]) + self._new[role]

    def _may_grow(self, role: Role) -> bool:
        size = self._sizes.get(role)
        return size is not None and (size.most is None or self._count(role) < size.most)

    def lacks(self, role: Role) -> bool:
        """Whether there is ready work that no worker of the role will take."""
        return self.lacking(role) > 0

    def lacking(self, role: Role) -> int:
        """Workers that this work would take."""
        return max(0, self._demands[role].ready - self._to_come(role)) if self._may_grow(role) else 0

    def unprepared(self, role: Role) -> bool:
        """The same, with the work that comes soon."""
        demand = self._demands[role]
        return self._may_grow(role) and demand.ready + demand.soon > self._to_come(role)

    def _spare(self) -> list[Worker]:
        """Workers that have nothing to do, the least missed first."""
        spare: list[Worker] = []
        for role in Role:
            idle, starting = self._of(role, Activity.IDLE), self._of(role, Activity.STARTING)
            ready = self._demands[role].ready
            spare += idle[min(ready, len(idle)) :]
            spare += starting[max(0, ready - len(idle)) :]
        return sorted(spare, key=lambda worker: (self._demands[worker.role].soon > 0, worker.activity, worker.name))

    def _spare_and_idle_lanes(self) -> list[Worker]:
        spare = self._spare()
        return spare + [lane for lane in self._of(Role.LANE, Activity.IDLE) if lane not in spare]

    def _may_give_way(self) -> bool:
        """Whether one lane less costs nothing that counts; see the module's fourth rule."""
        lanes, left = self._count(Role.LANE), self._demands[Role.LANE].left
        return not left or self._alone() or _rounds(left, max(1, lanes)) >= MANY_ROUNDS

    def _alone(self) -> bool:
        """Whether there is never room for two lanes."""
        size = self._sizes.get(Role.LANE)
        if size is None:
            return False
        first = _find(self._nodes, self._nodes, size)
        if first is None:
            return True
        rest = dict(self._nodes)
        for node, gpus in first:
            rest[node] -= gpus
        return _find(rest, self._nodes, size) is None

    # Deeds

    def dismiss(self) -> None:
        """End who waits for work that will not come."""
        for role in Role:
            demand = self._demands[role]
            if not demand.left and self._sizes.get(role, Size(gpus=0)).gpus:
                for worker in self._of(role, Activity.IDLE, Activity.STARTING):
                    self._end(worker)

    def due(self, turn: int) -> bool:
        """Start one engine or judge that lanes give way to; False when none is due, or has room."""
        if not self._may_give_way():
            return False
        for role in (Role.ENGINE, Role.JUDGE):
            if (
                self.lacks(role)
                and self._sizes[role].gpus
                and self._demands[role].models >= turn * (self._count(role) + 1)
                and (self.serve(role) or self.serve(role, self._spare_and_idle_lanes()))
            ):
                return True
        return False

    def serve(self, role: Role, leaving: Sequence[Worker] | None = None) -> bool:
        """Start a worker where there is room, or where those ``leaving`` (who have nothing to do) make it."""
        if self.start(role):
            return True
        victims = self._making_room(role, self._spare() if leaving is None else leaving)
        for worker in victims:
            self._end(worker)
        return bool(victims) and self.start(role)

    def start(self, role: Role) -> bool:
        """Start a worker where there is room."""
        seat = _find(self._free, self._nodes, self._sizes[role])
        if seat is None:
            return False
        self._take(seat)
        self.started.append((role, seat))
        self._new[role] += 1
        return True

    def _making_room(self, role: Role, leaving: Sequence[Worker]) -> list[Worker]:
        """The fewest of those ``leaving`` whose end makes room, on one node where that will do; none when it cannot."""
        size = self._sizes[role]
        best: list[Worker] = []
        for node in [*sorted(self._nodes), None]:
            free, ending = dict(self._free), []
            for worker in leaving:
                if node is not None and not any(name == node for name, _ in worker.seat):
                    continue
                if not worker.seat:
                    continue
                ending.append(worker)
                for name, gpus in worker.seat:
                    free[name] += gpus
                if _find(free, self._nodes, size) is not None:
                    if not best or len(ending) < len(best):
                        best = ending
                    break
        return best

    def _end(self, worker: Worker) -> None:
        del self._workers[worker.role][worker.activity][worker.name]
        self.ended.append(worker.name)
        for node, gpus in worker.seat:
            self._free[node] += gpus

    def _take(self, seat: Seat) -> None:
        for node, gpus in seat:
            self._free[node] -= gpus


def _find(free: Mapping[str, int], nodes: Mapping[str, int], size: Size) -> Seat | None:
    """Where a worker has room: the fullest node that holds it, so that whole nodes stay whole; None without room."""
    if not size.gpus:
        return ()
    holding = [(gpus, node) for node, gpus in free.items() if gpus >= size.gpus]
    if holding:
        return ((min(holding)[1], size.gpus),)
    if size.together or any(gpus >= size.gpus for gpus in nodes.values()):
        return None
    seat, wanted = [], size.gpus
    for gpus, node in sorted(((gpus, node) for node, gpus in free.items()), key=lambda item: (-item[0], item[1])):
        part = min(gpus, wanted)
        if part > 0:
            seat.append((node, part))
            wanted -= part
        if not wanted:
            return tuple(sorted(seat))
    return None
