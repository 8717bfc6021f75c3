"""What fails for good is recorded whole and said in a sentence; what needs it is blocked by it; the rest is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.plan import Plan
from orchestrator.review import explained, in_a_sentence, review
from orchestrator.run.board import TRIES, Board, State
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.faults import Session

IN_A_LANE = (
    "ValueError on worker 1: the rows do not fit\nTraceback (most recent call last):\n  File x\nValueError: not this"
)
IN_AN_ACTOR = (
    "\x1b[36mray::EngineActor.generate()\x1b[39m (pid=12, ip=127.0.0.1)\n"
    "  File \"x.py\", line 3, in generate\n    raise KeyError('id')\nKeyError: 'id'\n"
)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("fine-tune mono-fi: the loss is nan at step 3", "fine-tune mono-fi: the loss is nan at step 3"),
        (IN_A_LANE, "ValueError on worker 1: the rows do not fit"),
        (IN_AN_ACTOR, "KeyError: 'id'"),
        ("Traceback (most recent call last):\n  x\nOSError: no\n\n", "OSError: no"),
        (" \n", "no error was recorded"),
    ],
)
def test_an_error_is_said_by_the_line_that_says_what_happened(error: str, said: str) -> None:
    assert in_a_sentence(error) == said


def test_a_long_error_is_cut() -> None:
    assert in_a_sentence("x" * 1000) == "x" * 300 + "..."


def test_every_failure_is_a_sentence_and_what_it_blocks_another() -> None:
    failed = [(f"fine_tune m{number}", IN_A_LANE) for number in range(3)]
    said = explained(failed, {"blocked by fine_tune m1": 1, "blocked by fine_tune m0": 5}, most=2)
    assert said == [
        "Failed: fine_tune m0: ValueError on worker 1: the rows do not fit",
        "Failed: fine_tune m1: ValueError on worker 1: the rows do not fit",
        "... and 1 more failed.",
        "5 steps are blocked by fine_tune m0.",
        "1 step is blocked by fine_tune m1.",
    ]


@pytest.fixture
def opened(tmp_path: Path, small: Path) -> tuple[Plan, Store, Path]:
    """A plan and a store in which nothing is done."""
    there = Store(tmp_path / "there")
    there.create()
    there.sessions.start("test")
    return Plan(load(str(small))), there, small


def test_a_recorded_failure_is_there_whole_and_status_says_it_once(
    opened: tuple[Plan, Store, Path], pinch: Pinch
) -> None:
    plan, there, sweep = opened
    board = Board(plan.steps, there, lambda *_: None)
    claimed = board.claim("base")
    assert claimed is not None
    board.failed(claimed, IN_AN_ACTOR)
    there.sessions.stop()
    said = pinch("status", sweep, "--store", there.root)
    assert said.stderr.count("KeyError: 'id'") == 1
    assert "Failed: base tiny: KeyError: 'id'" in said.stderr
    blocked = len(plan.steps) - 1 - len(plan.of_kind("corpus"))
    assert f"{blocked} steps are blocked by base tiny." in said.stderr
    rows = json.loads(pinch("status", sweep, "--store", there.root, "--json").stdout)["steps"]
    (failed,) = [row for row in rows if row["state"] == "failed"]
    assert (failed["name"], failed["error"]) == ("tiny", IN_AN_ACTOR)
    assert {row["why"] for row in rows if row["state"] == "blocked"} == {"blocked by base tiny"}
    assert len([row for row in rows if row["state"] == "blocked"]) == blocked


def test_what_a_run_gave_up_is_said_and_tried_again_by_the_next(opened: tuple[Plan, Store, Path], pinch: Pinch) -> None:
    plan, there, sweep = opened
    board = Board(plan.steps, there, lambda *_: None)
    for _ in range(TRIES):
        claimed = board.claim("base")
        assert claimed is not None
        board.lost(claimed, IN_AN_ACTOR)
    assert board.state(plan.base) is State.FAILED
    there.sessions.stop()
    said = pinch("status", sweep, "--store", there.root)
    assert "base tiny: given up in the last run: KeyError: 'id'; the next run tries it again" in said.stderr
    rows = json.loads(pinch("status", sweep, "--store", there.root, "--json").stdout)["steps"]
    (row,) = [row for row in rows if row["name"] == "tiny"]
    assert (row["state"], row["error"]) == ("to do", IN_AN_ACTOR)
    again = Board(plan.steps, Store(there.root), lambda *_: None)
    assert again.state(plan.base) is State.TODO
    there.sessions.start("test")
    attempt = there.attempt(plan.base)
    (attempt / "config.json").write_text("{}")
    there.publish(plan.base, attempt, {})
    assert there.failures(for_good=False) == {}
    assert review(plan, there)[0].state == "done"


@pytest.mark.slow
def test_a_fine_tune_that_fails_for_good_leaves_the_rest_done_and_is_explained(
    tmp_path: Path,
    begun: Path,
    pinch: Pinch,
) -> None:
    sweep = tmp_path / "small.yaml"
    studies = "studies:\n  - {study: monolingual, languages: [en]}\n  - {study: base, languages: [en, fi]}\nruntime:"
    text = SMALL.replace("learning_rate: 2.0e-3", "learning_rate: 1.0e+30")
    before, _, after = text.partition("studies:")
    sweep.write_text(before + studies + after.partition("runtime:")[2])
    session = Session(sweep, begun)
    assert session.wait() == 1, session.text()
    assert "Failed: fine_tune mono-en: " in session.text()
    there = Store(begun)
    failures = there.failures()
    assert {failure["kind"] for failure in failures.values()} == {"fine_tune"}
    said = pinch("status", sweep, "--store", begun).stderr
    for failure in failures.values():
        assert "learning_rate" in failure["error"]
        assert f"Failed: fine_tune {failure['name']}: {in_a_sentence(failure['error'])}" in said
    rows = json.loads(pinch("status", sweep, "--store", begun, "--json").stdout)
    assert rows["counts"]["fine_tune"] == {"failed": len(failures)}
    assert {row["state"] for row in rows["steps"]} == {"failed", "blocked"}, "all that could be done is"
    assert rows["counts"]["generation_set"]["done"] == 2, "the base's responses need no fine-tune"
    again = Session(sweep, begun)
    assert again.wait() == 1, again.text()
    assert "Engine ready" not in again.text(), "nothing is tried again unasked"
