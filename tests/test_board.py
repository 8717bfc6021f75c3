"""What comes next: each step once, as soon as what it needs is there, and nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import pytest

from orchestrator.identity import Step
from orchestrator.run import board as board_module
from orchestrator.run.board import Board, State
from orchestrator.store import Store
from tests.page_example import finished_store


def steps() -> tuple[Step, Step, Step]:
    base = Step(kind="base", name="tiny", payload={"a": 1})
    tune = Step(kind="fine_tune", name="mono-fi", payload={"base": base.key}, needs=(base,))
    answer = Step(kind="generation_set", name="mono-fi.fi", payload={"model": tune.key}, needs=(tune,))
    return base, tune, answer


def open_board(root: Path, *changes: list[tuple[str, State]]) -> Board:
    store = Store(root)
    store.create()
    store.sessions.start("test")
    seen = changes[0] if changes else []
    return Board(steps(), store, lambda step, state: seen.append((step.name, state)))


def publish(board: Board, step: Step) -> None:
    attempt = board.store.attempt(step)
    (attempt / "data.json").write_text("{}")
    board.store.publish(step, attempt, {})


def test_a_step_waits_for_what_it_needs_and_no_longer(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    _, tune, answer = steps()
    assert board.claim("fine_tune") is None
    claimed = board.claim("base")
    assert claimed is not None
    assert board.claim("base") is None, "it is handed out once"
    publish(board, claimed)
    board.done(claimed)
    assert board.claim("generation_set") is None
    taken = board.claim("fine_tune")
    assert taken is not None
    assert taken.key == tune.key
    publish(board, taken)
    board.done(taken)
    last = board.claim("generation_set")
    assert last is not None
    assert last.key == answer.key


def test_what_another_session_holds_is_left_alone_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "LOOK_AGAIN", 0.0)
    ours, theirs = open_board(tmp_path), open_board(tmp_path)
    mine = ours.claim("base")
    assert mine is not None
    assert theirs.claim("base") is None
    assert theirs.counts("base")[State.ELSEWHERE] == 1
    publish(ours, mine)
    ours.done(mine)
    assert theirs.claim("base") is None
    assert theirs.counts("base")[State.DONE] == 1
    assert theirs.claim("fine_tune") is not None


def test_what_another_session_gave_up_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LOOK_AGAIN", 0.0)
    ours, theirs = open_board(tmp_path), open_board(tmp_path)
    assert ours.claim("base") is not None
    assert theirs.claim("base") is None
    ours.store.sessions.stop()
    assert theirs.claim("base") is not None


def test_a_failed_step_blocks_what_needs_it_and_is_remembered(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    base, _, _ = steps()
    claimed = board.claim("base")
    assert claimed is not None
    board.failed(claimed, "the loss is nan")
    states = [(step.name, state) for step, state, _ in board.gaps()]
    assert states == [("tiny", State.FAILED), ("mono-fi", State.BLOCKED), ("mono-fi.fi", State.BLOCKED)]
    assert not board.unfinished()
    again = open_board(tmp_path)
    assert again.claim("base") is None
    assert "the loss is nan" in again.errors[base.key]


def test_a_lost_step_is_tried_again_and_given_up_in_the_end(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    for _ in range(board_module.TRIES):
        claimed = board.claim("base")
        assert claimed is not None
        board.lost(claimed, "its worker died")
    assert board.claim("base") is None
    assert "its worker died" in board.gaps()[0][2]
    assert open_board(tmp_path).claim("base") is not None, "the next session tries again"


def test_a_quarantined_result_is_made_again(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    claimed = board.claim("base")
    assert claimed is not None
    publish(board, claimed)
    board.done(claimed)
    entry = board.store.find("base", claimed.key)
    assert entry is not None
    board.store.quarantine(entry, "a bit flipped")
    assert [step.name for step in board.reopen()] == ["tiny"]
    assert board.claim("base") is not None


@pytest.mark.parametrize(
    ("spoiled", "reader", "may_start"),
    [
        ("corpus cldr-en", "selection", {"mono-fi"}),
        ("fine_tune mono-en", "generation_set", {"mono-fi.en", "mono-fi.fi", "pinch-2-p50.en", "pinch-2-p50.fi"}),
        ("corpus cldr-fi", "comparison", {"mono-fi.en", "pinch-2-p50.en"}),
    ],
)
def test_who_reads_a_result_waits_while_that_is_made_again(
    spoiled: str, reader: str, may_start: set[str], small: Path, tmp_path: Path
) -> None:
    plan, store = finished_store(small, tmp_path / "store")
    store.sessions.start("test")
    shutil.rmtree(store.root / reader)
    board = Board(plan.steps, store, lambda step, state: None)
    (gone,) = [step for step in plan.steps if f"{step.kind} {step.name}" == spoiled]
    entry = store.find(gone.kind, gone.key)
    assert entry is not None
    store.quarantine(entry, "a bit flipped")
    board.reopen()
    started = set()
    while step := board.claim(reader):
        started.add(step.name)
    assert started == may_start


@pytest.mark.parametrize("ends", ["failed", "lost", "give_up"])
def test_what_goes_wrong_with_a_step_that_another_session_has_is_not_the_steps(tmp_path: Path, ends: str) -> None:
    board = open_board(tmp_path)
    step = board.claim("base")
    assert step is not None
    board.store.sessions.release(step.key)
    other = open_board(tmp_path)
    assert other.claim("base") is not None
    getattr(board, ends)(step, "a file is gone")
    assert board.state(step) is State.ELSEWHERE
    assert board.broken is None
    assert board.store.failures() == {} == board.store.failures(for_good=False)
    publish(other, step)
    other.done(step)
    assert board.claim("base") is None
    assert board.state(step) is State.DONE


def test_many_threads_never_get_the_same_step(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    store.sessions.start("test")
    many = [Step(kind="comparison", name=f"c{number}", payload={"n": number}) for number in range(60)]
    board = Board(many, store, lambda step, state: None)
    taken: list[str] = []

    def work() -> None:
        while step := board.claim("comparison"):
            taken.append(step.name)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(step.name for step in many)


def test_nothing_is_handed_out_once_the_run_stops(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    board.stopping.set()
    assert board.claim("base") is None


def test_preferred_steps_come_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    store.sessions.start("test")
    many = [Step(kind="fine_tune", name=f"m{number}", payload={"n": number}) for number in range(5)]
    board = Board(many, store, lambda step, state: None)
    first = board.claim("fine_tune", prefer=lambda step: -int(step.name[1:]))
    assert first is not None
    assert first.name == "m4"


def test_leases_name_their_session_and_its_process(tmp_path: Path) -> None:
    board = open_board(tmp_path)
    claimed = board.claim("base")
    assert claimed is not None
    holder = board.store.sessions.holder(claimed.key)
    assert holder is not None
    assert f"pid {os.getpid()}" in holder
    session = next((tmp_path / "sessions").glob("*.json"))
    assert json.loads(session.read_text())["pid"] == os.getpid()
