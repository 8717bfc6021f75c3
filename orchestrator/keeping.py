"""What stays on the disk: the keep rule of each sweep, applied to the checkpoints of its models.

``all`` keeps every checkpoint, ``best`` the selected one, ``scores`` none once a model's planned response sets are
there; responses, verdicts and scores always stay. A checkpoint goes only when every sweep that was ever run on the
store, and has that model, lets it go. Optimizer state is gone before a fine-tune is published.

This module frees weights and abandoned attempts; it must never remove anything else.
"""

from __future__ import annotations

import collections
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
from trainables.recipe import checkpoint_name, checkpoints_among


@dataclasses.dataclass(frozen=True)
class Freed:
    """Something that was, or would be, removed."""

    what: str
    bytes: int


class _Planned:
    """A plan, and its models by the key of their fine-tune."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.models: dict[str, list[Model]] = collections.defaultdict(list)
        for model in plan.models:
            if model.fine_tune is not None:
                self.models[model.fine_tune.key].append(model)


class Keeper:
    """Applies the keep rule of one plan, with an eye on the other sweeps of the store."""

    def __init__(self, plan: Plan, store: Store, say: Callable[[str], None]) -> None:
        self.plan, self.store, self._say = plan, store, say
        self._planned: dict[str, _Planned | None] = {}
        """Sweep of the store -> its plan; None where it cannot be worked out."""

    def remember(self, loaded: LoadedSweep) -> None:
        """Keep the sweep beside its results, so that `pinch gc` knows what is planned."""
        asked = loaded.sweep.model_dump(mode="json")
        name = f"sweeps/{loaded.sweep.name}-{key_of(asked)[:16]}.json"
        self.store.storage.create(name, as_json(asked))
        self._planned[name] = _Planned(self.plan)

    def check_room(self) -> None:
        """Refuse a run that will not fit on the disk.

        Raises:
            EnvironmentProblem: with what is needed and what is free.
        """
        needed = still_needed(self.plan, self.store, None if self._known() else "all")
        free = self.store.storage.free_bytes()
        if needed is not None and free is not None and needed > free:
            raise EnvironmentProblem(
                f"{self.store.location}: the run needs about {human_bytes(needed)} and {human_bytes(free)} are free; "
                "free some, choose another --store, or set runtime.keep: scores."
            )

    def after(self, step: Step) -> None:
        """Free what a step that was just published makes superfluous."""
        if step.kind in ("selection", "generation_set"):
            self._free([self.plan.model_of_step[step.key]])

    def sweep(self) -> None:
        """Free what the keep rule allows for every model of the plan."""
        self._free(self.plan.models)

    def _free(self, models: Iterable[Model]) -> None:
        if known := self._known():
            for model in models:
                list(_free_model(model, known, self.store, dry_run=False))

    def _known(self) -> list[_Planned]:
        """The sweeps that were run on the store; none where nothing may be freed, and why is said once."""
        rule = self.plan.sweep.runtime.keep
        if rule == "all":
            return []
        for name in self.store.storage.names("sweeps"):  # another may have begun since the last look
            if name not in self._planned:
                plan = _plan_of(name, self.store.storage.read(name) or b"")
                self._planned[name] = None if plan is None else _Planned(plan)
                if plan is None:
                    self._say(f"runtime.keep: {rule} frees nothing: {_unknown(name)}")
        known = [planned for planned in self._planned.values() if planned is not None]
        return known if len(known) == len(self._planned) else []


def remembered(store: Store) -> Iterator[tuple[str, Plan | None]]:
    """Every sweep that was run on a store, and its plan; None where that cannot be worked out: its inputs are gone."""
    for name, content in store.storage.read_all("sweeps").items():
        yield name, _plan_of(name, content)


def collect(store: Store, dry_run: bool, say: Callable[[str], None]) -> tuple[list[Freed], list[str]]:
    """What `pinch gc` does: (what was or would be freed, sentences about what was passed over)."""
    notes = []
    known = []
    for name, plan in remembered(store):
        if plan is None:
            notes.append(f"No checkpoint is removed: {_unknown(name)}")
        else:
            known.append(_Planned(plan))
    freed: list[Freed] = []
    if not notes:
        models = {model.key: model for planned in known for model in planned.plan.models}
        for model in models.values():
            freed += _free_model(model, known, store, dry_run)
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


def _unknown(name: str) -> str:
    return (
        "a sweep that was run on this store cannot be planned here and may want any checkpoint; put its inputs back, "
        f"or remove {name} from the store."
    )


def _free_model(model: Model, known: list[_Planned], store: Store, dry_run: bool) -> Iterator[Freed]:
    if model.fine_tune is None:
        return
    entry = store.find("fine_tune", model.fine_tune.key)
    if entry is None:
        return
    wanted: set[str] = set()
    for planned in known:
        for one in planned.models.get(entry.key, ()):
            wanted |= _wanted(one, planned.plan, store, entry)
    files = entry.manifest["files"]
    unwanted = set(checkpoints_among(files)) - wanted
    gone = [name for name in files if name.split("/")[0] in unwanted]
    if gone:
        size = sum(files[name]["bytes"] for name in gone)
        if not dry_run:
            store.free(entry, gone)
        folders = ", ".join(sorted({name.split("/")[0] for name in gone}))
        yield Freed(f"{entry.place}: {folders}", size)


def _wanted(model: Model, plan: Plan, store: Store, entry: Entry) -> set[str]:
    """The checkpoints one plan still wants of a fine-tune."""
    rule = plan.sweep.runtime.keep
    selection = store.find("selection", model.weights.key)
    if rule == "all" or selection is None:
        return set(checkpoints_among(entry.manifest["files"]))
    if rule == "scores" and all(_done(store, step) for step in plan.sets_of(model)):
        return set()
    return {checkpoint_name(selection.facts["selected"])}


def _done(store: Store, step: Step) -> bool:
    return store.find(step.kind, step.key) is not None
