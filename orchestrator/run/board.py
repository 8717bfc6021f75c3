"""What is done, what can start, and who is on it: the one place where a run decides what comes next.

There are no stages. A step can start when everything it needs is published; the board hands it out once, under a
lease, and looks again later when another session holds it. The store is what is true: the board only remembers
what it last saw there.

This module must never know how a step is made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from enum import StrEnum

from orchestrator.identity import Step
from orchestrator.store import Store

LOOK_AGAIN = 2.0
"""Seconds after which a step that another session holds is looked at again."""
TRIES = 3
"""How often a step is tried in one session when what fails is not the step itself."""


class State(StrEnum):
    TODO = "todo"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


class Board:
    """The steps of a plan and their states. Thread-safe: the tuner and the evaluation take from one board."""

    def __init__(self, steps: Iterable[Step], store: Store, on_change: Callable[[Step, State], None]) -> None:
        """Looks every step up in the store; failures recorded there stand until they are forgotten."""
        self.store = store
        self.steps = {step.key: step for step in steps}
        self.errors: dict[str, str] = {}
        self.made: list[Step] = []
        self._states: dict[str, State] = {}
        self._tries: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        self._users: dict[str, list[Step]] = {key: [] for key in self.steps}
        self._open: dict[str, dict[str, Step]] = {}
        self._lock = threading.RLock()
        self._on_change = on_change
        self.stopping = threading.Event()
        self.broken: str | None = None
        """Set when the machine, not a step, is what fails (a full disk): the run ends with this sentence."""
        for step in self.steps.values():
            for needed in step.needs:
                self._users[needed.key].append(step)
        failures = store.failures()
        for kind in {step.kind for step in self.steps.values()}:
            done = store.entries(kind)
            for step in self.steps.values():
                if step.kind == kind:
                    self._set(step, State.DONE if step.key in done else State.TODO)
        for key in failures.keys() & self.steps.keys():
            if self._states[key] is State.TODO:
                self._fail(self.steps[key], failures[key]["error"])

    # Questions

    def state(self, step: Step) -> State:
        return self._states[step.key]

    def counts(self, kind: str) -> dict[State, int]:
        """How many steps of a kind are in each state."""
        with self._lock:
            states = [self._states[key] for key, step in self.steps.items() if step.kind == kind]
        return {state: states.count(state) for state in State}

    def unfinished(self, *kinds: str) -> bool:
        """Whether any step of these kinds (of all, when none is named) is still to be done, here or elsewhere."""
        with self._lock:
            return any(bool(self._open.get(kind)) for kind in (kinds or tuple(self._open)))

    def gaps(self) -> list[tuple[Step, State, str]]:
        """The steps that ended without a result, each with why."""
        with self._lock:
            return [
                (step, self._states[key], self.errors.get(key, ""))
                for key, step in self.steps.items()
                if self._states[key] in (State.FAILED, State.BLOCKED)
            ]

    # Taking and giving back

    def claim(self, kind: str, prefer: Callable[[Step], int] | None = None) -> Step | None:
        """A step of this kind that can start now, leased to this session; None when there is none at the moment.

        Args:
            prefer: smaller comes first; ties in plan order.
        """
        with self._lock:
            if self.stopping.is_set():
                return None
            ready = [step for step in self._open.get(kind, {}).values() if self._can_start(step)]
            if prefer is not None:
                ready.sort(key=prefer)
            for step in ready:
                if self.store.find(step.kind, step.key) is not None:
                    self._set(step, State.DONE)
                elif self.store.sessions.acquire(step.key):
                    if self.store.find(step.kind, step.key) is not None:  # published while we asked
                        self.store.sessions.release(step.key)
                        self._set(step, State.DONE)
                        continue
                    self._set(step, State.RUNNING)
                    return step
                else:
                    self._looked[step.key] = time.monotonic()
                    self._set(step, State.ELSEWHERE)
            return None

    def done(self, step: Step) -> None:
        """This session published the step."""
        with self._lock:
            self.made.append(step)
            self._set(step, State.DONE)
        self.store.sessions.release(step.key)

    def failed(self, step: Step, error: str) -> None:
        """The step fails for good; what needs it is blocked by it."""
        self.store.record_failure(step, error)
        with self._lock:
            self._fail(step, error)
        self.store.sessions.release(step.key)

    def lost(self, step: Step, error: str) -> None:
        """The machinery failed, not the step: it is tried again, here or in the next session."""
        with self._lock:
            self._tries[step.key] = self._tries.get(step.key, 0) + 1
            if self._tries[step.key] >= TRIES:
                self._fail(step, f"gave up for this run after {TRIES} tries: {error}")
            else:
                self._set(step, State.TODO)
        self.store.sessions.release(step.key)

    def give_up(self, step: Step, error: str) -> None:
        """Trying again would not help and the step is not to blame: nothing more is handed out, the run ends."""
        with self._lock:
            self.broken = self.broken or f"{step.kind} {step.name}: {error}"
            self.stopping.set()
            self._set(step, State.TODO)
        self.store.sessions.release(step.key)

    def reopen(self) -> list[Step]:
        """Take back every step whose result is no longer in the store (it was quarantined); returns them."""
        self.store.refresh()
        with self._lock:
            there = {kind: self.store.entries(kind) for kind in {step.kind for step in self.steps.values()}}
            gone = [
                step
                for key, step in self.steps.items()
                if self._states[key] is State.DONE and key not in there[step.kind]
            ]
            for step in gone:
                self._set(step, State.TODO)
        return gone

    def _can_start(self, step: Step) -> bool:
        state = self._states[step.key]
        if state is State.RUNNING:
            return False
        if state is State.ELSEWHERE and time.monotonic() - self._looked[step.key] < LOOK_AGAIN:
            return False
        return all(self._states[needed.key] is State.DONE for needed in step.needs)

    def _fail(self, step: Step, error: str) -> None:
        self.errors[step.key] = error
        self._set(step, State.FAILED)
        waiting = list(self._users[step.key])
        while waiting:
            user = waiting.pop()
            if self._states.get(user.key) in (State.DONE, State.FAILED, State.BLOCKED):
                continue
            self.errors[user.key] = f"blocked by {step.kind} {step.name}"
            self._set(user, State.BLOCKED)
            waiting.extend(self._users[user.key])

    def _set(self, step: Step, state: State) -> None:
        before = self._states.get(step.key)
        self._states[step.key] = state
        of_kind = self._open.setdefault(step.kind, {})
        if state in (State.TODO, State.RUNNING, State.ELSEWHERE):
            of_kind[step.key] = step
        else:
            of_kind.pop(step.key, None)
        if before is not None and before is not state:
            self._on_change(step, state)
