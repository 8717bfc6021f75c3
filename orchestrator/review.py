"""A plan held against a store: what would run, what is reused, what waits, what is blocked, and why.

Nothing is started and nothing is written.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

from orchestrator.identity import Step, differences
from orchestrator.plan import Plan
from orchestrator.store import Entry, Store

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 300

Action = Literal["run", "reuse", "wait", "blocked"]
State = Literal["done", "running", "to do", "failed", "blocked"]
_STATES: dict[str, State] = {"reuse": "done", "wait": "running", "run": "to do"}


@dataclasses.dataclass(frozen=True)
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
        return _STATES[self.action]


def review(plan: Plan, store: Store, retry_failed: bool = False) -> list[Outlook]:
    """One outlook per step of the plan, in plan order.

    Args:
        retry_failed: count recorded failures as work to do, as ``pinch run --retry-failed`` would.
    """
    failures = {} if retry_failed else store.failures()
    given_up = store.failures(for_good=False)
    done = {kind: store.entries(kind) for kind in {step.kind for step in plan.steps}}
    reasons = _Reasons(done)
    outlooks: dict[str, Outlook] = {}
    for step in plan.steps:
        outlooks[step.key] = _look(step, outlooks, done[step.kind].get(step.key), failures, store, reasons, given_up)
    return list(outlooks.values())


def _look(
    step: Step,
    before: dict[str, Outlook],
    entry: Entry | None,
    failures: dict[str, dict[str, str]],
    store: Store,
    reasons: _Reasons,
    given_up: dict[str, dict[str, str]],
) -> Outlook:
    if entry is not None:
        return Outlook(step, "reuse", f"made {entry.manifest['made']['at']}")
    if step.key in failures:
        error = failures[step.key]["error"]
        return Outlook(step, "blocked", f"failed: {in_a_sentence(error)}; try it again with pinch run --retry-failed")
    for needed in step.needs:
        outlook = before[needed.key]
        if outlook.action == "blocked":
            root = (
                outlook.reason if outlook.reason.startswith("blocked by") else f"blocked by {needed.kind} {needed.name}"
            )
            return Outlook(step, "blocked", root)
    holder = store.sessions.holder(step.key)
    if holder is not None:
        return Outlook(step, "wait", f"being made by {holder}")
    if step.key in given_up:
        error = given_up[step.key]["error"]
        return Outlook(step, "run", f"given up in the last run: {in_a_sentence(error)}; the next run tries it again")
    return Outlook(step, "run", reasons.why(step, [before[needed.key] for needed in step.needs]))


def in_a_sentence(error: str) -> str:
    """The line of an error that says what happened: the first, or of a trace, which ends with it, the last."""
    lines = [line.strip() for line in _COLOUR.sub("", error).splitlines() if line.strip()] or ["no error was recorded"]
    said = lines[-1] if lines[0].startswith(("ray::", "Traceback")) else lines[0]
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."


def explained(failed: Iterable[tuple[Step, str]], blocked: Iterable[str], most: int | None = None) -> list[str]:
    """Why steps have no result: a sentence for each that failed, and one for what each of these blocks.

    Args:
        failed: each with its error.
        blocked: of each step that is, the reason: ``blocked by fine_tune mono-fi``.
        most: no more than so many failures; the last sentence says how many there are.
    """
    failures = [f"Failed: {step.kind} {step.name}: {in_a_sentence(error)}" for step, error in failed]
    said = failures[:most]
    if len(failures) > len(said):
        said.append(f"... and {len(failures) - len(said)} more failed.")
    counts = collections.Counter(blocked).most_common(most)
    return said + [f"{count} {'step is' if count == 1 else 'steps are'} {reason}." for reason, count in counts]


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
