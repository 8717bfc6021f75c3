"""A result whose content changed since it was published is never a score, a sample or a curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.run.agenda import State
from orchestrator.run.board import Board
from orchestrator.run.records import Recorder
from orchestrator.store import Corrupt
from tests.conftest import Pinch
from tests.faults import spoil
from tests.page_example import finished_store


@pytest.mark.parametrize(
    ("command", "file"),
    [("scores", "comparison/*/verdicts.parquet"), ("report", "generation_set/*/responses.parquet")],
)
def test_who_looks_is_told_what_was_spoiled_and_how_it_comes_back(
    command: str, file: str, small: Path, tmp_path: Path, pinch: Pinch
) -> None:
    _, store = finished_store(small, tmp_path / "store")
    path = next(store.root.glob(file))
    spoil(path)
    said = pinch(command, small, "--store", store.location, check=3).stderr
    assert f"{path.parent.name}: {path.name} does not have the content its manifest names" in said
    assert "make it again: pinch run" in said
    assert next((store.root / "quarantine").glob("*/reason.txt")).is_file()


def test_what_mlflow_is_to_be_told_is_checked_and_opened_again(small: Path, tmp_path: Path) -> None:
    plan, store = finished_store(small, tmp_path / "store")
    board = Board(plan.steps, store, lambda step, state: None)
    recorder = Recorder(plan, store, board)
    (step, *_) = plan.of_kind("selection")
    spoil(store.root / "selection" / step.folder / "scores.json")
    with pytest.raises(Corrupt) as problem:
        recorder.made(step)
    assert board.quarantined(problem.value).endswith("quarantined; making it again (1 steps).")
    assert board.state(step) is State.TODO
    recorder.close("KILLED")
