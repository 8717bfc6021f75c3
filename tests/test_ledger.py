"""What was paid for is kept from the moment it arrives."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from orchestrator.ledger import Ledger
from orchestrator.storage import Storage
from tests.store_places import Place


@pytest.fixture
def storage(place: Place) -> Storage:
    return place.open().storage


def test_answers_are_read_back_by_another_ledger_of_the_name(storage: Storage) -> None:
    Ledger(storage, "a").add("k", {"text": "päivää\n", "tokens": 3})
    assert Ledger(storage, "a").read() == {"k": {"text": "päivää\n", "tokens": 3}}
    assert Ledger(storage, "b").read() == {}


def test_answers_that_arrive_at_once_are_kept_at_once(storage: Storage) -> None:
    ledger = Ledger(storage, "a")
    ledger.extend({"k": {"n": 1}, "l": {"n": 2}})
    ledger.add("k", {"n": 3})
    assert Ledger(storage, "a").read() == {"k": {"n": 1}, "l": {"n": 2}}


def test_a_line_that_a_kill_cut_short_is_no_answer(storage: Storage) -> None:
    ledger = Ledger(storage, "a")
    ledger.add("k", {"choice": 1})
    ((name, content),) = storage.read_all(ledger.folder).items()
    storage.write(name, content + b'{"key": "l", "answer": {"cho')
    assert Ledger(storage, "a").read() == {"k": {"choice": 1}}


def test_a_killed_process_loses_no_answer_that_it_had_added(storage: Storage) -> None:
    script = (
        "import sys, os, signal; from orchestrator.store import Store\n"
        "ledger = Store(sys.argv[1]).ledger('a')\n"
        "for n in range(50): ledger.add(str(n), {'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, storage.location], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert Ledger(storage, "a").read() == {str(n): {"n": n} for n in range(50)}


def test_two_writers_keep_both_and_agree_on_what_stands(storage: Storage) -> None:
    one, two = Ledger(storage, "a"), Ledger(storage, "a")
    one.add("same", {"by": 1})
    two.add("same", {"by": 2})
    one.add("x", {"by": 1})
    two.add("y", {"by": 2})
    assert Ledger(storage, "a").read().keys() == {"same", "x", "y"}
    assert Ledger(storage, "a").read() == one.read() == two.read()


def test_a_removed_ledger_is_empty_and_can_be_written_again(storage: Storage) -> None:
    ledger = Ledger(storage, "a")
    ledger.add("k", {"n": 1})
    ledger.remove({"k"})
    assert ledger.read() == {}
    ledger.add("l", {"n": 2})
    assert ledger.read() == {"l": {"n": 2}}


def test_what_was_not_published_stays_and_who_is_at_it_loses_nothing(storage: Storage) -> None:
    one, larger, late = (Ledger(storage, "a") for _ in range(3))
    one.add("k", {"by": 1})
    larger.extend({"k": {"by": 2}, "l": {"by": 2}})
    late.add("k", {"by": 3})
    one.remove({"k"})
    assert Ledger(storage, "a").read() == {"k": {"by": 2}, "l": {"by": 2}}
    late.add("m", {"by": 3})
    assert Ledger(storage, "a").read()["m"] == {"by": 3}, "its record was removed under it"
