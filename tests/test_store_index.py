"""The index of a store saves reading, and is believed in nothing that a manifest says otherwise."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pytest

from orchestrator import store_index
from orchestrator.identity import Step
from orchestrator.storage import Entry, Folder
from orchestrator.storage.bucket import Bucket
from orchestrator.storage.folder import MANIFEST
from orchestrator.store import Store
from orchestrator.store_index import Listing
from tests.store_places import Place

FEW = 5
KIND = "generation_set"
INDEX = f"index/{KIND}.parquet"


@pytest.fixture(autouse=True)
def _left_behind_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_index, "LEFT_BEHIND", FEW)


def step(number: int, prompts: int = 6) -> Step:
    family = {"weights": number}
    payload = {**family, "prompts": prompts}
    return Step(kind=KIND, name=f"m{number}.fi", payload=payload, family_payload=family)


def make(store: Store, what: Step, seconds: float = 1.0) -> Entry:
    attempt = store.attempt(what)
    (attempt / "responses.json").write_text(f'"{what.name}"')
    return store.publish(what, attempt, {"seconds": seconds})


def filled(store: Store) -> Store:
    """Ten results, of which the index was written."""
    store.create()
    for number in range(10):
        make(store, step(number))
    assert len(store.listing(KIND)) == 10
    assert store.storage.read(INDEX) is not None
    return store


@pytest.fixture
def store(place: Place) -> Store:
    return filled(place.open())


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    """The same in a folder, for what is only true of folders."""
    return filled(Store(tmp_path / "folder"))


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Store], Store]:
    """A store as a session has it that begins now, on a machine that never saw it."""

    def opened(store: Store) -> Store:
        monkeypatch.setenv("PINCH_CACHE", str(tmp_path / uuid.uuid4().hex))
        return Store(store.location)

    return opened


@pytest.fixture
def listed(anew: Callable[[Store], Store]) -> Callable[[Store], Listing]:
    """What such a session would list."""
    return lambda store: anew(store).listing(KIND)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first digits of the keys of those results whose manifests were read."""
    keys: list[str] = []
    of_folder, of_bucket = Folder._entry, Bucket._read_these

    def from_folder(self: Folder, place: PurePosixPath, sizes: bool = True) -> Entry | None:
        keys.append(place.name[-16:])
        return of_folder(self, place, sizes)

    def from_bucket(self: Bucket, names: list[str]) -> dict[str, bytes]:
        keys.extend(PurePosixPath(name).stem for name in names)
        return of_bucket(self, names)

    monkeypatch.setattr(Folder, "_entry", from_folder)
    monkeypatch.setattr(Bucket, "_read_these", from_bucket)
    return keys


def said(listing: Listing) -> dict[str, object]:
    return {made.key: made for made in listing}


@pytest.fixture
def from_manifests(listed: Callable[[Store], Listing]) -> Callable[[Store], dict[str, object]]:
    """What the manifests say, without an index."""

    def read_all(store: Store) -> dict[str, object]:
        store.storage.remove(INDEX)
        return said(listed(store))

    return read_all


List = Callable[[Store], Listing]
Read = Callable[[Store], dict[str, object]]


def test_what_is_in_the_index_is_not_read_again(
    store: Store, listed: List, from_manifests: Read, read: list[str]
) -> None:
    found = listed(store)
    assert read == []
    made = found.get(step(3).key)
    assert made is not None
    assert (made.name, made.payload, made.facts) == ("m3.fi", step(3).payload, {"seconds": 1.0})
    assert [made.key for made in found.of_family(step(3, prompts=9).family)] == [step(3).key]
    assert [made.key for made in found.named("m3.fi")] == [step(3).key]
    assert step(11).key not in found
    assert said(found) == from_manifests(store)
    assert len(read) == 10


def test_only_what_came_since_is_read(store: Store, listed: List, read: list[str]) -> None:
    made = [make(store, step(number)) for number in (20, 21)]
    read.clear()
    assert len(listed(store)) == 12
    assert sorted(read) == sorted(entry.key[:16] for entry in made)


def _drop_a_result(store: Store) -> None:
    if isinstance(store.storage, Folder):
        shutil.rmtree(store.root / KIND / step(4).folder)
    else:
        store.storage.remove(f"manifests/{KIND}/{step(4).key[:16]}.json")


def _quarantine_a_result(store: Store) -> None:
    entry = store.find(KIND, step(4).key)
    assert entry is not None
    store.quarantine(entry, "a test")


def _make_one_again(store: Store) -> None:
    _quarantine_a_result(store)
    make(store, step(4), seconds=99.0)


def _lose_the_index(store: Store) -> None:
    store.storage.remove(INDEX)


