"""What is done is proved by content, and the first of two results stands: in a folder, on S3, on Google Cloud
Storage."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from orchestrator.store import Corrupt, Store
from tests.store_examples import WEIGHTS, make, step
from tests.store_places import Place
from trainables.errors import UserError


@pytest.fixture
def store(place: Place) -> Store:
    opened = place.open()
    opened.create()
    return opened


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    """A store that is a folder."""
    opened = Store(tmp_path / "store")
    opened.create()
    return opened


def test_what_is_published_is_found_with_its_payload(store: Store, place: Place) -> None:
    made = make(store, step(rate=1e-5))
    for entry in (place.open().find("fine_tune", made.key), place.open().entries("fine_tune")[made.key]):
        assert entry is not None
        assert entry.place == made.place
        assert entry.manifest["payload"] == {"name": "mono-fi", "rate": 1e-5}
        assert len(entry.key) == 64
        assert entry.place.name == f"mono-fi-{entry.key[:16]}"
        assert (place.open().use(entry) / WEIGHTS).read_text() == "weights"
        assert place.open().file(entry, WEIGHTS).read_text() == "weights"


def test_what_another_session_publishes_is_listed(store: Store, place: Place) -> None:
    make(store, step("mono-en"))
    assert len(store.entries("fine_tune")) == 1
    make(place.open(), step("mono-fi"))
    assert len(store.entries("fine_tune")) == 2
    assert len(place.open().entries("fine_tune")) == 2
    assert store.entries("selection") == {}


def test_a_folder_without_a_manifest_is_not_a_result(folder: Store) -> None:
    half = folder.root / "fine_tune" / step().folder
    half.mkdir(parents=True)
    (half / "model.safetensors").write_text("half")
    assert folder.find("fine_tune", step().key) is None
    assert folder.entries("fine_tune") == {}


def test_a_half_written_folder_makes_way_for_a_whole_one(folder: Store) -> None:
    half = folder.root / "fine_tune" / step().folder
    half.mkdir(parents=True)
    (half / "model.safetensors").write_text("half")
    make(folder, step())
    assert folder.find("fine_tune", step().key) is not None
    assert len(list((folder.root / "quarantine").iterdir())) == 1


def test_the_first_of_two_attempts_stands(store: Store, place: Place) -> None:
    first = make(store, step(), "first")
    second = make(place.open(), step(), "second")
    assert first.manifest == second.manifest
    assert (place.open().use(second) / WEIGHTS).read_text() == "first"
    assert list(store.storage.attempts()) == []
    assert not list((store.root / "attempts").iterdir())


def test_a_changed_file_is_found_at_first_use_and_quarantined(store: Store, place: Place) -> None:
    made = make(store, step(), "weights")
    place.spoil(made, WEIGHTS, b"wEights")  # same size
    forget_cache(store)
    fresh = place.open()
    entry = fresh.find("fine_tune", step().key)
    assert entry is not None
    with pytest.raises(Corrupt, match="does not have the content"):
        fresh.use(entry)
    assert fresh.find("fine_tune", step().key) is None
    assert place.open().entries("fine_tune") == {}
    assert any(b"model.safetensors" in note for note in store.storage.read_all("quarantine").values())
    again = make(fresh, step(), "weights")
    assert (place.open().use(again) / WEIGHTS).read_text() == "weights"


def forget_cache(store: Store) -> None:
    """As on a machine that has not seen the result yet."""
    if str(store.root) != store.location:
        subprocess.run(["rm", "-rf", str(store.root / "results"), str(store.root.parent.parent / "sha256")], check=True)


def test_a_missing_file_is_found_at_first_use(store: Store, place: Place) -> None:
    made = make(store, step())
    entry = place.open().find("fine_tune", step().key)
    assert entry is not None
    place.spoil(made, WEIGHTS, None)
    forget_cache(store)
    with pytest.raises(Corrupt, match="missing"):
        place.open().use(entry)


def test_a_part_of_a_result_is_used_without_the_rest(store: Store, place: Place) -> None:
    attempt = store.attempt(step())
    for name in ("a/one", "b/two"):
        (attempt / name).parent.mkdir()
        (attempt / name).write_text(name)
    made = store.publish(step(), attempt, {})
    place.spoil(made, "b/two", b"b/TWO")
    forget_cache(store)
    fresh = place.open()
    assert (fresh.use(made, "a") / "a/one").read_text() == "a/one"
    with pytest.raises(Corrupt, match="b/two"):
        fresh.use(made)


def test_a_truncated_file_is_not_listed(folder: Store) -> None:
    made = make(folder, step())
    (folder.root / made.place / WEIGHTS).write_text("we")
    assert Store(folder.root).find("fine_tune", step().key) is None


def test_verify_names_what_does_not_hold_and_keeps_what_does(store: Store, place: Place) -> None:
    make(store, step("mono-en"))
    place.spoil(make(store, step("mono-fi")), WEIGHTS, None)
    place.spoil(make(store, step("mono-ru")), WEIGHTS, b"wEights")
    problems = {path.name.split("-")[1]: problem for path, problem in place.open().verify()}
    assert problems["en"] is None
    assert problems["ru"] is not None
    assert "content" in problems["ru"]
    assert problems["fi"] is not None
    assert [problem for _, problem in place.open().verify()] == [None]


def test_freed_files_are_gone_from_the_store_and_the_manifest_alike(store: Store, place: Place) -> None:
    made = make(store, step())
    assert store.free(made, [WEIGHTS]) == len("weights")
    assert store.free(made, [WEIGHTS]) == 0
    again = place.open().find("fine_tune", step().key)
    assert again is not None
    assert again.manifest["freed"]
    assert store.storage.measure(again, WEIGHTS) is None
    assert not (place.open().use(again) / "checkpoint-000010").exists() or str(store.root) != store.location
    assert store.entries("fine_tune")[again.key].manifest["files"] == {}


def test_a_store_of_another_schema_can_be_read_but_not_added_to(store: Store, place: Place) -> None:
    store.storage.write("pinch-store.json", json.dumps({"schema": 0}).encode())
    old = place.open()
    assert old.entries("fine_tune") == {}
    with pytest.raises(UserError, match="schema 0"):
        old.create()


@pytest.mark.parametrize(
    "location",
    ["ftp://host/store", "s3://", "gs:///store", "s3://bucket/../other", "s3://key:secret@b/x", "/proc/pinch"],
)
def test_a_place_that_cannot_be_a_store_is_refused(location: str) -> None:
    with pytest.raises(UserError, match="--store"):
        Store(location).create()


def test_a_file_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Store(tmp_path / "file")


def test_failures_are_remembered_until_the_step_succeeds(store: Store, place: Place) -> None:
    store.record_failure(step(), "the loss is nan")
    assert place.open().failures()[step().key]["error"] == "the loss is nan"
    make(store, step())
    assert place.open().failures() == {}


def test_a_results_name_cannot_leave_the_store(store: Store) -> None:
    assert "/" not in step("mono-fi").folder
    made = make(store, step())
    evil = {**made.manifest, "files": {"../../other": {"bytes": 1, "sha256": ""}}}
    name = (
        f"{made.place}/manifest.json"
        if store.location == str(store.root)
        else f"manifests/fine_tune/{made.key[:16]}.json"
    )
    store.storage.write(name, json.dumps(evil).encode())
    fresh = Store(store.location)
    assert fresh.find("fine_tune", made.key) is None
    assert fresh.entries("fine_tune") == {}


def test_a_place_that_is_looked_at_stays_as_it_is(place: Place) -> None:
    looked = place.open()
    assert looked.storage.look() > 0
    assert looked.storage.names("") == []
    assert not looked.root.exists()


def test_the_manifest_is_the_last_file_of_a_result(folder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = folder.attempt(step())
    (attempt / "data.json").write_text("{}")
    monkeypatch.setattr("os.rename", _full_disk)
    with pytest.raises(Exception, match="published"):
        folder.publish(step(), attempt, {})
    assert folder.find("fine_tune", step().key) is None
    assert (attempt / "manifest.json").exists()


def _full_disk(*paths: object) -> None:
    raise OSError(28, "No space left on device")


# Records: what everything two sessions may do at once comes down to


def test_of_many_who_create_a_record_one_does(store: Store, place: Place) -> None:
    others = [place.open().storage for _ in range(4)]
    for name in (f"leases/{number}" for number in range(10)):
        tries = [partial(other.create, name, str(number).encode()) for number, other in enumerate(others)]
        one = _the_one(tries)
        assert store.storage.read(name) == str(one).encode()


def test_of_many_who_replace_a_record_one_does(store: Store, place: Place) -> None:
    others = [place.open().storage for _ in range(4)]
    for name in (f"leases/{number}" for number in range(10)):
        store.storage.write(name, b"old")
        tries = [partial(other.replace, name, b"old", str(number).encode()) for number, other in enumerate(others)]
        one = _the_one(tries)
        assert store.storage.read(name) == str(one).encode()


def _the_one(tries: list[Callable[[], bool]]) -> int:
    """Which of several tries at the same time came through."""
    with ThreadPoolExecutor(len(tries)) as pool:
        done = list(pool.map(lambda one: one(), tries))
    assert sum(done) == 1, done
    return done.index(True)


def test_a_record_is_replaced_only_if_it_is_what_it_was(store: Store) -> None:
    storage = store.storage
    assert not storage.replace("leases/x", b"", b"new"), "there is none"
    storage.write("leases/x", b"other")
    assert not storage.replace("leases/x", b"old", b"new")
    assert storage.read("leases/x") == b"other"
    assert storage.replace("leases/x", b"other", b"new")
    assert storage.read_all("leases") == {"leases/x": b"new"}
    storage.remove("leases/x", "leases/never")
    assert storage.names("leases") == []


def _publish_many(location: str, results: multiprocessing.Queue[list[str]]) -> None:
    store = Store(location)
    made = [make(store, step(f"m{number}"), str(os.getpid())) for number in range(MANY)]
    results.put([store.file(entry, WEIGHTS).read_text() for entry in made])


MANY = 20


def test_processes_that_publish_the_same_steps_agree_on_every_result(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [context.Process(target=_publish_many, args=(store.location, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    seen = [results.get(timeout=200) for _ in workers]
    for worker in workers:
        worker.join()
    assert seen[0] == seen[1] == seen[2]
    assert [problem for _, problem in store.verify()] == [None] * MANY
    assert list(store.storage.attempts()) == []
