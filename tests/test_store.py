"""What is done is proved by content, and the first of two results stands."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.identity import Step
from orchestrator.leases import Sessions
from orchestrator.store import MANIFEST, Corrupt, Store
from trainables.errors import UserError


def step(name: str = "mono-fi", **payload: object) -> Step:
    return Step(kind="fine_tune", name=name, payload={"name": name, **payload})


def make(store: Store, what: Step, text: str = "weights") -> Path:
    attempt = store.attempt(what)
    (attempt / "checkpoint-000010").mkdir()
    (attempt / "checkpoint-000010" / "model.safetensors").write_text(text)
    return store.publish(what, attempt, {"seconds": 1.0}).path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "store")
    opened.create()
    return opened


def test_what_is_published_is_found_with_its_payload(store: Store) -> None:
    made = make(store, step(rate=1e-5))
    entry = Store(store.root).find("fine_tune", step(rate=1e-5).key)
    assert entry is not None
    assert entry.path == made
    assert entry.manifest["payload"] == {"name": "mono-fi", "rate": 1e-5}
    assert len(entry.key) == 64
    assert made.name == f"mono-fi-{entry.key[:16]}"


def test_a_folder_without_a_manifest_is_not_a_result(store: Store) -> None:
    folder = store.root / "fine_tune" / step().folder
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("half")
    assert store.find("fine_tune", step().key) is None
    assert store.entries("fine_tune") == {}


def test_a_half_written_folder_makes_way_for_a_whole_one(store: Store) -> None:
    folder = store.root / "fine_tune" / step().folder
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("half")
    make(store, step())
    assert store.find("fine_tune", step().key) is not None
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_the_first_of_two_attempts_stands(store: Store) -> None:
    first = make(store, step(), "first")
    second = make(store, step(), "second")
    assert first == second
    assert (first / "checkpoint-000010" / "model.safetensors").read_text() == "first"
    assert list((store.root / "attempts").iterdir()) == []


def test_a_changed_file_is_found_at_first_use_and_quarantined(store: Store) -> None:
    made = make(store, step(), "weights")
    (made / "checkpoint-000010" / "model.safetensors").write_text("wEights")  # same size
    fresh = Store(store.root)
    entry = fresh.find("fine_tune", step().key)
    assert entry is not None
    with pytest.raises(Corrupt, match="does not have the content"):
        fresh.use(entry)
    assert fresh.find("fine_tune", step().key) is None
    assert "model.safetensors" in next((store.root / "quarantine").glob("*/reason.txt")).read_text()


def test_a_truncated_file_is_not_listed(store: Store) -> None:
    made = make(store, step())
    (made / "checkpoint-000010" / "model.safetensors").write_text("we")
    assert Store(store.root).find("fine_tune", step().key) is None


def test_verify_names_what_does_not_hold_and_keeps_what_does(store: Store) -> None:
    make(store, step("mono-en"))
    broken = make(store, step("mono-fi"))
    (broken / "checkpoint-000010" / "model.safetensors").unlink()
    problems = {path.name.split("-")[1]: problem for path, problem in store.verify()}
    assert problems["en"] is None
    assert problems["fi"] is not None
    assert "missing" in problems["fi"]
    assert [problem for _, problem in store.verify()] == [None]


def test_freed_files_are_gone_from_disk_and_manifest_alike(store: Store) -> None:
    made = make(store, step())
    entry = store.find("fine_tune", step().key)
    assert entry is not None
    assert store.free(entry, ["checkpoint-000010/model.safetensors"]) == len("weights")
    assert not (made / "checkpoint-000010").exists()
    again = Store(store.root).find("fine_tune", step().key)
    assert again is not None
    assert again.manifest["freed"]
    Store(store.root).use(again)


def test_a_store_of_another_schema_can_be_read_but_not_added_to(store: Store) -> None:
    (store.root / "pinch-store.json").write_text(json.dumps({"schema": 0}))
    old = Store(store.root)
    assert old.entries("fine_tune") == {}
    with pytest.raises(UserError, match="schema 0"):
        old.create()


@pytest.mark.parametrize("location", ["s3://bucket/store", "/proc/pinch"])
def test_a_place_that_cannot_be_a_store_is_refused(location: str) -> None:
    with pytest.raises(UserError, match="--store"):
        Store(location).create()


def test_a_file_cannot_be_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        Store(tmp_path / "file")


def test_failures_are_remembered_until_the_step_succeeds(store: Store) -> None:
    store.record_failure(step(), "the loss is nan")
    assert store.failures()[step().key]["error"] == "the loss is nan"
    make(store, step())
    assert store.failures() == {}


def test_a_results_name_cannot_leave_the_store(store: Store) -> None:
    assert "/" not in step("mono-fi").folder


def _publish_many(root: str, results: multiprocessing.Queue[list[str]]) -> None:
    store = Store(root)
    paths = [str(make(store, step(f"m{number}"), str(os.getpid()))) for number in range(30)]
    results.put([(Path(path) / "checkpoint-000010" / "model.safetensors").read_text() for path in paths])


def test_processes_that_publish_the_same_steps_agree_on_every_result(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[list[str]] = context.Queue()
    workers = [context.Process(target=_publish_many, args=(str(store.root), results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    seen = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert seen[0] == seen[1] == seen[2]
    assert [problem for _, problem in store.verify()] == [None] * 30


# Leases


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    started = Sessions(tmp_path)
    started.start("test")
    return started


HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.leases import Sessions
sessions = Sessions(Path(sys.argv[1]))
sessions.start("holder")
assert sessions.acquire("a" * 64)
print(sessions.id, flush=True)
time.sleep(600)
"""


