"""What stays on the disk: the keep rule of each sweep, applied to the checkpoints of its models.

``all`` keeps every checkpoint, ``best`` the selected one, ``scores`` none once a model's planned response sets are
there; responses, verdicts and scores always stay. A checkpoint goes only when every sweep that was ever run on the
store, and has that model, lets it go; of each, its last run counts. Optimizer state is gone before a fine-tune is
published.

This module frees weights and abandoned attempts; it must never remove anything else.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.cost import human_bytes, still_needed
from orchestrator.identity import KEY_SCHEMA, Step, key_of
from orchestrator.plan import Model, Plan
from orchestrator.storage.base import as_json
from orchestrator.store import Entry, Store
from orchestrator.store_index import KEY, parse_table
from orchestrator.sweep import Keep, LoadedSweep, Sweep
from trainables.errors import EnvironmentProblem, UserError
from trainables.recipe import checkpoint_name, checkpoints_among


@dataclasses.dataclass(frozen=True)
class Freed:
    """Something that was, or would be, removed."""

    what: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class _Wish:
    """What one sweep wants of a fine-tune's checkpoints, by the keys of what is made of them."""

    rule: Keep
    selection: str
    sets: tuple[str, ...]
    """Its response sets."""


_Wishes = Mapping[str, list[_Wish]]
"""Of one sweep, by the keys of fine-tunes."""
_SCHEMA = pa.schema(
    [("fine_tune", KEY), ("keep", pa.string()), ("selection", KEY), ("sets", pa.list_(pa.field("element", KEY)))],
    metadata={"key_schema": str(KEY_SCHEMA), "wishes": "1"},
)


class _Sweeps:
    """What the sweeps that were run on a store want of it.

    Beside a sweep, ``NAME-<16 hex>.json``, lie its wishes, ``NAME-<16 hex>.<8 hex>.parquet``: its inputs may be gone
    when others ask. The last run of a sweep, by whatever rule, replaces what it wanted before.
    """

    def __init__(self, store: Store) -> None:
        self._storage = store.storage
        self._read: dict[str, _Wishes | None] = {}
        """By file; None of one that is not understood."""
        self.unknown: list[str] = []
        """Sweeps that do not say what they want, at the last look."""

    def remember(self, plan: Plan) -> None:
        asked = plan.sweep.model_dump(mode="json")
        same = key_of({name: value for name, value in asked.items() if name != "runtime"})
        sweep = f"sweeps/{plan.sweep.name}-{same[:16]}"
        written = pa.BufferOutputStream()
        pq.write_table(_wishes_of(plan), written, compression="zstd", write_page_checksum=True)
        wishes = written.getvalue().to_pybytes()
        ours = f"{sweep}.{hashlib.sha256(wishes).hexdigest()[:8]}.parquet"
        self._storage.write(ours, wishes)
        self._storage.write(f"{sweep}.json", as_json(asked))
        self._storage.remove(*(part for part in self._parts().get(sweep, ()) if part != ours))

    def look(self) -> list[_Wishes]:
        """Everything that is wanted. One listing, and the files that are new since the last look."""
        self.unknown, known = [], []
        for sweep, parts in self._parts().items():
            wishes = [self._wishes(part) for part in parts]
            if not wishes or None in wishes:
                self.unknown.append(f"{sweep}.json")
            known += [one for one in wishes if one is not None]
        return known

    def _parts(self) -> dict[str, list[str]]:
        """The files of wishes, by sweep."""
        names = self._storage.names("sweeps")
        parts: dict[str, list[str]] = {name.removesuffix(".json"): [] for name in names if name.endswith(".json")}
        for name in names:
            if name.endswith(".parquet") and (sweep := name.rsplit(".", 2)[0]) in parts:
                parts[sweep].append(name)
        return parts

    def _wishes(self, part: str) -> _Wishes | None:
        if part not in self._read:
            content = self._storage.read(part)
            if content is None:
                return None  # replaced at this moment
            self._read[part] = _wishes_in(content)
        return self._read[part]


