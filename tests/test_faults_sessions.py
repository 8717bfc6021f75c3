"""Sessions that share a store share the work, whatever their clocks say and however long one of them sleeps."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.conftest import SMALL, Pinch
from tests.faults import Session, complete, digests, leased, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WRONG_CLOCK = """
import time

now, now_ns = time.time, time.time_ns
time.time = lambda: now() + {seconds}
time.time_ns = lambda: now_ns() + {seconds} * 10**9
"""
"""Loaded by every process of a session: its clock is wrong."""


def makers(store: Path) -> Counter[str]:
    """Session -> how many results it made."""
    manifests = (json.loads(path.read_text()) for path in store.glob("*/*/manifest.json"))
    return Counter(one["made"]["session"] for one in manifests if one["kind"] not in ("base", "corpus"))


def made(session: Session) -> int:
    """How many steps a session says it made."""
    line = next(line for line in session.text().splitlines() if line.startswith("small: "))
    counts = line.removeprefix("small: ").split(", in ")[0]
    kinds = ("fine_tune", "selection", "generation_set", "comparison")
    return sum(int(part.split()[0]) for part in counts.split(", ") if part.split()[-1] in kinds)


def test_two_sessions_and_then_four_some_with_wrong_clocks_share_the_work_and_make_nothing_twice(
    small: Path, begun: Path, undisturbed: Path, pinch: Pinch, tmp_path: Path
) -> None:
    def session(seconds: int) -> Session:
        folder = tmp_path / f"clock-{seconds}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(WRONG_CLOCK.format(seconds=seconds))
        return Session(small, begun, path=folder)

    sessions = [Session(small, begun), session(3600)]
    until(lambda: any((begun / "fine_tune").glob("*/manifest.json")), sessions[0])
    sessions += [Session(small, begun), session(-3600)]
    for session in sessions:
        assert session.wait(1200) == 0, session.text()
    complete(begun, small, undisturbed, pinch)
    assert len(makers(begun)) > 1, "one session did everything"
    assert not (begun / "quarantine").exists()
    assert sum(map(made, sessions)) == makers(begun).total(), "a step was made twice"


def test_a_session_that_wakes_up_while_another_goes_on_with_its_work_leaves_it_that(
    tmp_path: Path, begun: Path, pinch: Pinch
) -> None:
    sweep = tmp_path / "long.yaml"
    sweep.write_text(SMALL.replace("steps: 8", "steps: 400").replace("checkpoint_every: 4", "checkpoint_every: 40"))
    sleeper = Session(sweep, begun)
    until(lambda: any((begun / "attempts").glob("*/state-*/state.json")), sleeper)
    theirs = next((begun / "attempts").glob("*/state-*/state.json")).parents[1]
    family = with_all_it_started(sleeper)
    for process in family:
        process.send_signal(signal.SIGSTOP)
    other = Session(sweep, begun)
    until(lambda: not theirs.exists(), other)
    for process in family:
        process.send_signal(signal.SIGCONT)
    for session in (sleeper, other):
        assert session.wait() == 0, session.text()
    complete(begun, sweep, None, pinch)
    assert makers(begun).total() == 16
    assert not (begun / "quarantine").exists()
    resumed = [json.loads(path.read_text())["facts"]["resumed_at"] for path in begun.glob("fine_tune/*/manifest.json")]
    assert max(resumed) >= 20, "what the sleeper had done was not done again"


def with_all_it_started(session: Session) -> list[psutil.Process]:
    driver = psutil.Process(session.process.pid)
    return [driver, *driver.children(recursive=True)]


def test_a_session_that_sleeps_past_its_lease_wakes_up_and_changes_nothing(
    small: Path, begun: Path, undisturbed: Path, pinch: Pinch
) -> None:
    sleeper = Session(small, begun)
    until(leased(begun, small, "fine_tune"), sleeper)
    until(lambda: bool(list((begun / "attempts").glob("*/examples.parquet"))), sleeper)
    family = with_all_it_started(sleeper)
    for process in family:
        process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    other = Session(small, begun)
    assert other.wait() == 0, other.text()
    assert time.monotonic() - began > 30, "the lease of who may only be slow is respected for a while"
    before = digests(begun)
    assert makers(begun).total() == 16
    for process in family:
        process.send_signal(signal.SIGCONT)
    assert sleeper.wait() == 0, sleeper.text()
    assert digests(begun) == before
    complete(begun, small, undisturbed, pinch)
