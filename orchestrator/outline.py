"""A plan in outline: of every step its kind, name, key and what it needs, as columns instead of objects.

That is all it takes to say what is done, waits or is blocked, and a plan of millions of steps is held against a store
in outline in seconds, where working the plan out takes most of a minute. So the outline of a large plan is kept in the
store's `index/`, under a digest of everything that the plan was made from; a changed file, sweep or program is another
digest. Like the index itself it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from orchestrator.environment import program
from orchestrator.identity import KEY_SCHEMA, KINDS
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.store_index import FOLDER, KEY, read_table, write_table
from orchestrator.sweep import FilesSource, LoadedSweep
from trainables.base_models import parse_base
from trainables.batches import template_source

KEPT_FROM = 20_000
"""A plan of fewer steps is worked out as fast as an outline is read."""

_NEEDS = pa.list_(pa.field("element", pa.int32()))  # as Parquet calls it
_SCHEMA = pa.schema(
    [("kind", pa.int8()), ("name", pa.string()), ("key", KEY), ("needs", _NEEDS)],
    metadata={"key_schema": str(KEY_SCHEMA), "outline": "1"},
)


class Outline:
    """The distinct steps of a plan in plan order: inputs come before what needs them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table.combine_chunks()
        self.kinds: npt.NDArray[np.int8] = self.table["kind"].to_numpy()
        """Places in KINDS."""
        self.keys: pa.Array = self.table["key"].combine_chunks()
        needs = self.table["needs"].combine_chunks()
        self.needs: npt.NDArray[np.int32] = needs.flatten().to_numpy()
        """The rows of all needs, one step after another."""
        self.needed_by: npt.NDArray[np.int64] = np.repeat(np.arange(len(self)), needs.value_lengths().to_numpy())
        """For each of these, the row of the step that needs it."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def of(cls, plan: Plan) -> Outline:
        """The outline of a plan that is worked out."""
        steps = plan.steps
        rows = {step.key: row for row, step in enumerate(steps)}
        number = {kind: place for place, kind in enumerate(KINDS)}
        keys = pa.py_buffer(bytes.fromhex("".join(rows)))
        begins = np.cumsum([0, *[len(step.needs) for step in steps]], dtype=np.int32)
        needs = np.array([rows[needed.key] for step in steps for needed in step.needs], np.int32)
        columns = [
            pa.array([number[step.kind] for step in steps], pa.int8()),
            pa.array([step.name for step in steps], pa.string()),
            pa.Array.from_buffers(KEY, len(rows), [None, keys]),
            pa.ListArray.from_arrays(begins, needs, type=_NEEDS),
        ]
        return cls(pa.table(columns, schema=_SCHEMA))

    def name(self, row: int) -> str:
        """``fine_tune mono-fi``."""
        return f"{KINDS[self.kinds[row]]} {self.table['name'][row].as_py()}"

    def key(self, row: int) -> str:
        found: bytes = self.keys[row].as_py()
        return found.hex()


def outline_of(loaded: LoadedSweep, store: Store) -> Outline:
    """The outline of a sweep's plan: the one that was kept, or else worked out, and kept if it is large.

    Raises:
        UserError: as :class:`Plan` does.
    """
    name = _kept_as(loaded)
    kept = read_table(store.storage, name, _SCHEMA) if name else None
    return Outline(kept) if kept is not None else keep(Plan(loaded), store)


def keep(plan: Plan, store: Store) -> Outline:
    """The outline of a plan, kept in the store if the plan is large."""
    outline = Outline.of(plan)
    name = _kept_as(plan.loaded) if len(outline) >= KEPT_FROM else None
    if name:
        write_table(store.storage, name, outline.table)
    return outline


def _kept_as(loaded: LoadedSweep) -> str | None:
    made_from = _made_from(loaded)
    return f"{FOLDER}/plan-{made_from[:16]}.parquet" if made_from else None


def _made_from(loaded: LoadedSweep) -> str | None:
    """A digest of all that a plan is made from; None where that cannot be had without working the plan out.

    It is of a user's own files as they lie there. Other corpora have so few languages that no plan of them is large.
    """
    sweep = loaded.sweep
    if not isinstance(sweep.corpus, FilesSource):
        return None
    judge = parse_base(sweep.judge.model).payload() if sweep.judge.kind == "local" else None
    try:
        files = [_digest(Path(name).expanduser()) for name in (sweep.corpus.train, sweep.corpus.eval)]
    except OSError:
        return None  # planning says what is wrong with it
    parts = {
        "program": program(),
        "sweep": sweep.model_dump(mode="json", exclude={"runtime"}),
        "files": files,
        "base": parse_base(sweep.base).payload(),
        "judge": [sweep.judge.payload(), judge],
        "template": template_source(sweep.recipe.template),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
