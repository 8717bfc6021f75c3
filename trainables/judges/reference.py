"""The reference judge: the answer closer to the reference answer, by sentence chrF, is the better one.

No model and no opinion: it is cheap, the same everywhere, and works in every script because chrF compares
characters. Equal scores get the first position in both orders, which is a tie by the paper's rule (section 2).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from trainables.errors import UserError
from trainables.judges.calls import Call, Verdict

METRIC = {"name": "chrF", "char_order": 6, "word_order": 0, "beta": 2}
"""sacrebleu's chrF2: character n-grams up to 6, recall counted twice."""


class ChrfJudge:
    """See :class:`trainables.judges.calls.Judge`."""

    def __init__(self) -> None:
        from sacrebleu.metrics import CHRF

        self._chrf = CHRF(char_order=6, word_order=0, beta=2)

    def judge(
        self,
        calls: Sequence[Call],
        on_progress: Callable[[int, int], None] | None = None,
        keep: Callable[[Verdict], None] | None = None,
    ) -> list[Verdict]:
        """One verdict per call; ``raw`` holds both scores.

        Raises:
            UserError: a call without a reference answer.
        """
        known: dict[tuple[str, str], float] = {}
        verdicts = []
        for done, call in enumerate(calls, 1):
            started = time.perf_counter()
            reference = call.reference
            if reference is None:
                raise UserError(
                    f"judge: reference needs a reference answer, and instruction {call.instruction_id!r} has none; "
                    "give the eval file responses, or name a judge of kind local or remote"
                )
            for answer in (call.first, call.second):
                if (answer, reference) not in known:
                    known[answer, reference] = float(self._chrf.sentence_score(answer, [reference]).score)
            first, second = known[call.first, reference], known[call.second, reference]
            verdicts.append(
                Verdict(
                    call.instruction_id,
                    call.order,
                    2 if second > first else 1,
                    f"chrF {first:.4f} {second:.4f}",
                    time.perf_counter() - started,
                )
            )
            if keep:
                keep(verdicts[-1])
            if on_progress:
                on_progress(done, len(calls))
        return verdicts

    def close(self) -> None:
        """Nothing is held."""
