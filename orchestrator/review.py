"""A plan held against a store: what would run, what is reused, what waits, what is blocked, and why.

Nothing is started, and of a store only what can be made from it again is written (see `orchestrator.store_index`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
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

Action = Literal["reuse", "wait", "run", "blocked"]
ACTIONS: tuple[Action, ...] = ("reuse", "wait", "run", "blocked")


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """What a run would do about one step, and why."""

    step: Step
    action: Action
    reason: str


class Standing:
    """What a store says of every step of an outline, row by row, without opening a step's own files."""

    def __init__(self, outline: Outline, store: Store, retry_failed: bool = False) -> None:
        """Args:
        retry_failed: count recorded failures as work to do, as ``pinch run --retry-failed`` would.
        """
        self.outline = outline
        self.failures = {} if retry_failed else store.failures()
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
        error = self.failures[self.outline.key(root)]["error"].strip().splitlines()[-1]
        return f"failed: {error}; try it again with pinch run --retry-failed"

    def behind(self, row: int) -> int:
        """How many steps a failed one blocks."""
        return int(np.count_nonzero(self.root == row)) - 1

    def count(self) -> dict[str, dict[Action, int]]:
        """Kind -> action -> how many steps."""
        counts = np.zeros((len(KINDS), len(ACTIONS)), int)
        np.add.at(counts, (self.outline.kinds, self.actions), 1)
        return {kind: dict(zip(ACTIONS, map(int, counts[place]), strict=True)) for place, kind in enumerate(KINDS)}

    def _roots(self) -> npt.NDArray[np.int64]:
        outline = self.outline
        root = np.full(len(outline), -1)
        keys = pa.array([bytes.fromhex(key) for key in self.failures], outline.keys.type)
        failed = np.asarray(pc.is_in(outline.keys, value_set=keys)) & ~self.done  # type: ignore[attr-defined]
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


def review(plan: Plan, store: Store, retry_failed: bool = False) -> list[Outlook]:
    """One outlook per step of the plan, in plan order; see :func:`outlooks`."""
    return list(outlooks(plan, store, retry_failed))


def outlooks(plan: Plan, store: Store, retry_failed: bool = False) -> Iterator[Outlook]:
    """One outlook per step of the plan, in plan order, one after another, as there may be millions.

    Args:
        retry_failed: count recorded failures as work to do, as ``pinch run --retry-failed`` would.
    """
    standing = Standing(Outline.of(plan), store, retry_failed)
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
        else:
            reason = reasons.why(step, steps[needed[row]] if needed[row] >= 0 else None)
        yield Outlook(step, action, reason)


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