def _cut_the_index_short(store: Store) -> None:
    whole = index_of(store)
    store.storage.write(INDEX, whole[: len(whole) // 2])


def _damage_the_index(store: Store) -> None:
    whole = bytearray(index_of(store))
    whole[40] ^= 0xFF
    store.storage.write(INDEX, bytes(whole))


def _give_the_index_a_row_of_another_store(store: Store) -> None:
    other = Store(f"{store.location}-other")
    other.create()
    for number in range(30, 40):
        make(other, step(number))
    other.listing(KIND)
    store.storage.write(INDEX, index_of(other))


def index_of(store: Store) -> bytes:
    content = store.storage.read(INDEX)
    assert content is not None
    return content


HAPPENINGS = [
    _drop_a_result,
    _quarantine_a_result,
    _make_one_again,
    _lose_the_index,
    _cut_the_index_short,
    _damage_the_index,
    _give_the_index_a_row_of_another_store,
]


@pytest.mark.parametrize("happen", HAPPENINGS)
def test_an_index_that_is_not_right_any_more_costs_reading_and_nothing_else(
    store: Store,
    happen: Callable[[Store], None],
    anew: Callable[[Store], Store],
    listed: List,
    from_manifests: Read,
) -> None:
    happen(store)
    found = said(listed(store))
    assert found == from_manifests(store)
    assert found.keys() == anew(store).entries(KIND).keys()
    assert (step(4).key in found) == (happen not in (_drop_a_result, _quarantine_a_result))


def test_who_lists_twice_sees_what_came_and_went_between(store: Store, anew: Callable[[Store], Store]) -> None:
    watching = anew(store)
    before = watching.listing(KIND)
    _make_one_again(store)
    make(store, step(20))
    _drop_a_result(store)
    after = watching.listing(KIND)
    assert {made.key for made in after} == {made.key for made in before} - {step(4).key} | {step(20).key}


def test_what_was_freed_of_a_result_is_no_other_result(store: Store, listed: List, from_manifests: Read) -> None:
    entry = store.find(KIND, step(4).key)
    assert entry is not None
    assert store.free(entry, ["responses.json"]) > 0
    found = said(listed(store))
    assert len(found) == 10
    assert found == from_manifests(store)


def test_an_index_that_is_far_behind_is_written_again(store: Store, listed: List, read: list[str]) -> None:
    for number in range(20, 20 + FEW):
        make(store, step(number))
    listed(store)
    read.clear()
    assert len(listed(store)) == 10 + FEW
    assert read == []


def test_two_sessions_that_write_the_index_leave_a_whole_one(
    store: Store, anew: Callable[[Store], Store], listed: List, read: list[str]
) -> None:
    one, other = anew(store), anew(store)
    for number in range(20, 20 + FEW):
        make(store, step(number))
    one.listing(KIND)
    other.listing(KIND)
    read.clear()
    assert len(listed(store)) == 10 + FEW
    assert read == []
    assert store.storage.names("index") == [INDEX]


def test_where_there_is_no_store_looking_makes_none(place: Place) -> None:
    looking = place.open()
    assert len(looking.listing(KIND)) == 0
    store_index.write_table(looking.storage, INDEX, looking.listing(KIND).table)
    assert looking.storage.read(INDEX) is None
    assert not looking.storage.exists()
    assert not looking.exists


def test_a_bucket_is_listed_once_however_many_results_there_are(
    store: Store, listed: List, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    asked: list[str] = []
    real = Bucket._listed

    def watched(self: Bucket, folder: str) -> dict[str, str]:
        asked.append(folder)
        return real(self, folder)

    monkeypatch.setattr(Bucket, "_listed", watched)
    assert len(listed(store)) == 10
    assert asked == ([f"manifests/{KIND}"] if store.elsewhere else [])
    assert read == []


# Of folders


def test_a_folder_is_listed_once_however_many_results_there_are(
    folder: Store, listed: List, monkeypatch: pytest.MonkeyPatch, read: list[str]
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
    found = listed(folder)
    assert all(step(number).key in found for number in range(10))
    assert [path for path in listings if KIND in path] == [str(folder.root / KIND)]
    assert read == []


def test_a_store_that_was_copied_is_read_again(folder: Store, listed: List, from_manifests: Read) -> None:
    shutil.move(folder.root, folder.root.with_name("moved"))
    shutil.copytree(folder.root.with_name("moved"), folder.root)
    found = said(listed(folder))
    assert len(found) == 10
    assert found == from_manifests(folder)


def test_no_index_is_written_through_a_link(tmp_path: Path) -> None:
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "store"
    elsewhere.mkdir()
    root.mkdir()
    (root / "index").symlink_to(elsewhere)
    store_index.write_table(Folder(root), INDEX, pa.table({"number": [1]}))
    assert not list(elsewhere.iterdir())


def test_presence_is_no_result_also_beside_an_index(folder: Store, listed: List) -> None:
    half = folder.root / KIND / step(50).folder
    half.mkdir()
    (half / "responses.json").write_text('"half"')
    whole = folder.root / make(folder, step(51)).place
    manifest = json.loads((whole / MANIFEST).read_text())
    manifest["files"]["responses.json"]["bytes"] += 1
    (whole / MANIFEST).write_text(json.dumps(manifest))
    found = listed(folder)
    assert step(50).key not in found
    assert step(51).key not in found, "its size is not what the manifest names"


def test_where_no_index_can_be_written_the_store_is_listed_all_the_same(folder: Store, listed: List) -> None:
    shutil.rmtree(folder.root / "index")
    (folder.root / "index").write_text("in the way")
    assert len(listed(folder)) == 10
