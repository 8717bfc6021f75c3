"""What Ray Tune is told to run next: nothing but a process, while there is no base; then fine-tunes, each once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ray.tune.search import Searcher

from orchestrator.identity import Step
from orchestrator.plan import Plan
from orchestrator.run.board import Board
from orchestrator.run.crew import Member
from orchestrator.run.placement import Role
from orchestrator.run.tuning import ClaimingSearcher
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL
from tests.faults import ROOT


class Lanes:
    """As many lanes as are asked for, all up and idle."""

    def take(self, role: Role) -> Member:
        return Member(name="lane", role=role, seat=(), actor=None, ready=None, since=0)

    def give_back(self, member: Member, sound: bool = True) -> None:
        pass

    def on_lost_node(self, member: Member) -> bool:
        return False


def test_what_waits_on_the_head_for_a_lane_loads_nothing_that_tunes() -> None:
    code = "import sys, orchestrator.run.trial; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_process_comes_up_while_the_base_is_made_and_then_fine_tunes_are_handed_out(tmp_path: Path) -> None:
    sweep = tmp_path / "small.yaml"
    sweep.write_text(SMALL)
    plan, store = Plan(load(str(sweep))), Store(tmp_path / "store")
    store.create()
    store.sessions.start("test")
    board = Board(plan.steps, store, lambda step, state: None)

    def publish(step: Step | None) -> None:
        assert step is not None
        store.publish(step, store.attempt(step), {})
        board.done(step)

    searcher = ClaimingSearcher(plan, board, Lanes(), lambda model: None, lambda report: None)
    assert searcher.suggest("first")["key"] == ""
    assert searcher.suggest("early") is None, "one process is started early"
    publish(board.claim("base"))
    searcher.on_trial_complete("first", {"done": True})
    assert searcher.suggest("still-early") is None, "the corpora are not there"
    while step := board.claim("corpus"):
        publish(step)
    fine_tunes = {step.key for step in plan.of_kind("fine_tune")}
    handed = [searcher.suggest(f"trial-{at}")["key"] for at in range(len(fine_tunes))]
    assert set(handed) == fine_tunes
    assert searcher.suggest("late") is None
    board.stopping.set()
    assert searcher.suggest("over") == Searcher.FINISHED
