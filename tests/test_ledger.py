"""What was paid for is kept from the moment it arrives."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from orchestrator.ledger import Ledger


def test_answers_are_read_back_by_another_ledger_of_the_name(tmp_path: Path) -> None:
    Ledger(tmp_path, "a").add("k", {"text": "päivää\n", "tokens": 3})
    assert Ledger(tmp_path, "a").read() == {"k": {"text": "päivää\n", "tokens": 3}}
    assert Ledger(tmp_path, "b").read() == {}


def test_answers_that_arrive_at_once_are_kept_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "a")
    ledger.extend({"k": {"n": 1}, "l": {"n": 2}})
    ledger.add("k", {"n": 3})
    assert Ledger(tmp_path, "a").read() == {"k": {"n": 1}, "l": {"n": 2}}


def test_a_line_that_a_kill_cut_short_is_no_answer(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "a")
    ledger.add("k", {"choice": 1})
    file = next(ledger.folder.glob("*.jsonl"))
    file.write_bytes(file.read_bytes() + b'{"key": "l", "answer": {"cho')
    assert Ledger(tmp_path, "a").read() == {"k": {"choice": 1}}


def test_a_killed_process_loses_no_answer_that_it_had_added(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; from orchestrator.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]), 'a')\n"
        "for n in range(100): ledger.add(str(n), {'n': n})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert Ledger(tmp_path, "a").read() == {str(n): {"n": n} for n in range(100)}


def test_two_writers_keep_both_and_agree_on_what_stands(tmp_path: Path) -> None:
    one, two = Ledger(tmp_path, "a"), Ledger(tmp_path, "a")
    one.add("same", {"by": 1})
    two.add("same", {"by": 2})
    one.add("x", {"by": 1})
    two.add("y", {"by": 2})
    assert Ledger(tmp_path, "a").read().keys() == {"same", "x", "y"}
    assert Ledger(tmp_path, "a").read() == one.read() == two.read()


def test_a_removed_ledger_is_empty_and_can_be_written_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "a")
    ledger.add("k", {"n": 1})
    ledger.remove()
    assert ledger.read() == {}
    ledger.add("l", {"n": 2})
    assert ledger.read() == {"l": {"n": 2}}
