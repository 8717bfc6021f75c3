"""What is done, what can start, and who is on it: the one place where a run decides what comes next.

There are no stages. A step can start when everything it needs is published; the board hands it out once, under a
lease, and looks again later when another session holds it. The store is what is true: the board only remembers
what it last saw there.

This module must never know how a step is made.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.identity import Step
from orchestrator.review import in_a_sentence
from orchestrator.run.agenda import KINDS, OPEN, Agenda, State
from orchestrator.run.placement import Demand, Role
from orchestrator.store import Corrupt, Store

__all__ = ["Board", "State"]

LOOK_AGAIN = 2.0
"""Seconds after which a step that another session holds is looked at again."""
TRIES = 3
"""How often a step is tried in one session when what fails is not the step itself."""


class Board:
    """The steps of a plan and their states. Thread-safe: the tuner and the evaluation take from one board."""

    def __init__(self, steps: Iterable[Step], store: Store, on_change: Callable[[Step, State], None]) -> None:
        """Looks every step up in the store; failures recorded there stand until they are forgotten."""
        self.store = store
        self.agenda = Agenda(steps)
        self.steps = self.agenda.steps
        self.errors: dict[str, str] = {}
        self.made: list[Step] = []
        self._tries: dict[str, int] = {}
        self._looked: dict[str, float] = {}
        self._lock = threading.RLock()
        self._on_change = on_change
        self.stopping = threading.Event()
        self.broken: str | None = None
        """Set when the machine, not a step, is what fails (a full disk): the run ends with this sentence."""
        self.stopped: str | None = None
        """Set when a step that everything else was held back for has no result: the run ends, with this sentence."""
        failures = store.failures()
        done = store.listings(self.steps.values())
        for step in self.steps.values():
            if step.key in done[step.kind]:
                self.agenda.set(step, State.DONE)
        for key in failures.keys() & self.steps.keys():
            if self.agenda.states[key] is State.TODO:
                self._fail(self.steps[key], failures[key]["error"])

    # Questions

    def state(self, step: Step) -> State:
        return self.agenda.states[step.key]

    def has(self, *kinds: str) -> bool:
        """Whether there are steps of these kinds, in whatever state."""
        return not set(kinds).isdisjoint(self.agenda.kinds)

    def counts(self, kind: str) -> dict[State, int]:
        """How many steps of a kind are in each state."""
        with self._lock:
            return {state: len(self.agenda.in_state(kind, state)) for state in State}

    def unfinished(self, *kinds: str) -> bool:
        """Whether any step of these kinds (of all, when none is named) is still to be done, here or elsewhere."""
        with self._lock:
            return any(self.agenda.in_state(kind, state) for kind in (kinds or self.agenda.kinds) for state in OPEN)

    def demand(self, role: Role, model_of: Callable[[Step], str]) -> Demand:
        """What waits for the workers of a role."""
        with self._lock:
            self.look_again(*KINDS[role])
            return self.agenda.demand(role, model_of)

    def gaps(self) -> list[tuple[Step, State, str]]:
        """The steps that ended without a result, each with why."""
        with self._lock:
            return [
                (step, self.agenda.states[key], self.errors.get(key, ""))
                for key, step in self.steps.items()
                if self.agenda.states[key] in (State.FAILED, State.BLOCKED)
            ]

    # Taking and giving back

    def hold_back(self, first: Iterable[Step]) -> None:
        """Hand nothing but these out until they are done; when one of them is not to be had, nothing else at all."""
        with self._lock:
            self.agenda.hold_back(first)

    def claim(self, kind: str, prefer: Callable[[Step], Any] | None = None) -> Step | None:
        """A step of this kind that can start now, leased to this session; None when there is none at the moment.

        Args:
            prefer: smaller comes first; ties in plan order.
        """
        with self._lock:
            if self.stopping.is_set():
                return None
            self.look_again(kind)
            for step in self.agenda.ready(kind, prefer):
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

    def look_again(self, *kinds: str) -> None:
        """See what has become of steps that other sessions held a while ago."""
        with self._lock:
            now = time.monotonic()
            for kind in kinds:
                for step in list(self.agenda.in_state(kind, State.ELSEWHERE).values()):
                    if now - self._looked[step.key] < LOOK_AGAIN or not self.agenda.can_start(step):
                        continue
                    if self.store.find(step.kind, step.key) is not None:
                        self._set(step, State.DONE)
                    elif self.store.sessions.holder(step.key) is None:
                        self._set(step, State.TODO)
                    else:
                        self._looked[step.key] = now

    def done(self, step: Step) -> None:
        """This session published the step."""
        with self._lock:
            self.made.append(step)
            self._set(step, State.DONE)
        self.store.sessions.release(step.key)

    def failed(self, step: Step, error: str) -> None:
        """The step fails for good; what needs it is blocked by it."""
        if self._taken_over(step):
            return
        self.store.record_failure(step, error)
        with self._lock:
            self._fail(step, error)
        self.store.sessions.release(step.key)

    def lost(self, step: Step, error: str, blameless: bool = False) -> None:
        """The machinery failed, not the step: it is tried again, here or in the next session.

        Args:
            blameless: it is known that the step had no part in it (its node went away): this is no try of it.
        """
        if self._taken_over(step):
            return
        with self._lock:
            if not blameless:
                self._tries[step.key] = self._tries.get(step.key, 0) + 1
            if self._tries.get(step.key, 0) >= TRIES:
                with contextlib.suppress(OSError):  # what cannot be written down is still said at the end of the run
                    self.store.record_failure(step, error, for_good=False)
                self._fail(step, f"gave up for this run after {TRIES} tries: {in_a_sentence(error)}")
            else:
                self._set(step, State.TODO)
        self.store.sessions.release(step.key)

    def give_up(self, step: Step, error: str) -> None:
        """Trying again would not help and the step is not to blame: nothing more is handed out, the run ends."""
        if self._taken_over(step):
            return
        with self._lock:
            self.broken = self.broken or f"{step.kind} {step.name}: {error}"
            self.stopping.set()
            self._set(step, State.TODO)
        self.store.sessions.release(step.key)

    def _taken_over(self, step: Step) -> bool:
        """Whether another session has the step, or had: what went wrong here may be that it took the files along."""
        with contextlib.suppress(OSError):
            if not self.store.sessions.holds(step.key):
                with self._lock:
                    self._looked[step.key] = 0.0
                    self._set(step, State.ELSEWHERE)
                return True
        return False

    def reopen(self) -> list[Step]:
        """Take back every step whose result is no longer in the store (it was quarantined); returns them."""
        self.store.refresh()
        with self._lock:
            there = self.store.listings(self.steps.values())
            gone = [
                step
                for key, step in self.steps.items()
                if self.agenda.states[key] is State.DONE and key not in there[step.kind]
            ]
            for step in gone:
                self._set(step, State.TODO)
        return gone

    def quarantined(self, problem: Corrupt) -> str:
        """As :meth:`reopen`, and a sentence of it."""
        return f"{problem}: quarantined; making it again ({len(self.reopen())} steps)."

    def _fail(self, step: Step, error: str) -> None:
        self.errors[step.key] = error
        self._set(step, State.FAILED)
        waiting = list(self.agenda.users[step.key])
        while waiting:
            user = waiting.pop()
            if self.agenda.states[user.key] in (State.DONE, State.FAILED, State.BLOCKED):
                continue
            self.errors[user.key] = f"blocked by {step.kind} {step.name}"
            self._set(user, State.BLOCKED)
            waiting.extend(self.agenda.users[user.key])

    def _set(self, step: Step, state: State) -> None:
        before = self.agenda.set(step, state)
        if state is State.FAILED and self.agenda.goes_first(step):
            self.stopped = f"the canary's {step.kind} {step.name} failed; nothing else was begun"
            self.stopping.set()
        if before is not state:
            self._on_change(step, state)
