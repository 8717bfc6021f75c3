"""A sweep's steps as waits on a clock that only jumps: for `benchmarks/schedule.py`.

What decides is what decides in a run: `orchestrator.run.placement` which workers there are, `orchestrator.run.agenda`
which step comes next. Here are a clock, workers that wait, and nodes that are lost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from orchestrator.identity import Step
from orchestrator.run.agenda import KINDS, OPEN, Agenda, Order, State
from orchestrator.run.placement import Activity, Role, Size, Worker, decide

ROLE_OF = {kind: role for role, kinds in KINDS.items() for kind in kinds}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds, of a kind of step or of coming up; each step's own lies up to ``spread`` of that to either side."""

    step: Mapping[str, float]
    start: Mapping[Role, float]
    swap: float
    """Of an engine to other weights."""
    spread: float
    state_every: float
    """Share of a fine-tune between two states that it can go on from."""
    noticed: float
    """From the loss of a node to the run hearing of it."""
    replaced: float
    """From the loss of a node to another in its seat."""

    def of(self, step: Step) -> float:
        """How long a step takes; the same for the same step."""
        draw = int(hashlib.sha256(step.key.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        return self.step[step.kind] * (1 + self.spread * (2 * draw - 1))


@dataclasses.dataclass(frozen=True)
class Bound:
    """No schedule ends earlier; starts and swaps of weights are not counted."""

    work: float
    """Seconds that all GPUs together need."""
    path: float
    """Seconds of the longest chain of steps."""

    @property
    def seconds(self) -> float:
        return max(self.work, self.path)


def bound(steps: Sequence[Step], times: Times, sizes: Mapping[Role, Size], gpus: int) -> Bound:
    """The lower bound of a sweep on so many GPUs."""
    ends: dict[str, float] = {}
    total = 0.0
    for step in steps:
        seconds = times.of(step) if step.kind in ROLE_OF else 0.0
        ends[step.key] = seconds + max((ends[needed.key] for needed in step.needs), default=0.0)
        total += seconds * sizes[ROLE_OF[step.kind]].gpus if step.kind in ROLE_OF else 0.0
    return Bound(total / gpus, max(ends.values()))


@dataclasses.dataclass
class _Waiter:
    worker: Worker
    step: Step | None = None
    began: float = 0.0
    loaded: str = ""


class VirtualCluster:
    """One run of a sweep."""

    def __init__(
        self,
        steps: Sequence[Step],
        order: Order,
        nodes: Mapping[str, int],
        sizes: Mapping[Role, Size],
        times: Times,
        turn: int,
    ) -> None:
        self.now = 0.0
        self._nodes, self._sizes, self._times, self._turn = dict(nodes), sizes, times, turn
        self._agenda, self._order = Agenda(steps), order
        self._waiters: dict[str, _Waiter] = {}
        self._left = {step.key: times.of(step) for step in steps if step.kind in ROLE_OF}
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        for step in steps:
            if step.kind not in ROLE_OF:
                self._agenda.set(step, State.DONE)

    def lose_nodes(self, every: float, seed: int) -> None:
        """Lose a node, drawn at random, every so many seconds."""
        draw = random.Random(seed)

        def lose() -> None:
            if self._nodes:
                self._lose(draw.choice(sorted(self._nodes)))
            self._after(every, lose)

        self._after(every, lose)

    def run(self) -> float:
        """Until everything is done; returns when that is, in seconds."""
        self._settle()
        while any(self._agenda.in_state(kind, state) for kind in ROLE_OF for state in OPEN):
            if not self._events:
                raise RuntimeError("nothing is under way and not everything is done")
            self.now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)
            self._settle()
        return self.now

    def _after(self, seconds: float, event: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event, arguments))

    def _settle(self) -> None:
        """Start, end and hand out until nothing changes."""
        while True:
            demands = {role: self._agenda.demand(role, self._order.model_of) for role in Role}
            workers = [waiter.worker for waiter in self._waiters.values()]
            decision = decide(self._nodes, workers, self._sizes, demands, self._turn)
            for name in decision.end:
                del self._waiters[name]
            for role, seat in decision.start:
                worker = Worker(name=f"{role}-{next(self._numbers)}", role=role, seat=seat, activity=Activity.STARTING)
                self._waiters[worker.name] = _Waiter(worker)
                self._after(self._times.start[role], self._up, worker.name)
            handed = [self._hand(waiter) for waiter in self._waiters.values() if waiter.worker.activity == "idle"]
            if not (decision.end or decision.start or any(handed)):
                return

    def _up(self, name: str) -> None:
        if name in self._waiters:
            self._be(self._waiters[name], Activity.IDLE)

    def _be(self, waiter: _Waiter, activity: Activity) -> None:
        waiter.worker = dataclasses.replace(waiter.worker, activity=activity)

    def _claim(self, kind: str, prefer: Callable[[Step], Any]) -> Step | None:
        return next(iter(self._agenda.ready(kind, prefer)), None)

    def _hand(self, waiter: _Waiter) -> bool:
        step = self._order.next(self._claim, waiter.worker.role, waiter.loaded)
        if step is None:
            return False
        self._agenda.set(step, State.RUNNING)
        self._be(waiter, Activity.BUSY)
        model = self._order.model_of(step)
        swap = self._times.swap if waiter.worker.role is Role.ENGINE and waiter.loaded != model else 0.0
        waiter.step, waiter.began, waiter.loaded = step, self.now + swap, model
        self._after(swap + self._left[step.key], self._end, waiter.worker.name, step)
        return True

    def _end(self, name: str, step: Step) -> None:
        waiter = self._waiters.get(name)
        if waiter is None or waiter.step is not step:
            return
        waiter.step = None
        self._be(waiter, Activity.IDLE)
        self._agenda.set(step, State.DONE)

    def _lose(self, node: str) -> None:
        gpus = self._nodes.pop(node)
        self._after(self._times.replaced, self._nodes.__setitem__, f"{node}+", gpus)
        for name, waiter in list(self._waiters.items()):
            if any(where == node for where, _ in waiter.worker.seat):
                del self._waiters[name]
                if waiter.step is not None:
                    self._after(self._times.noticed, self._again, waiter.step, self.now - waiter.began)

    def _again(self, step: Step, did: float) -> None:
        """A step whose worker was lost is to be done again; a fine-tune from its last state."""
        if step.kind == "fine_tune":
            every = self._times.state_every * self._times.of(step)
            self._left[step.key] -= max(0.0, did) // every * every
        self._agenda.set(step, State.TODO)
