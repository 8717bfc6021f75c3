"""A plan held against a store: what would run, what is reused, what waits, what is blocked, and why.

Nothing is started, and of a store only what can be made from it again is written (see `orchestrator.store_index`).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.identity import KINDS, Step, differences
from orchestrator.outline import Outline
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.store_index import Listing

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 300

Action = Literal["reuse", "wait", "run", "blocked"]
ACTIONS: tuple[Action, ...] = ("reuse", "wait", "run", "blocked")
State = Literal["done", "running", "to do", "failed", "blocked"]
STATES: tuple[State, ...] = ("done", "running", "to do", "failed", "blocked")
"""What the actions say of a step, in their order; and of what is blocked, whether it failed itself."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """What a run would do about one step, and why."""

    step: Step
    action: Action
    reason: str

    @property
    def state(self) -> State:
        """The step's state in words."""
        if self.action == "blocked":
            return "blocked" if self.reason.startswith("blocked by") else "failed"
        return STATES[ACTIONS.index(self.action)]


class Standing:
    """What a store says of every step of an outline, row by row, without opening a step's own files."""

    def __init__(self, outline: Outline, store: Store) -> None:
        self.outline = outline
        self.failures = store.failures()
        self.listings: dict[str, Listing] = {}
        done = np.zeros(len(outline), bool)
        for number, kind in enumerate(KINDS):
            rows = np.flatnonzero(outline.kinds == number)
            if len(rows):
                listing = self.listings[kind] = store.listing(kind)
                done[rows] = listing.holds(outline.keys.take(pa.array(rows)))
        self.done: npt.NDArray[np.bool_] = done
        self.root = self._roots()
        """The row of the failed step that a step is blocked by, itself where it failed; -1 for the others."""
        self.holders: dict[int, str] = self._waiting(store)
        """By row, who is making a step."""
        self.given_up: dict[int, str] = self._given_up(store)
        """By row, why the last run gave up a step that the next one tries again."""

    def failed(self) -> list[int]:
        """The rows of what failed for good."""
        return [int(row) for row in np.flatnonzero(self.root == np.arange(len(self.outline)))]

    @functools.cached_property
    def actions(self) -> npt.NDArray[np.int8]:
        """By row, the place of its action in ACTIONS."""
        actions = np.where(self.done, 0, np.where(self.root >= 0, 3, 2)).astype(np.int8)
        actions[list(self.holders)] = 1
        return actions

    @functools.cached_property
    def needed_first(self) -> npt.NDArray[np.int64]:
        """By row, the first of what a step needs that is not there; -1 where everything is."""
        missing = ~self.done[self.outline.needs]
        users, first = np.unique(self.outline.needed_by[missing], return_index=True)
        found = np.full(len(self.outline), -1)
        found[users] = self.outline.needs[missing][first]
        return found

    def blocked_by(self, row: int) -> str:
        """Why a step is blocked."""
        root = int(self.root[row])
        if root != row:
            return f"blocked by {self.outline.name(root)}"
        return f"failed: {in_a_sentence(self.error(root))}; try it again with pinch run --retry-failed"

    def error(self, row: int) -> str:
        """The whole error of a step that failed for good."""
        return self.failures[self.outline.key(row)]["error"]

    def behind(self, row: int) -> int:
        """How many steps a failed one blocks."""
        return int(np.count_nonzero(self.root == row)) - 1

    def count(self) -> dict[str, dict[State, int]]:
        """Kind -> state -> how many steps."""
        states = np.where(self.actions == ACTIONS.index("blocked"), STATES.index("blocked"), self.actions)
        states[self.failed()] = STATES.index("failed")
        counts = np.zeros((len(KINDS), len(STATES)), int)
        np.add.at(counts, (self.outline.kinds, states), 1)
        return {kind: dict(zip(STATES, map(int, counts[place]), strict=True)) for place, kind in enumerate(KINDS)}

    def _roots(self) -> npt.NDArray[np.int64]:
        outline = self.outline
        root = np.full(len(outline), -1)
        failed = self._among(self.failures) & ~self.done
        root[failed] = np.flatnonzero(failed)
        while failed.any():
            blocked = (root[outline.needs] >= 0) & ~(self.done | failed)[outline.needed_by]
            users, first = np.unique(outline.needed_by[blocked], return_index=True)
            now = root.copy()
            now[users] = root[outline.needs[blocked][first]]
            if np.array_equal(now, root):
                break
            root = now
        return root

    def _among(self, keys: Iterable[str]) -> npt.NDArray[np.bool_]:
        """By row, whether its key is one of these."""
        found = pa.array([bytes.fromhex(key) for key in keys], self.outline.keys.type)
        return np.asarray(pc.is_in(self.outline.keys, value_set=found))  # type: ignore[attr-defined]

    def _given_up(self, store: Store) -> dict[int, str]:
        recorded = store.failures(for_good=False)
        rows = np.flatnonzero(self._among(recorded) & (self.actions == ACTIONS.index("run")))
        errors = {int(row): recorded[self.outline.key(int(row))]["error"] for row in rows}
        return {
            row: f"given up in the last run: {in_a_sentence(error)}; the next run tries it again"
            for row, error in errors.items()
        }

    def _waiting(self, store: Store) -> dict[int, str]:
        holders: dict[int, str] = {}
        held = store.sessions.holders()
        if held:
            begin = pc.binary_slice(self.outline.keys, 0, 8)  # type: ignore[attr-defined]
            keys = pa.array(map(bytes.fromhex, held), begin.type)
            for row in np.flatnonzero(np.asarray(pc.is_in(begin, value_set=keys))):  # type: ignore[attr-defined]
                if not self.done[row] and self.root[row] < 0:
                    holders[int(row)] = held[self.outline.key(int(row))[:16]]
        return holders


