"""What a judge is asked and what it answers, and the rule that every comparison is asked in both orders.

A judge sees two answers by position, never by model. ``ab`` shows the baseline first, ``ba`` the other model first;
turning verdicts into wins, ties and losses is not a judge's business.

Written answers are read by one rule, whoever wrote them (:func:`parsed`). What cannot be read is asked again, with a
reminder, and stored without a choice when that did not help either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Order = Literal["ab", "ba"]
Choice = Literal[1, 2]
_NUMBER = re.compile(r"\d+")


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
class Usage:
    """What a paid call took, in tokens, all its tries together. ``model`` is what the endpoint says answered."""

    prompt_tokens: int
    completion_tokens: int
    model: str


@dataclass(frozen=True)
class Verdict:
    """The answer to a call: position 1 or 2, or None where none could be read.

    ``raw`` is what the judge said last, with a second line where texts were cut for it. ``seconds`` is what the call
    took, waits and tries included; where calls are answered together, its share. ``usage`` is None where nothing is
    paid per token.
    """

    instruction_id: str
    order: Order
    choice: Choice | None
    raw: str
    seconds: float
    usage: Usage | None = None


class Judge(Protocol):
    """An open judge; it may hold a model, so close it."""

    def judge(
        self,
        calls: Sequence[Call],
        on_progress: Callable[[int, int], None] | None = None,
        keep: Callable[[Verdict], None] | None = None,
    ) -> list[Verdict]:
        """One verdict per call, in the order of the calls.

        Args:
            keep: given every verdict once, the moment it is there. What it raises ends the judging; calls that are
                under way by then are still answered and kept.
        """

    def close(self) -> None:
        """Let go of what it holds."""


def calls_for(instruction_id: str, instruction: str, a: str, b: str, reference: str | None = None) -> tuple[Call, Call]:
    """Both orders of one comparison: ``a``, the baseline's answer, first and then second."""
    return (
        Call(instruction_id, "ab", instruction, a, b, reference),
        Call(instruction_id, "ba", instruction, b, a, reference),
    )


def parsed(text: str) -> Choice | None:
    """The first number in the text if it is 1 or 2, else None: ``Answer1`` says 1, ``12`` and ``0.1`` say nothing."""
    number = _NUMBER.search(text)
    if number is None or number[0] not in ("1", "2"):
        return None
    return 1 if number[0] == "1" else 2
