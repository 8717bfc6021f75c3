"""A lease is held by one session at a time, and what a dead one left is adopted once or discarded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.leases import Sessions
from orchestrator.storage import TakenOver
from orchestrator.store import Store
from tests.store_examples import forget_machine, step
from tests.store_places import Place

# Leases


@pytest.fixture
def store(place: Place) -> Store:
    opened = place.open()
    opened.create()
    return opened


@pytest.fixture
def sessions(store: Store) -> Sessions:
    store.sessions.start("test")
    return store.sessions


HOLDER = """
import sys, time
from orchestrator.store import Store
store = Store(sys.argv[1])
store.sessions.start("holder")
assert store.sessions.acquire("a" * 64)
print(store.sessions.id, flush=True)
time.sleep(600)
"""


def hold(store: Store) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, store.location], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_lease_is_held_by_one_session_and_given_back(sessions: Sessions, store: Store) -> None:
    process, holder = hold(store)
    try:
        assert not sessions.acquire("a" * 64)
        assert sessions.acquire("b" * 64)
        assert sessions.acquire("b" * 64), "holding it already is fine"
        assert sessions.holder("a" * 64) is not None
        assert sessions.held()["a" * 16] == holder
        assert sessions.holders().keys() == {"a" * 16, "b" * 16}
    finally:
        process.kill()
        process.wait()
    sessions.release("b" * 64)
    sessions.release("a" * 64)
    assert sessions.holder("b" * 64) is None
    assert sessions.held() == {"a" * 16: holder}, "only what is ours is given back"
    assert sessions.holders() == {}
    sessions.stop()


def test_a_session_that_is_named_after_a_long_sweep_lives_like_any_other(store: Store, place: Place) -> None:
    longest = f"pinch-{'n' * 100}-01234567"  # as `pinch submit` names it
    ours = Store(store.location, longest)
    ours.sessions.start("test")
    assert ours.sessions.acquire("a" * 64)
    other = place.open()
    other.sessions.start("other")
    assert other.sessions.alive(longest)
    assert not other.sessions.acquire("a" * 64)
    ours.sessions.stop()


def test_the_lease_of_a_killed_process_is_taken_over_at_once(sessions: Sessions, store: Store) -> None:
    process, _ = hold(store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    assert sessions.acquire("a" * 64)
    assert time.monotonic() - began < 5
    sessions.stop()


def test_the_lease_of_a_stopped_process_is_taken_over_when_its_beat_stands_still(
    sessions: Sessions, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.storage, "dead_after", 3.0)
    process, _ = hold(store)
    try:
        process.send_signal(signal.SIGSTOP)
        assert not sessions.acquire("a" * 64), "its beat has only just been seen"
        deadline = time.monotonic() + 60
        while not sessions.acquire("a" * 64):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    sessions.stop()


def test_of_a_session_on_another_machine_it_is_said_when_it_was_heard_of(sessions: Sessions, store: Store) -> None:
    process, _ = hold(store)
    try:
        assert "heard of" not in str(sessions.holder("a" * 64))
    finally:
        process.kill()
        process.wait()
    of_another_boot(store)
    assert "last heard of at 20" in str(sessions.holder("a" * 64))
    sessions.stop()


def test_a_stopped_session_holds_nothing(sessions: Sessions, store: Store) -> None:
    assert sessions.acquire("a" * 64)
    sessions.stop()
    assert sessions.held() == {}
    assert store.storage.names("sessions") == []


def test_a_store_that_was_away_says_nothing_about_anybodys_beat(
    sessions: Sessions, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.storage, "dead_after", 3.0)
    process, holder = hold(store)
    try:
        process.send_signal(signal.SIGSTOP)
        assert sessions.alive(holder)
        with monkeypatch.context() as away:
            away.setattr(store.storage, "read", _gone)
            time.sleep(2)
            with pytest.raises(OSError, match="away"):
                sessions.alive(holder)
        time.sleep(2)
        assert sessions.alive(holder), "four seconds after it was seen, but it could not be watched"
        time.sleep(3.5)
        assert not sessions.alive(holder)
    finally:
        process.kill()
        process.wait()
    sessions.stop()


def _gone(name: str) -> bytes:
    raise OSError("away")


# Attempts


def of_another_boot(store: Store) -> None:
    """As if every session there is had been on another machine."""
    for name, content in store.storage.read_all("sessions").items():
        store.storage.write(name, json.dumps({**json.loads(content), "boot": "another"}).encode())


LEAVER = """
import os, signal, sys
from tests.store_examples import forget_machine, step
from orchestrator.store import Store
store = Store(sys.argv[1])
store.sessions.start("leaver")
attempt = store.attempt(step())
(attempt / "state-000001").mkdir()
(attempt / "state-000001" / "state.json").write_text("half-way")
store.save(attempt)
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(store: Store) -> None:
    """A session begins the step, saves a state, and is killed."""
    root = str(Path(__file__).parent.parent)
    ended = subprocess.run([sys.executable, "-c", LEAVER, store.location], cwd=root, check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on its machine", "on another"])
def test_what_a_dead_session_left_is_adopted_by_who_holds_the_lease(store: Store, elsewhere: bool) -> None:
    leave(store)
    if elsewhere:
        forget_machine(store)
        of_another_boot(store)
    ours = store.adopt(step())
    assert ours is not None
    assert (ours / "state-000001" / "state.json").read_text() == "half-way"
    assert [attempt.about["session"] for attempt in store.storage.attempts()] == [store.sessions.id]
    assert store.adopt(step("mono-en")) is None
    (ours / "done").write_text("done")
    made = store.publish(step(), ours, {})
    assert set(made.manifest["files"]) == {"done", "state-000001/state.json"}
    assert [problem for _, problem in store.verify()] == [None]


def test_of_several_who_take_an_attempt_one_gets_it(store: Store, place: Place) -> None:
    leave(store)
    (left,) = store.storage.attempts()
    with ThreadPoolExecutor(3) as pool:
        others = [(place.open().storage, f"session-{number}") for number in range(3)]
        taken = list(pool.map(lambda one: one[0].take(left, step().folder, {**left.about, "session": one[1]}), others))
    assert sum(path is not None for path in taken) == 1


def test_whose_attempt_was_gone_on_with_can_publish_it_no_more(store: Store, place: Place) -> None:
    slept = store.attempt(step())
    (slept / "state-000001").mkdir()
    (slept / "state-000001" / "state.json").write_text("half-way")
    store.save(slept)
    kept_beside = {path: path.read_bytes() for path in slept.parent.glob("*.json")}
    other = place.open()
    ours = other.adopt(step())
    assert ours is not None
    (slept / "checkpoint-000002").mkdir(parents=True, exist_ok=True)  # as it lies on the machine that wakes up
    (slept / "checkpoint-000002" / "model.safetensors").write_text("of who woke up")
    for path, content in kept_beside.items():
        path.write_bytes(content)
    if store.elsewhere:
        with pytest.raises(TakenOver):
            store.save(slept)
    with pytest.raises(TakenOver):
        store.publish(step(), slept, {})
    (ours / "done").write_text("done")
    made = other.publish(step(), ours, {})
    assert set(made.manifest["files"]) == {"done", "state-000001/state.json"}
    assert [problem for _, problem in place.open().verify()] == [None]


def test_what_dead_sessions_left_is_found_and_discarded_and_a_living_ones_is_not(store: Store, place: Place) -> None:
    leave(store)
    store.sessions.start("test")
    ours = store.attempt(step("mono-en"))
    (ours / "x").write_text("x")
    store.save(ours)
    left = list(place.open().abandoned())
    assert [attempt.name.split(".")[0] for attempt in left] == [step().folder]
    assert sum(left[0].files.values()) == len("half-way")
    store.discard(left[0])
    assert [attempt.name for attempt in store.storage.attempts()] == [ours.name]
    store.discard(ours)
    store.sessions.stop()
    assert list(store.storage.attempts()) == []
    assert not [name for name in store.storage.names("fine_tune") if "state" in name]