def hold(root: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_lease_is_held_by_one_session_and_given_back(sessions: Sessions, tmp_path: Path) -> None:
    process, holder = hold(tmp_path)
    try:
        assert not sessions.acquire("a" * 64)
        assert sessions.acquire("b" * 64)
        assert sessions.holder("a" * 64) is not None
        assert sessions.held()["a" * 16] == holder
    finally:
        process.kill()
        process.wait()
    sessions.release("b" * 64)
    assert sessions.holder("b" * 64) is None
    sessions.stop()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(sessions: Sessions, tmp_path: Path) -> None:
    process, _ = hold(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    assert sessions.acquire("a" * 64)
    assert time.monotonic() - began < 2
    sessions.stop()


def test_the_lease_of_a_stopped_process_is_taken_over_when_its_beat_stands_still(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.leases.DEAD_AFTER", 3.0)
    process, _ = hold(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        assert not sessions.acquire("a" * 64), "its beat has only just been seen"
        deadline = time.monotonic() + 30
        while not sessions.acquire("a" * 64):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    sessions.stop()


def test_a_stopped_session_holds_nothing(sessions: Sessions, tmp_path: Path) -> None:
    assert sessions.acquire("a" * 64)
    sessions.stop()
    assert sessions.held() == {}
    assert list((tmp_path / "sessions").iterdir()) == []


def test_what_a_dead_session_left_is_adopted_by_who_holds_the_lease(store: Store) -> None:
    attempt = store.attempt(step())
    (attempt / "state").write_text("half-way")
    (attempt / "attempt.json").write_text(json.dumps({"key": step().key, "session": "f" * 32}))
    ours = store.adopt(step())
    assert ours is not None
    assert (ours / "state").read_text() == "half-way"
    assert json.loads((ours / "attempt.json").read_text())["session"] == store.sessions.id


def test_the_manifest_is_the_last_file_of_a_result(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = store.attempt(step())
    (attempt / "data.json").write_text("{}")
    monkeypatch.setattr("orchestrator.store.os.rename", _full_disk)
    with pytest.raises(Exception, match="published"):
        store.publish(step(), attempt, {})
    assert store.find("fine_tune", step().key) is None
    assert (attempt / MANIFEST).exists()


def _full_disk(*paths: object) -> None:
    raise OSError(28, "No space left on device")
