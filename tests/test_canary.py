"""One comparison goes through the whole chain before anything else is begun; then everything is as it always was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.identity import KINDS, Step
from orchestrator.plan import Plan
from orchestrator.run.board import Board, State
from orchestrator.run.canary import chain, sentence
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.faults import Session
from tests.test_cluster_doctor import cluster  # noqa: F401  (a fixture)

GRID = SMALL.replace("languages: [en, fi]", "languages: [en, es, fi]")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return Plan(load(str(path)))


def opened(plan: Plan, root: Path) -> Board:
    there = Store(root)
    there.create()
    there.sessions.start("test")
    return Board(plan.steps, there, lambda *_: None)


def publish(board: Board, step: Step) -> None:
    attempt = board.store.attempt(step)
    (attempt / "data.json").write_text("{}")
    board.store.publish(step, attempt, {})
    board.done(step)


def taken(board: Board) -> Iterator[Step]:
    """What is handed out, whichever kind is asked for, each published before the next is asked for."""
    while step := next((step for kind in KINDS if (step := board.claim(kind))), None):
        yield step
        publish(board, step)


def test_the_smallest_chain_goes_first_and_whole_and_then_everything_else(plan: Plan, tmp_path: Path) -> None:
    board = opened(plan, tmp_path / "store")
    first = chain(board)
    assert [step.kind for step in first if step.kind in ("base", "comparison")] == ["base", "comparison"]
    assert sum(step.kind == "fine_tune" for step in first) == 2, "a model and its baseline"
    assert first[-1].kind == "comparison"
    assert "before the other 2 fine-tunes are begun" in sentence(first, board)
    board.hold_back(first)
    order = [step.key for step in taken(board)]
    assert set(order[: len(first)]) == {step.key for step in first}
    assert len(order) == len(plan.steps), "nothing stays behind"
    assert not board.unfinished()


def test_without_a_canary_everything_begins_at_once(plan: Plan, tmp_path: Path) -> None:
    board = opened(plan, tmp_path / "store")
    order = [step.kind for step in taken(board)]
    assert order.index("comparison") > len(order) - 1 - order[::-1].index("fine_tune")


def test_a_model_that_needs_one_fine_tune_is_taken_before_one_that_needs_two(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.replace("studies:", "studies:\n  - {study: base, languages: [en, fi]}"))
    board = opened(Plan(load(str(path))), tmp_path / "store")
    assert sum(step.kind == "fine_tune" for step in chain(board)) == 1


def test_where_no_fine_tune_would_wait_there_is_no_canary(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(SMALL.replace("  - {study: pinch, languages: [en, fi], percents: [50], counts: []}\n", ""))
    assert chain(opened(Plan(load(str(path))), tmp_path / "store")) == []


def test_where_a_comparison_is_there_already_nothing_is_held_back(plan: Plan, tmp_path: Path) -> None:
    board = opened(plan, tmp_path / "store")
    for step in taken(board):
        if step.kind == "comparison":
            publish(board, step)
            break
    assert chain(opened(plan, tmp_path / "store")) == []
    assert chain(Board([], Store(tmp_path / "none"), lambda *_: None)) == []


def test_when_the_canary_fails_nothing_else_is_begun_and_the_next_run_takes_another(plan: Plan, tmp_path: Path) -> None:
    board = opened(plan, tmp_path / "store")
    first = chain(board)
    board.hold_back(first)
    for step in taken(board):
        if step.kind == "fine_tune":
            board.failed(step, "the loss is nan")
            break
    assert board.stopped == f"the canary's fine_tune {step.name} failed; nothing else was begun"
    assert [board.claim(kind) for kind in KINDS] == [None] * len(KINDS)
    again = opened(plan, tmp_path / "store")
    other = chain(again)
    assert step.key not in {one.key for one in other}
    assert other[-1].key != first[-1].key


@pytest.mark.parametrize(("setting", "value"), [("auto", "auto"), ("true", True), ("false", False)])
def test_the_setting_is_runtime_and_says_what_it_may_be(setting: str, value: Any, tmp_path: Path, plan: Plan) -> None:
    path = tmp_path / "grid.yaml"
    loaded = load(str(path), [f"runtime.canary={setting}"])
    assert loaded.sweep.runtime.canary == value
    assert [step.key for step in Plan(loaded).steps] == [step.key for step in plan.steps]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_on_two_nodes_the_first_comparison_is_there_before_other_fine_tunes(
    cluster: Any,  # noqa: F811
    begun: Path,
    tmp_path: Path,
    pinch: Pinch,
) -> None:
    cluster.add_node(num_cpus=2)
    sweep = tmp_path / "small.yaml"
    sweep.write_text(SMALL.replace("percents: [50]", "percents: [25, 50]"))
    session = Session(sweep, begun, "--address", cluster.address)
    assert session.wait() == 0, session.text()
    assert "Canary: comparison " in session.text()
    made = {
        kind: sorted((json.loads(path.read_text())["made"]["at"], path.parent.name) for path in paths)
        for kind in ("fine_tune", "comparison")
        if (paths := list((begun / kind).glob("*/manifest.json")))
    }
    (compared, _), *_ = made["comparison"]
    assert len([at for at, _ in made["fine_tune"] if at <= compared]) == 2, made
    assert len(made["fine_tune"]) == 4
    board = Board(Plan(load(str(sweep))).steps, Store(begun), lambda *_: None)
    assert all(board.state(step) is State.DONE for step in board.steps.values())