class Keeper:
    """Applies the keep rule of one plan, with an eye on the other sweeps of the store."""

    def __init__(self, plan: Plan, store: Store, say: Callable[[str], None]) -> None:
        self.plan, self.store, self._say = plan, store, say
        self._sweeps = _Sweeps(store)
        self._said: set[str] = set()

    def remember(self) -> None:
        """Keep the sweep, and what it wants, beside its results; before it is looked at what is there."""
        self._sweeps.remember(self.plan)

    def check_room(self) -> None:
        """Refuse a run that will not fit on the disk.

        Raises:
            EnvironmentProblem: with what is needed and what is free.
        """
        needed = still_needed(self.plan, self.store, None if self._frees() else "all")
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
        if self._frees():
            keys = [model.fine_tune.key for model in models if model.fine_tune is not None]
            collections.deque(_freed(keys, self._sweeps, self.store, dry_run=False), maxlen=0)

    def _frees(self) -> bool:
        """Whether anything may be freed; where the rule would have it and it may not, why is said once."""
        rule = self.plan.sweep.runtime.keep
        if rule == "all":
            return False
        self._sweeps.look()
        for name in self._sweeps.unknown:
            if name not in self._said:
                self._said.add(name)
                self._say(f"runtime.keep: {rule} frees nothing: {_unknown(name)}")
        return not self._sweeps.unknown


def remembered(store: Store) -> Iterator[tuple[str, Plan | None]]:
    """Every sweep that was run on a store, and its plan; None where that cannot be worked out: its inputs are gone."""
    for name in store.storage.names("sweeps"):
        if name.endswith(".json"):
            yield name, _plan_of(name, store.storage.read(name) or b"")


def collect(store: Store, dry_run: bool, say: Callable[[str], None]) -> tuple[list[Freed], list[str]]:
    """What `pinch gc` does: (what was or would be freed, sentences about what was passed over)."""
    sweeps = _Sweeps(store)
    keys = sorted({key for wishes in sweeps.look() for key in wishes})
    notes = [f"No checkpoint is removed: {_unknown(name)}" for name in sweeps.unknown]
    freed = list(_freed(keys, sweeps, store, dry_run))
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


def _wishes_of(plan: Plan) -> pa.Table:
    rows = [
        {
            "fine_tune": bytes.fromhex(model.fine_tune.key),
            "keep": plan.sweep.runtime.keep,
            "selection": bytes.fromhex(model.weights.key),
            "sets": [bytes.fromhex(step.key) for step in plan.sets_of(model)],
        }
        for model in plan.models
        if model.fine_tune is not None
    ]
    return pa.Table.from_pylist(rows, _SCHEMA)


def _wishes_in(content: bytes) -> _Wishes | None:
    table = parse_table(content, _SCHEMA)
    if table is None or not set(table["keep"].unique().to_pylist()) <= set(get_args(Keep)):
        return None
    wishes: dict[str, list[_Wish]] = collections.defaultdict(list)
    for row in table.to_pylist():
        wish = _Wish(row["keep"], row["selection"].hex(), tuple(key.hex() for key in row["sets"]))
        wishes[row["fine_tune"].hex()].append(wish)
    return wishes


def _unknown(name: str) -> str:
    return (
        f"{name} does not say what it wants of the store (damaged, or of another version of Pinch); run that sweep "
        "again, or remove the file from the store."
    )


def _freed(keys: Iterable[str], sweeps: _Sweeps, store: Store, dry_run: bool) -> Iterator[Freed]:
    """Free what nobody wants of these fine-tunes; nothing while a sweep does not say what it wants."""
    known = sweeps.look()
    for key in keys:
        entry = store.find("fine_tune", key)
        if entry is None or sweeps.unknown:
            continue
        gone = _unwanted(entry, known, store)
        if gone and not dry_run:
            known = sweeps.look()  # another may have begun
            gone = [] if sweeps.unknown else _unwanted(entry, known, store)
            store.free(entry, gone)
        if gone:
            folders = ", ".join(sorted({name.split("/")[0] for name in gone}))
            yield Freed(f"{entry.place}: {folders}", sum(entry.manifest["files"][name]["bytes"] for name in gone))


def _unwanted(entry: Entry, known: Iterable[_Wishes], store: Store) -> list[str]:
    """The files of a fine-tune's checkpoints that no sweep wants."""
    checkpoints = set(checkpoints_among(entry.manifest["files"]))
    for wishes in known:
        for wish in wishes.get(entry.key, ()):
            checkpoints -= _wanted(wish, store, entry)
    return [name for name in entry.manifest["files"] if name.split("/")[0] in checkpoints]


def _wanted(wish: _Wish, store: Store, entry: Entry) -> set[str]:
    """The checkpoints that one sweep still wants of a fine-tune."""
    selection = store.find("selection", wish.selection)
    if wish.rule == "all" or selection is None:
        return set(checkpoints_among(entry.manifest["files"]))
    if wish.rule == "scores" and all(store.find("generation_set", key) for key in wish.sets):
        return set()
    return {checkpoint_name(selection.facts["selected"])}
