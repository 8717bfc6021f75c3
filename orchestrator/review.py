"""A plan held against a store: what would run, what is reused, what waits, what is blocked, and why.

Nothing is started and nothing is written.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from orchestrator.identity import Step, differences
from orchestrator.plan import Plan
from orchestrator.store import Entry, Store

Action = Literal["run", "reuse", "wait", "blocked"]


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What a run would do about one step, and why."""

    step: Step
    action: Action
    reason: str


def review(plan: Plan, store: Store, retry_failed: bool = False) -> list[Outlook]:
    """One outlook per step of the plan, in plan order.

    Args:
        retry_failed: count recorded failures as work to do, as ``pinch run --retry-failed`` would.
    """
    failures = {} if retry_failed else store.failures()
    done = {kind: store.entries(kind) for kind in {step.kind for step in plan.steps}}
    holders = store.sessions.holders()
    reasons = _Reasons(done)
    outlooks: dict[str, Outlook] = {}
    for step in plan.steps:
        outlooks[step.key] = _look(step, outlooks, done[step.kind].get(step.key), failures, holders, reasons)
    return list(outlooks.values())


def _look(
    step: Step,
    before: dict[str, Outlook],
    entry: Entry | None,
    failures: dict[str, dict[str, str]],
    holders: dict[str, str],
    reasons: _Reasons,
) -> Outlook:
    if entry is not None:
        return Outlook(step, "reuse", f"made {entry.manifest['made']['at']}")
    if step.key in failures:
        error = failures[step.key]["error"].strip().splitlines()[-1]
        return Outlook(step, "blocked", f"failed: {error}; try it again with pinch run --retry-failed")
    for needed in step.needs:
        outlook = before[needed.key]
        if outlook.action == "blocked":
            root = (
                outlook.reason if outlook.reason.startswith("blocked by") else f"blocked by {needed.kind} {needed.name}"
            )
            return Outlook(step, "blocked", root)
    holder = holders.get(step.key[:16])
    if holder is not None:
        return Outlook(step, "wait", f"being made by {holder}")
    return Outlook(step, "run", reasons.why(step, [before[needed.key] for needed in step.needs]))


class _Reasons:
    """Why a step is not there yet, in terms of the most similar result that is."""

    def __init__(self, done: dict[str, dict[str, Entry]]) -> None:
        self._named: dict[tuple[str, str], list[Entry]] = {}
        self._families: dict[str, Entry] = {}
        for kind, entries in done.items():
            for entry in entries.values():
                self._named.setdefault((kind, entry.name), []).append(entry)
                self._families[entry.manifest["family"]] = entry

    def why(self, step: Step, needs: list[Outlook]) -> str:
        relative = self._families.get(step.family)
        if relative is not None and step.family != step.key:
            return (
                f"new because {differences(relative.manifest['payload'], step.payload)[0]}; what is there is taken over"
            )
        similar = self._named.get((step.kind, step.name), [])
        changes = [differences(entry.manifest["payload"], step.payload) for entry in similar]
        changes = [change for change in changes if change]
        if changes:
            fewest = min(changes, key=len)
            shown = ", ".join(fewest[:3]) + (f" and {len(fewest) - 3} more" if len(fewest) > 3 else "")
            return f"new because {shown}"
        waiting = [outlook.step for outlook in needs if outlook.action != "reuse"]
        if waiting:
            return f"not made yet; needs {waiting[0].kind} {waiting[0].name} first"
        return "not made yet"