def review(plan: Plan, store: Store) -> list[Outlook]:
    """One outlook per step of the plan, in plan order; see :func:`outlooks`."""
    return list(outlooks(plan, store))


def outlooks(plan: Plan, store: Store) -> Iterator[Outlook]:
    """One outlook per step of the plan, in plan order, one after another, as there may be millions."""
    standing = Standing(Outline.of(plan), store)
    reasons = _Reasons(standing.listings)
    steps, needed = plan.steps, standing.needed_first.tolist()
    for row, (step, number) in enumerate(zip(steps, standing.actions.tolist(), strict=True)):
        action = ACTIONS[number]
        if action == "reuse":
            reason = f"made {standing.listings[step.kind].made_at(step.key)}"
        elif action == "blocked":
            reason = standing.blocked_by(row)
        elif action == "wait":
            reason = f"being made by {standing.holders[row]}"
        elif row in standing.given_up:
            reason = standing.given_up[row]
        else:
            reason = reasons.why(step, steps[needed[row]] if needed[row] >= 0 else None)
        yield Outlook(step, action, reason)


def in_a_sentence(error: str) -> str:
    """The line of an error that says what happened: the first, or of a trace, which ends with it, the last."""
    lines = [line.strip() for line in _COLOUR.sub("", error).splitlines() if line.strip()] or ["no error was recorded"]
    said = lines[-1] if lines[0].startswith(("ray::", "Traceback")) else lines[0]
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."


def explained(failed: Iterable[tuple[str, str]], blocked: Mapping[str, int], most: int | None = None) -> list[str]:
    """Why steps have no result: a sentence for each that failed, and one for what each of these blocks.

    Args:
        failed: the name of each, ``fine_tune mono-fi``, and its error.
        blocked: why steps are, ``blocked by fine_tune mono-fi``, and how many.
        most: no more than so many failures; the last sentence says how many there are.
    """
    failures = [f"Failed: {name}: {in_a_sentence(error)}" for name, error in failed]
    said = failures[:most]
    if len(failures) > len(said):
        said.append(f"... and {len(failures) - len(said)} more failed.")
    counts = collections.Counter(blocked).most_common(most)
    return said + [f"{count} {'step is' if count == 1 else 'steps are'} {reason}." for reason, count in counts]


class _Reasons:
    """Why a step is not there yet, in terms of the most similar result that is."""

    def __init__(self, listings: dict[str, Listing]) -> None:
        self._listings = listings

    def why(self, step: Step, needs: Step | None) -> str:
        """Args:
        needs: the first of what the step needs that is not there either.
        """
        listing = self._listings[step.kind]
        if len(listing):
            relatives = listing.of_family(step.family)
            if relatives and step.family != step.key:
                return f"new because {differences(relatives[-1].payload, step.payload)[0]}; what is there is taken over"
            changes = [differences(made.payload, step.payload) for made in listing.named(step.name)]
            changes = [change for change in changes if change]
            if changes:
                fewest = min(changes, key=len)
                shown = ", ".join(fewest[:3]) + (f" and {len(fewest) - 3} more" if len(fewest) > 3 else "")
                return f"new because {shown}"
        if needs is not None:
            return f"not made yet; needs {needs.kind} {needs.name} first"
        return "not made yet"
