"""What the manifests of one kind say, compacted: one Parquet file instead of a million small ones to open.

The index lies in the store, wherever that is, and never says what is there: the storage does, which lists it at once.
Beside each name comes its *stamp*, which is another for a result that was made again (a folder's inode, the ETag of a
manifest in an object store). What the index knows under the same name and stamp is taken from it, everything else from
its manifest, and whoever had to read many of them leaves a new index behind. So an index that is lost, damaged or
behind costs time and nothing else, and `index/` may be deleted.

It holds what does not change while a result stays: key, family, payload, facts, and when it was made. Not the files:
those may be freed. Their sizes are checked when a manifest is read, their digests at first use and by `pinch verify`.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.identity import KEY_SCHEMA
from orchestrator.storage import Storage
from trainables.errors import UserError

FOLDER = "index"
LEFT_BEHIND = 1000
"""So many manifests, and one in fifty of them, are read before a new index is written."""
KEY = pa.binary(32)

_VERSION = 1
_SCHEMA = pa.schema(
    [
        ("place", pa.string()),
        ("stamp", pa.string()),
        ("key", KEY),
        ("family", KEY),
        ("name", pa.string()),
        ("made_at", pa.string()),
        ("payload", pa.string()),
        ("facts", pa.string()),
    ],
    metadata={"key_schema": str(KEY_SCHEMA), "index": str(_VERSION)},
)

logger = logging.getLogger(__name__)


class Made(NamedTuple):
    """One result, without its files."""

    key: str
    name: str
    made_at: str
    payload: dict[str, Any]
    facts: dict[str, Any]


class Listing:
    """The results of one kind that are in a store, by key."""

    def __init__(self, table: pa.Table) -> None:
        """``table`` has the columns of this module; its rows are in no order that means anything."""
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._rows

    def __iter__(self) -> Iterator[Made]:
        return map(self._made, range(len(self)))

    def holds(self, keys: pa.Array) -> npt.NDArray[np.bool_]:
        """For each of many keys (an array of 32 bytes each) whether its result is there."""
        return np.asarray(pc.is_in(keys, value_set=self.table["key"].combine_chunks()))  # type: ignore[attr-defined]

    def get(self, key: str) -> Made | None:
        row = self._rows.get(bytes.fromhex(key))
        return None if row is None else self._made(row)

    def made_at(self, key: str) -> str:
        """When a result that is there was made, in UTC.

        Raises:
            KeyError: it is not there.
        """
        return self._made_at[self._rows[bytes.fromhex(key)]]

    def of_family(self, family: str) -> list[Made]:
        """The results of one family."""
        return [self._made(row) for row in self._families.get(bytes.fromhex(family), ())]

    def named(self, name: str) -> list[Made]:
        """The results of one name."""
        return [self._made(row) for row in self._names.get(name, ())]

    def _made(self, row: int) -> Made:
        return Made(
            self.table["key"][row].as_py().hex(),
            self.table["name"][row].as_py(),
            self.table["made_at"][row].as_py(),
            json.loads(self.table["payload"][row].as_py()),
            json.loads(self.table["facts"][row].as_py()),
        )

    @functools.cached_property
    def _rows(self) -> dict[bytes, int]:
        return {key: row for row, key in enumerate(self.table["key"].to_pylist())}

    @functools.cached_property
    def _made_at(self) -> list[str]:
        return self.table["made_at"].to_pylist()

    @functools.cached_property
    def _families(self) -> dict[bytes, list[int]]:
        return _grouped(self.table["family"])

    @functools.cached_property
    def _names(self) -> dict[str, list[int]]:
        return _grouped(self.table["name"])


def listed(storage: Storage, kind: str, known: Listing | None = None) -> Listing:
    """The results of a kind, with as few manifests read as can be; a new index is written where many were.

    Args:
        known: what was listed before, to begin with instead of the index.
    """
    index, stamps = f"{FOLDER}/{kind}.parquet", storage.stamps(kind)
    table = known.table if known is not None else _read(storage, index)
    places, before = table["place"].to_pylist(), table["stamp"].to_pylist()
    same = [stamps.get(place) == stamp for place, stamp in zip(places, before, strict=True)]
    if not all(same):
        table = table.filter(pa.array(same))
    kept = {place for place, holds in zip(places, same, strict=True) if holds}
    fresh = {name: stamp for name, stamp in stamps.items() if name not in kept}
    rows = [_row(name, fresh[name], entry.manifest) for name, entry in storage.read_results(kind, fresh)]
    if rows:
        table = pa.concat_tables([table, pa.Table.from_pylist(rows, schema=_SCHEMA)])
    found = Listing(table)
    if len(rows) + same.count(False) >= max(LEFT_BEHIND, len(found) // 50):
        write_table(storage, index, table)
    return found


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    """Put down what can be made again, where there is a store to put it; where it is refused, no harm."""
    written = pa.BufferOutputStream()
    pq.write_table(table, written, compression="zstd", write_page_checksum=True)
    try:
        if storage.exists():
            storage.write(name, written.getvalue().to_pybytes())
    except (OSError, UserError) as problem:  # a store one may only read, a full disk, no answer
        logger.info("%s was not written (%s); what it says is read from the manifests again.", name, problem)


def read_table(storage: Storage, name: str, schema: pa.Schema) -> pa.Table | None:
    """What :func:`write_table` put down, or None where there is nothing, it is damaged, or of another version."""
    try:
        content = storage.read(name)
    except OSError:
        return None
    return None if content is None else parse_table(content, schema)


def parse_table(content: bytes, schema: pa.Schema) -> pa.Table | None:
    """A Parquet file's table, or None where it is damaged or of another schema."""
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return None
    return table if table.schema.equals(schema, check_metadata=True) else None


def _read(storage: Storage, name: str) -> pa.Table:
    found = read_table(storage, name, _SCHEMA)
    return _SCHEMA.empty_table() if found is None else found


def _row(place: str, stamp: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "place": place,
        "stamp": stamp,
        "key": bytes.fromhex(manifest["key"]),
        "family": bytes.fromhex(manifest["family"]),
        "name": manifest["name"],
        "made_at": manifest["made"]["at"],
        "payload": json.dumps(manifest["payload"], ensure_ascii=False),
        "facts": json.dumps(manifest["facts"], ensure_ascii=False),
    }


def _grouped(column: pa.ChunkedArray) -> dict[Any, list[int]]:
    found: dict[Any, list[int]] = {}
    for row, value in enumerate(column.to_pylist()):
        found.setdefault(value, []).append(row)
    return found
