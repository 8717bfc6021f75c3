"""What stays on the disk: the keep rule of each sweep, applied to the checkpoints of its models.

``all`` keeps every checkpoint, ``best`` the selected one, ``scores`` none once a model's planned response sets are
there; responses, verdicts and scores always stay. A checkpoint goes only when every sweep that was ever run on the
store, and has that model, lets it go. Optimizer state is gone before a fine-tune is published.

This module frees weights and abandoned attempts; it must never remove anything else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator

from orchestrator.cost import human_bytes, still_needed
from orchestrator.identity import Step, key_of
from orchestrator.plan import Model, Plan
from orchestrator.storage.base import as_json
from orchestrator.store import Entry, Store
from orchestrator.sweep import LoadedSweep, Sweep
from trainables.errors import EnvironmentProblem, UserError


@dataclasses.dataclass(frozen=True)
class Freed:
    """Something that was, or would be, removed."""

    what: str
    bytes: int


class Keeper:
    """Applies the keep rule of one plan, with an eye on the other sweeps of the store."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self._planned: dict[str, Plan | None] = {}
        """Sweep of the store -> its plan; None where it cannot be worked out."""

    def remember(self, loaded: LoadedSweep) -> None:
        """Keep the sweep beside its results, so that `pinch gc` knows what is planned."""
        asked = loaded.sweep.model_dump(mode="json")
        name = f"sweeps/{loaded.sweep.name}-{key_of(asked)[:16]}.json"
        self.store.storage.create(name, as_json(asked))
        self._planned[name] = self.plan

    def check_room(self) -> None:
        """Refuse a run that will not fit on the disk.

        Raises:
            EnvironmentProblem: with what is needed and what is free.
        """
        needed = still_needed(self.plan, self.store)
        free = self.store.storage.free_bytes()
        if needed is not None and free is not None and needed > free:
            raise EnvironmentProblem(
                f"{self.store.location}: the run needs about {human_bytes(needed)} and {human_bytes(free)} are free; "
                "free some, choose another --store, or set runtime.keep: scores."
            )

    def after(self, step: Step) -> None:
        """Free what a step that was just published makes superfluous."""
        if self.plan.sweep.runtime.keep == "all" or step.kind not in ("selection", "generation_set"):
            return
        self._free([self.plan.model_of_step[step.key]])

    def sweep(self) -> None:
        """Free what the keep rule allows for every model of the plan."""
        self._free(self.plan.models)

    def _free(self, models: Iterable[Model]) -> None:
        """Nothing while there is a sweep that cannot be worked out: it may want everything."""
        for name in self.store.storage.names("sweeps"):  # another may have begun since the last look
            if name not in self._planned:
                self._planned[name] = _plan_of(name, self.store.storage.read(name) or b"")
        plans = [plan for plan in self._planned.values() if plan is not None]
        if len(plans) == len(self._planned):
            for model in models:
                list(_free_model(model, [self.plan, *plans], self.store, dry_run=False))


def remembered(store: Store) -> Iterator[Plan]:
    """The plans of every sweep that was run on a store, as far as they can still be worked out.

    A sweep whose input files are gone cannot; it is passed over by name in `collect`.
    """
    for name, content in store.storage.read_all("sweeps").items():
        plan = _plan_of(name, content)
        if plan is not None:
            yield plan


def collect(store: Store, dry_run: bool, say: Callable[[str], None]) -> tuple[list[Freed], list[str]]:
    """What `pinch gc` does: (what was or would be freed, sentences about what was passed over)."""
    notes = []
    plans = []
    for name, content in store.storage.read_all("sweeps").items():
        plan = _plan_of(name, content)
        if plan is None:
            notes.append(f"{name}: its inputs are not there any more; its models are left as they are.")
        else:
            plans.append(plan)
    freed: list[Freed] = []
    if not notes:
        models = {model.key: model for plan in plans for model in plan.models}
        for model in models.values():
            freed += _free_model(model, plans, store, dry_run)
    for attempt in store.abandoned(
        lambda seconds: say(f"Looking for {seconds:.0f} s whether sessions on other machines are still there.")
    ):
        freed.append(Freed(f"attempts/{attempt.name} (its session is gone)", sum(attempt.files.values())))
        if not dry_run:
            store.discard(attempt)
    return freed, notes


def _plan_of(name: str, content: bytes) -> Plan | None:
    try:
        sweep = Sweep.model_validate(json.loads(content))
        return Plan(LoadedSweep(sweep, name, ()))
    except (UserError, ValueError):
        return None


def _free_model(model: Model, plans: list[Plan], store: Store, dry_run: bool) -> Iterator[Freed]:
    if model.fine_tune is None:
        return
    entry = store.find("fine_tune", model.fine_tune.key)
    if entry is None:
        return
    wanted: set[str] = set()
    for plan in plans:
        for planned in plan.models:
            if planned.fine_tune is not None and planned.fine_tune.key == entry.key:
                wanted |= _wanted(planned, plan, store, entry)
    gone = [name for name in entry.manifest["files"] if name.split("/")[0] in set(_checkpoints(entry)) - wanted]
    if gone:
        size = sum(entry.manifest["files"][name]["bytes"] for name in gone)
        if not dry_run:
            store.free(entry, gone)
        folders = ", ".join(sorted({name.split("/")[0] for name in gone}))
        yield Freed(f"{entry.place}: {folders}", size)


def _wanted(model: Model, plan: Plan, store: Store, entry: Entry) -> set[str]:
    """The checkpoints one plan still wants of a fine-tune."""
    rule = plan.sweep.runtime.keep
    selection = store.find("selection", model.weights.key)
    if rule == "all" or selection is None:
        return set(_checkpoints(entry))
    if rule == "scores" and all(_done(store, step) for step in plan.sets_of(model)):
        return set()
    return {f"checkpoint-{selection.facts['selected']:06d}"}


def _checkpoints(entry: Entry) -> list[str]:
    return sorted({name.split("/")[0] for name in entry.manifest["files"] if name.startswith("checkpoint-")})


def _done(store: Store, step: Step) -> bool:
    return store.find(step.kind, step.key) is not None
