"""The index of a store saves reading, and is believed in nothing that a manifest says otherwise."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from orchestrator import store as store_module
from orchestrator import store_index
from orchestrator.identity import Step
from orchestrator.store import MANIFEST, Store
from orchestrator.store_index import Listing

FEW = 5


@pytest.fixture(autouse=True)
def _left_behind_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "LEFT_BEHIND", FEW)


def step(number: int, prompts: int = 6) -> Step:
    family = {"weights": number}
    payload = {**family, "prompts": prompts}
    return Step(kind="generation_set", name=f"m{number}.fi", payload=payload, family_payload=family)


def make(store: Store, what: Step, seconds: float = 1.0) -> Path:
    attempt = store.attempt(what)
    (attempt / "responses.json").write_text(f'"{what.name}"')
    return store.publish(what, attempt, {"seconds": seconds}).path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of ten results whose index was written."""
    opened = Store(tmp_path / "store")
    opened.create()
    for number in range(10):
        make(opened, step(number))
    assert len(opened.listing("generation_set")) == 10
    assert index_of(opened).is_file()
    return opened


def index_of(store: Store) -> Path:
    return store.root / "index" / "generation_set.parquet"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The folders whose manifests were read."""
    names: list[str] = []
    real = store_module._read_entry

    def watched(path: Path, kind: str, sizes: bool = True) -> object:
        names.append(path.name)
        return real(path, kind, sizes)

    monkeypatch.setattr(store_module, "_read_entry", watched)
    yield names


def listed(store: Store) -> Listing:
    """What a session that begins now would list."""
    return Store(store.root).listing("generation_set")


def said(listing: Listing) -> dict[str, object]:
    return {made.key: made for made in listing}


def from_manifests(store: Store) -> dict[str, object]:
    """What the manifests say, without an index."""
    shutil.rmtree(store.root / "index")
    return said(listed(store))


def test_what_is_in_the_index_is_not_read_again(store: Store, read: list[str]) -> None:
    found = listed(store)
    assert read == []
    made = found.get(step(3).key)
    assert made is not None
    assert (made.name, made.payload, made.facts) == ("m3.fi", step(3).payload, {"seconds": 1.0})
    assert [made.key for made in found.of_family(step(3, prompts=9).family)] == [step(3).key]
    assert [made.key for made in found.named("m3.fi")] == [step(3).key]
    assert step(11).key not in found
    assert said(found) == from_manifests(store)


def test_only_what_came_since_is_read(store: Store, read: list[str]) -> None:
    paths = [make(store, step(number)) for number in (20, 21)]
    read.clear()
    assert len(listed(store)) == 12
    assert sorted(read) == sorted(path.name for path in paths)


def _drop_a_result(store: Store) -> None:
    shutil.rmtree(store.root / "generation_set" / step(4).folder)


def _quarantine_a_result(store: Store) -> None:
    store.quarantine(store.root / "generation_set" / step(4).folder, "a test")


def _make_one_again(store: Store) -> None:
    store.quarantine(store.root / "generation_set" / step(4).folder, "a test")
    make(store, step(4), seconds=99.0)


def _lose_the_index(store: Store) -> None:
    index_of(store).unlink()


def _cut_the_index_short(store: Store) -> None:
    whole = index_of(store).read_bytes()
    index_of(store).write_bytes(whole[: len(whole) // 2])


def _damage_the_index(store: Store) -> None:
    whole = bytearray(index_of(store).read_bytes())
    whole[40] ^= 0xFF
    index_of(store).write_bytes(whole)


def _give_the_index_a_row_of_another_store(store: Store) -> None:
    other = Store(store.root.parent / "other")
    other.create()
    for number in range(30, 40):
        make(other, step(number))
    other.listing("generation_set")
    shutil.copy(index_of(other), index_of(store))


def _copy_the_store(store: Store) -> None:
    shutil.move(store.root, store.root.with_name("moved"))
    shutil.copytree(store.root.with_name("moved"), store.root)


@pytest.mark.parametrize(
    "happen",
    [
        _drop_a_result,
        _quarantine_a_result,
        _make_one_again,
        _lose_the_index,
        _cut_the_index_short,
        _damage_the_index,
        _give_the_index_a_row_of_another_store,
        _copy_the_store,
    ],
)
def test_an_index_that_is_not_right_any_more_costs_reading_and_nothing_else(
    store: Store, happen: Callable[[Store], None]
) -> None:
    happen(store)
    found = said(listed(store))
    assert found == from_manifests(store)
    assert found.keys() == Store(store.root).entries("generation_set").keys()


def test_an_index_that_is_far_behind_is_written_again(store: Store, read: list[str]) -> None:
    for number in range(20, 20 + FEW):
        make(store, step(number))
    listed(store)
    read.clear()
    assert len(listed(store)) == 10 + FEW
    assert read == []


def test_presence_is_no_result_also_beside_an_index(store: Store) -> None:
    folder = store.root / "generation_set" / step(50).folder
    folder.mkdir()
    (folder / "responses.json").write_text('"half"')
    whole = make(store, step(51))
    manifest = json.loads((whole / MANIFEST).read_text())
    manifest["files"]["responses.json"]["bytes"] += 1
    (whole / MANIFEST).write_text(json.dumps(manifest))
    found = listed(store)
    assert step(50).key not in found
    assert step(51).key not in found, "its size is not what the manifest names"


def test_a_folder_is_listed_once_however_many_results_there_are(
    store: Store, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    listings: list[str] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def list_(path: str) -> object:
            listings.append(str(path))
            return real(path)

        monkeypatch.setattr(os, name, list_)

    watched("scandir")
    watched("listdir")
    found = listed(store)
    assert all(step(number).key in found for number in range(10))
    assert listings == [str(store.root / "generation_set")]
    assert read == []


def test_where_no_index_can_be_written_the_store_is_listed_all_the_same(store: Store) -> None:
    shutil.rmtree(store.root / "index")
    (store.root / "index").write_text("in the way")
    assert len(listed(store)) == 10


def test_two_sessions_that_write_the_index_leave_a_whole_one(store: Store, read: list[str]) -> None:
    one, other = Store(store.root), Store(store.root)
    for number in range(20, 20 + FEW):
        make(store, step(number))
    one.listing("generation_set")
    other.listing("generation_set")
    read.clear()
    assert len(listed(store)) == 10 + FEW
    assert read == []
    assert [path.name for path in index_of(store).parent.iterdir()] == ["generation_set.parquet"]


def test_no_index_is_written_through_a_link(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "store"
    elsewhere.mkdir()
    root.mkdir()
    (root / "index").symlink_to(elsewhere)
    store_index.write_table(root / "index" / "corpus.parquet", pa.table({"number": [1]}))
    assert not list(elsewhere.iterdir())
