"""Averages and differences in words, for whoever prints them: a page, a console, a run's summary.

This room knows numbers and names only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.scores.scoring import Group

GROUP_WORDS: Mapping[Group, str] = {
    "all": "all languages",
    "seen": "seen languages",
    "unseen": "unseen languages",
    "non_english": "languages other than English",
}


def level_words(percent: float | None, count: int | None = None) -> str:
    """A level of a pinch study: ``40 examples``, ``10% of the examples``, ``English only``, ``the uniform mixture``."""
    if count is not None:
        return f"{count} examples"
    ends = {0.0: "English only", 100.0: "the uniform mixture"}
    return ends.get(percent or 0.0, f"{percent:g}% of the examples")


def signed(difference: float | None, ci_low: float | None, ci_high: float | None) -> str:
    """``+2.1 [0.8, 3.4]``; ``not known yet`` without a difference."""
    if _missing(difference):
        return "not known yet"
    ends = "" if _missing(ci_low) or _missing(ci_high) else f" [{ci_low:.1f}, {ci_high:.1f}]"
    return f"{difference:+.1f}{ends}"


def difference_sentence(
    model: str, against: str, group: Group, difference: float | None, ci_low: float | None, ci_high: float | None
) -> str:
    """``40 examples against English only: +2.1 [0.8, 3.4] on unseen languages``.

    Args:
        model: what it is, in words; see :func:`level_words`.
        against: what it is compared with, in words.
        group: which languages it is an average over.
        difference: in points of the score; it and its interval may be missing (None or NaN).
    """
    said = f"{model} against {against}: {signed(difference, ci_low, ci_high)} on {GROUP_WORDS[group]}"
    return said[0].upper() + said[1:]


def intervals_note(seeds: int) -> str:
    """What the intervals of an average or a difference cover, and what they do not."""
    if seeds == 1:
        return (
            "95% intervals are over instructions, given this one train seed: they say nothing of how far another seed "
            "would have moved the scores."
        )
    return (
        f"95% intervals are over instructions and {seeds} train seeds; with so few seeds they are somewhat too narrow."
        if seeds < 10
        else f"95% intervals are over instructions and {seeds} train seeds."
    )


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)
