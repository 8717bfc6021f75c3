"""The canary: one comparison, with all it needs, before the rest of the grid is begun.

What is wrong with a cluster or a sweep often shows late in the chain: a judge that refuses its key, an engine that does
not load what the lanes made. On many machines that is found after many fine-tunes have been paid for. So the smallest
chain that ends in a comparison goes first, alone; only the order of the work changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.identity import Step
from orchestrator.run.board import Board, State


def chain(board: Board) -> list[Step]:
    """The missing steps of the comparison that lacks the fewest, fine-tunes counted first; inputs come first.

    Empty where a comparison of the plan is there already, so the whole chain has been gone through, and where no
    fine-tune would be held back.
    """
    comparisons = [step for step in board.steps.values() if step.kind == "comparison"]
    if any(board.state(step) is State.DONE for step in comparisons):
        return []
    able = [step for step in comparisons if board.state(step) not in (State.FAILED, State.BLOCKED)]
    chains = (_missing(step, board) for step in able)  # there may be a million
    first = min(chains, key=lambda steps: (_fine_tunes(steps), len(steps)), default=[])
    return first if _fine_tunes(first) < _missing_fine_tunes(board) else []


def sentence(steps: Sequence[Step], board: Board) -> str:
    """What goes first, for people."""
    last = steps[-1]
    others = _missing_fine_tunes(board) - _fine_tunes(steps)
    return (
        f"Canary: comparison {last.name} goes through the whole chain before the other {others} fine-tunes are begun "
        "(runtime.canary: false lets everything begin at once)."
    )


def _fine_tunes(steps: Sequence[Step]) -> int:
    return sum(step.kind == "fine_tune" for step in steps)


def _missing_fine_tunes(board: Board) -> int:
    return _fine_tunes([step for step in board.steps.values() if board.state(step) is not State.DONE])


def _missing(step: Step, board: Board) -> list[Step]:
    found: dict[str, Step] = {}

    def visit(one: Step) -> None:
        if one.key in found or board.state(one) is State.DONE:
            return
        for needed in one.needs:
            visit(needed)
        found[one.key] = one

    visit(step)
    return list(found.values())
