"""What stays on the disk: the keep rule of each sweep, applied to the checkpoints of its models.

``all`` keeps every checkpoint, ``best`` the selected one, ``scores`` none once a model's planned response sets are
there; responses, verdicts and scores always stay. A checkpoint goes only when every sweep that was ever run on the
store, and has that model, lets it go. Optimizer state is gone before a fine-tune is published.

This module frees weights and abandoned attempts; it must never remove anything else.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.cost import human_bytes, still_needed
from orchestrator.identity import KEY_SCHEMA, Step, key_of
from orchestrator.plan import Model, Plan
from orchestrator.storage.base import as_json, parsed
from orchestrator.store import Entry, Store
from orchestrator.store_index import KEY, read_table
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


_DIGITS = 8
"""Of a digest, at the end of the name of a file of wishes."""
_Wishes = dict[str, list[_Wish]]
"""Of one sweep, by the keys of fine-tunes."""
_SCHEMA = pa.schema(
    [("fine_tune", KEY), ("selection", KEY), ("sets", pa.list_(pa.field("element", KEY)))],
    metadata={"key_schema": str(KEY_SCHEMA), "wishes": "1"},
)


class Keeper:
    """Applies the keep rule of one plan, with an eye on the other sweeps of the store."""

    def __init__(self, plan: Plan, store: Store, say: Callable[[str], None]) -> None:
        self.plan, self.store, self._say = plan, store, say
        self._read: dict[str, tuple[list[str], _Wishes]] = {}
        self._said: set[str] = set()

    def remember(self, loaded: LoadedSweep) -> None:
        """Keep the sweep, and the keys of its models, beside its results: its inputs may be gone when others ask."""
        asked = loaded.sweep.model_dump(mode="json")
        name = f"sweeps/{loaded.sweep.name}-{key_of(asked)[:16]}"
        written = pa.BufferOutputStream()
        pq.write_table(_wishes_of(self.plan), written, compression="zstd", write_page_checksum=True)
        wishes = written.getvalue().to_pybytes()
        self.store.storage.create(f"{name}.{hashlib.sha256(wishes).hexdigest()[:_DIGITS]}.parquet", wishes)
        self.store.storage.create(f"{name}.json", as_json(asked))

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
                if model.fine_tune is not None:
                    list(_free(model.fine_tune.key, known, self.store, dry_run=False))

    def _known(self) -> list[_Wishes]:
        """Of all sweeps of the store; none where nothing may be freed, and why is said once."""
        rule = self.plan.sweep.runtime.keep
        if rule == "all":
            return []
        known, unknown = _wishes_in(self.store, self._read)
        for name in unknown:
            if name not in self._said:
                self._said.add(name)
                self._say(f"runtime.keep: {rule} frees nothing: {_unknown(name)}")
        return [] if unknown else known


def remembered(store: Store) -> Iterator[tuple[str, Plan | None]]:
    """Every sweep that was run on a store, and its plan; None where that cannot be worked out: its inputs are gone."""
    for name, content in store.storage.read_all("sweeps").items():
        if name.endswith(".json"):
            yield name, _plan_of(name, content)


def collect(store: Store, dry_run: bool, say: Callable[[str], None]) -> tuple[list[Freed], list[str]]:
    """What `pinch gc` does: (what was or would be freed, sentences about what was passed over)."""
    known, unknown = _wishes_in(store, {})
    notes = [f"No checkpoint is removed: {_unknown(name)}" for name in unknown]
    freed: list[Freed] = []
    for key in sorted(set().union(*known)) if not unknown else ():
        freed += _free(key, known, store, dry_run)
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
            "selection": bytes.fromhex(model.weights.key),
            "sets": [bytes.fromhex(step.key) for step in plan.sets_of(model)],
        }
        for model in plan.models
        if model.fine_tune is not None
    ]
    return pa.Table.from_pylist(rows, _SCHEMA)


def _wishes_in(store: Store, read: dict[str, tuple[list[str], _Wishes]]) -> tuple[list[_Wishes], list[str]]:
    """What the sweeps that were run on a store want, and the names of those of which that is not known.

    Args:
        read: what was read before, by the names of sweeps; it is added to.
    """
    names = store.storage.names("sweeps")
    tables: dict[str, list[str]] = {name: [] for name in names if name.endswith(".json")}
    for name in names:
        sweep = f"{name.removesuffix('.parquet')[: -_DIGITS - 1]}.json"
        if name.endswith(".parquet") and sweep in tables:
            tables[sweep].append(name)
    unknown = []
    for sweep, parts in tables.items():
        if sweep in read and read[sweep][0] == parts:
            continue
        if (wishes := _wishes(store, sweep, parts)) is None:
            unknown.append(sweep)
        else:
            read[sweep] = parts, wishes
    return [wishes for name, (_, wishes) in read.items() if name in tables], unknown


def _wishes(store: Store, sweep: str, parts: list[str]) -> _Wishes | None:
    asked = parsed(store.storage.read(sweep)) or {}
    runtime = asked.get("runtime")
    rule: Any = runtime.get("keep") if isinstance(runtime, dict) else None
    tables = [read_table(store.storage, part, _SCHEMA) for part in parts]
    if rule not in get_args(Keep) or not tables:
        return None
    wishes: _Wishes = collections.defaultdict(list)
    for table in tables:
        if table is None:
            return None
        for row in table.to_pylist():
            wish = _Wish(rule, row["selection"].hex(), tuple(key.hex() for key in row["sets"]))
            wishes[row["fine_tune"].hex()].append(wish)
    return wishes


def _unknown(name: str) -> str:
    return f"{name} does not say what it wants of the store; run that sweep again, or remove its file from the store."


def _free(key: str, known: list[_Wishes], store: Store, dry_run: bool) -> Iterator[Freed]:
    entry = store.find("fine_tune", key)
    if entry is None:
        return
    wanted: set[str] = set()
    for wishes in known:
        for wish in wishes.get(key, ()):
            wanted |= _wanted(wish, store, entry)
    files = entry.manifest["files"]
    unwanted = set(checkpoints_among(files)) - wanted
    gone = [name for name in files if name.split("/")[0] in unwanted]
    if gone:
        size = sum(files[name]["bytes"] for name in gone)
        if not dry_run:
            store.free(entry, gone)
        folders = ", ".join(sorted({name.split("/")[0] for name in gone}))
        yield Freed(f"{entry.place}: {folders}", size)


def _wanted(wish: _Wish, store: Store, entry: Entry) -> set[str]:
    """The checkpoints that one sweep still wants of a fine-tune."""
    selection = store.find("selection", wish.selection)
    if wish.rule == "all" or selection is None:
        return set(checkpoints_among(entry.manifest["files"]))
    if wish.rule == "scores" and all(store.find("generation_set", key) for key in wish.sets):
        return set()
    return {checkpoint_name(selection.facts["selected"])}
