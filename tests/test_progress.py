"""What a run says of itself: the time left follows from what is done, also of the step that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.identity import Step
from orchestrator.run import progress as progress_module
from orchestrator.run.board import Board, State
from orchestrator.run.progress import Progress
from orchestrator.store import Store


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def _opened(store_folder: Path, count: int) -> tuple[Progress, list[Step], Board]:
    steps = [Step(kind="fine_tune", name=f"model-{at}", payload={"at": at}) for at in range(count)]
    store = Store(store_folder)
    store.create()
    store.sessions.start("test")
    progress = Progress(Console(width=200, record=True, quiet=True), "sweep")
    board = Board(steps, store, progress.change)
    progress.open(board)
    return progress, steps, board


def _said(progress: Progress, clock: Clock) -> str:
    clock.now += progress_module.LINE_EVERY
    lines: list[str] = []
    progress.say = lines.append  # type: ignore[method-assign, assignment]
    progress.tick()
    return lines[-1]


def test_a_slow_first_step_does_not_spoil_the_time_left(tmp_path: Path, clock: Clock) -> None:
    progress, steps, board = _opened(tmp_path / "store", 11)
    first = board.claim("fine_tune")
    assert first is not None
    clock.now += 100  # the lane comes up
    progress.fine_tune(first, {"loss": 1.0, "step": 100}, 100)
    board.done(first)
    second = board.claim("fine_tune")
    assert second is not None
    assert second in steps
    clock.now += 5
    progress.fine_tune(second, {"loss": 1.0, "step": 50}, 100)
    # 20 s for a half: 40 s a step, and nine and a half steps to go
    assert "(6m20s left)" in _said(progress, clock)


def test_time_left_does_not_grow_while_a_step_runs_evenly(tmp_path: Path, clock: Clock) -> None:
    progress, _, board = _opened(tmp_path / "store", 6)
    told: list[int] = []
    for _ in range(5):
        step = board.claim("fine_tune")
        assert step is not None
        for part in range(1, 5):
            progress.fine_tune(step, {"loss": 1.0, "step": 25 * part}, 100)
            minutes = re.search(r"\((?:(\d+)m)?(\d+)s left\)", _said(progress, clock))
            if minutes:
                told.append(int(minutes[1] or 0) * 60 + int(minutes[2]))
        board.done(step)
    assert told == sorted(told, reverse=True)
    assert len(told) == 16


def test_nothing_is_said_of_the_time_left_before_anything_is_done(tmp_path: Path, clock: Clock) -> None:
    progress, _, board = _opened(tmp_path / "store", 3)
    board.claim("fine_tune")
    assert "fine-tunes 0/3" in _said(progress, clock)
    assert "left" not in _said(progress, clock)
    assert board.counts("fine_tune")[State.RUNNING] == 1


def test_what_failed_is_said_when_the_board_is_not_locked(tmp_path: Path, clock: Clock) -> None:
    progress, _, board = _opened(tmp_path / "store", 2)
    said: list[str] = []
    progress.say = said.append  # type: ignore[method-assign, assignment]
    step = board.claim("fine_tune")
    assert step is not None
    board.failed(step, "loss became NaN\nat step 7")
    assert said == [], "who draws a terminal's bars waits for the board with the terminal locked"
    progress.tick()
    assert said[0] == f"Failed: fine_tune {step.name}: loss became NaN"


def test_a_call_that_has_ended_is_not_counted_as_running_too(tmp_path: Path, clock: Clock) -> None:
    progress, _, board = _opened(tmp_path / "store", 4)
    for _ in range(2):
        step = board.claim("fine_tune")
        assert step is not None
        clock.now += 10
        board.done(step)
        progress.inside({step.key: (8.0, 8.0)})
    clock.now -= progress_module.LINE_EVERY
    assert "fine-tunes 2/4 (20s left)" in _said(progress, clock)
