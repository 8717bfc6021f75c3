"""Which steps can start now, which soon, and which of them first: the states of a plan's steps, in memory.

The board keeps one that follows the store; `benchmarks/schedule.py` keeps one that follows waits. Both hand steps
out in the same order, and tell the placement of workers the same about what waits.

This module must never know stores, leases or Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from enum import StrEnum
from typing import Any

from orchestrator.identity import Step
from orchestrator.plan import Plan
from orchestrator.run.placement import Demand, Role


class State(StrEnum):
    TODO = "todo"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


OPEN = (State.TODO, State.RUNNING, State.ELSEWHERE)
ENOUGH = 2000
"""Steps that are looked at to see how many models wait."""
KINDS = {Role.LANE: ("fine_tune",), Role.ENGINE: ("selection", "generation_set"), Role.JUDGE: ("comparison",)}
"""What each role does, what comes first named first: a selection has response sets behind it."""


class Agenda:
    """The steps of a plan and their states. Every question costs what it answers, not what the plan has."""

    def __init__(self, steps: Iterable[Step]) -> None:
        """Everything is still to do; a need that is not among the steps counts as met."""
        self.steps = {step.key: step for step in steps}
        self.states = dict.fromkeys(self.steps, State.TODO)
        self._position = {key: place for place, key in enumerate(self.steps)}
        self.users: dict[str, list[Step]] = {key: [] for key in self.steps}
        self._of_kind: dict[str, dict[State, dict[str, Step]]] = {}
        self._unmade = dict.fromkeys(self.steps, 0)
        """Needs of each step that are not done; and that nobody is on either."""
        self._unbegun = dict.fromkeys(self.steps, 0)
        self._first: set[str] = set()
        self._ready: dict[str, dict[str, Step]] = {}
        self._soon: dict[str, dict[str, Step]] = {}
        for step in self.steps.values():
            self._of_kind.setdefault(step.kind, {state: {} for state in State})[State.TODO][step.key] = step
            self._ready.setdefault(step.kind, {})
            self._soon.setdefault(step.kind, {})
            for needed in step.needs:
                if needed.key in self.steps:
                    self.users[needed.key].append(step)
                    self._unmade[step.key] += 1
                    self._unbegun[step.key] += 1
        self._file_all()

    def set(self, step: Step, state: State) -> State:
        """Change a state; returns the one before."""
        before = self.states[step.key]
        self.states[step.key] = state
        states = self._of_kind[step.kind]
        states[before].pop(step.key)
        states[state][step.key] = step
        self._file(step)
        made = (state is State.DONE) - (before is State.DONE)
        begun = (state in (State.DONE, State.RUNNING)) - (before in (State.DONE, State.RUNNING))
        if made or begun:
            for user in self.users[step.key]:
                self._unmade[user.key] -= made
                self._unbegun[user.key] -= begun
                self._file(user)
        if state is State.DONE and step.key in self._first:
            self._first.remove(step.key)
            if not self._first:
                self._file_all()
        return before

    def hold_back(self, first: Iterable[Step]) -> None:
        """Nothing but these is ready, or soon, until all of them are done."""
        self._first = {step.key for step in first if self.states[step.key] is not State.DONE}
        self._file_all()

    def goes_first(self, step: Step) -> bool:
        """Whether the others are held back for this one."""
        return step.key in self._first

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._of_kind)

    def in_state(self, kind: str, state: State) -> dict[str, Step]:
        """The steps of a kind in a state, by key."""
        return self._of_kind.get(kind, {}).get(state, {})

    def can_start(self, step: Step) -> bool:
        """Whether everything it needs is done."""
        return not self._unmade[step.key]

    def ready(self, kind: str, prefer: Callable[[Step], Any] | None = None) -> list[Step]:
        """Steps to do whose needs are done, the preferred (smallest) first; ties in plan order."""
        ready = sorted(self._ready.get(kind, {}).values(), key=lambda step: self._position[step.key])
        return ready if prefer is None else sorted(ready, key=prefer)

    def demand(self, role: Role, model_of: Callable[[Step], str]) -> Demand:
        """What waits for a role's workers."""
        ready = [step for kind in KINDS[role] for step in self._ready.get(kind, {}).values()]
        return Demand(
            ready=len(ready),
            soon=sum(len(self._soon.get(kind, {})) for kind in KINDS[role]),
            left=sum(
                len(self.in_state(kind, state)) for kind in KINDS[role] for state in (State.TODO, State.ELSEWHERE)
            ),
            models=len({model_of(step) for step in ready[:ENOUGH]}),
        )

    def _file_all(self) -> None:
        for step in self.steps.values():
            self._file(step)

    def _file(self, step: Step) -> None:
        key = step.key
        todo = self.states[key] is State.TODO and (not self._first or key in self._first)
        for where, belongs in (
            (self._ready, todo and not self._unmade[key]),
            (self._soon, todo and self._unmade[key] > 0 and not self._unbegun[key]),
        ):
            if belongs:
                where[step.kind][key] = step
            else:
                where[step.kind].pop(key, None)


class Order:
    """Which step a worker takes of those that are ready."""

    def __init__(self, models: Mapping[str, str], baselines: Set[str]) -> None:
        """
        Args:
            models: key of a step -> key of the model it belongs to.
            baselines: keys of the models that others are compared with.
        """
        self._models, self._baselines = models, baselines

    @classmethod
    def of(cls, plan: Plan) -> Order:
        return cls({key: model.key for key, model in plan.model_of_step.items()}, plan.baseline_keys())

    def model_of(self, step: Step) -> str:
        """Key of the model a step belongs to; of a comparison, the one that is compared."""
        return self._models[(step.needs[1] if step.kind == "comparison" else step).key]

    def next(self, claim: Callable[..., Step | None], role: Role, loaded: str = "") -> Step | None:
        """Claim a step: what a comparison waits for on two sides first, then what swaps no weights.

        Args:
            claim: takes a kind and ``prefer``, as the board's does.
            loaded: key of the model whose weights the worker has.
        """

        def rank(step: Step) -> tuple[bool, bool]:
            model = self.model_of(step)
            return (model != loaded, model not in self._baselines)

        for kind in KINDS[role]:
            step = claim(kind, prefer=rank)
            if step is not None:
                return step
        return None
