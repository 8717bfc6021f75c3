"""What a reader wants beside a score, on tables small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.scores.judge_quality import Responses, pearson, quality
from orchestrator.scores.scoring import judged

WIN, LOSS, TIE, INVALID = (2, 1), (1, 2), (1, 1), (None, 1)


def _judged(*outcomes: tuple[int | None, int | None]):
    rows = [
        (f"x-{at}", order, choice)
        for at, both in enumerate(outcomes)
        for order, choice in zip(("ab", "ba"), both, strict=True)
    ]
    return judged(rows)


def _responses(lengths: list[int], told: list[float]) -> Responses:
    names = tuple(f"x-{at}" for at in range(len(lengths)))
    return Responses(names, np.array(lengths, dtype=float), np.array(told))


def test_orders_agree_where_there_is_no_tie_and_invalid_ones_are_counted_apart() -> None:
    found = quality(_judged(WIN, WIN, LOSS, TIE, INVALID))
    assert found.order_agreement == 0.75
    assert found.invalid_rate == 0.2
    assert found.length_correlation is None
    assert found.in_language_score is None


def test_a_judge_that_likes_length_is_told_by_the_correlation() -> None:
    answers = _judged(WIN, TIE, LOSS)
    baseline = _responses([10, 10, 10], [1, 1, 1])
    longer_wins = quality(answers, baseline, _responses([30, 20, 10], [1, 1, 1]))
    shorter_wins = quality(answers, baseline, _responses([10, 20, 30], [1, 1, 1]))
    same = quality(answers, baseline, _responses([12, 12, 12], [1, 1, 1]))
    assert longer_wins.length_correlation == pytest.approx(1)
    assert shorter_wins.length_correlation == pytest.approx(-1)
    assert same.length_correlation is None


def test_the_score_in_the_right_language_leaves_out_the_others_and_what_is_too_short_to_tell() -> None:
    answers = _judged(WIN, WIN, LOSS, TIE, INVALID)
    baseline = _responses([10] * 5, [0, 0, 0, 0, 0])
    model = _responses([10] * 5, [1, 0, 1, np.nan, 1])
    found = quality(answers, baseline, model)
    assert found.in_language_score == 50.0  # x-0 won, x-2 lost
    assert found.in_language_n == 2


def test_a_correlation_needs_two_values_that_differ() -> None:
    assert pearson(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None
    assert pearson(np.array([1.0]), np.array([1.0])) is None
    assert pearson(np.array([1.0, 0.0, np.nan]), np.array([2.0, 1.0, 9.0])) == pytest.approx(1)
