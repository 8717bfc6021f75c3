"""What a judge is asked and what it answers, and the rule that every comparison is asked in both orders.

A judge sees two answers by position, never by model. ``ab`` shows the baseline first, ``ba`` the other model first;
turning verdicts into wins, ties and losses is not a judge's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Order = Literal["ab", "ba"]


@dataclass(frozen=True)
class Call:
    """One question: which of ``first`` and ``second`` answers ``instruction`` better?"""

    instruction_id: str
    order: Order
    instruction: str
    first: str
    second: str
    reference: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer to a call: position 1 or 2, or None where none could be read.

    ``raw`` is what the judge said, with a second line where texts were cut for it. ``seconds`` is the call's share
    of the time its batch took.
    """

    instruction_id: str
    order: Order
    choice: Literal[1, 2] | None
    raw: str
    seconds: float


class Judge(Protocol):
    """An open judge; it may hold a model, so close it."""

    def judge(self, calls: Sequence[Call], on_progress: Callable[[int, int], None] | None = None) -> list[Verdict]:
        """One verdict per call, in the order of the calls."""

    def close(self) -> None:
        """Let go of what it holds."""


def calls_for(instruction_id: str, instruction: str, a: str, b: str, reference: str | None = None) -> tuple[Call, Call]:
    """Both orders of one comparison: ``a``, the baseline's answer, first and then second."""
    return (
        Call(instruction_id, "ab", instruction, a, b, reference),
        Call(instruction_id, "ba", instruction, b, a, reference),
    )
