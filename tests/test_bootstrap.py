"""Intervals: what 95% means, tried by doing the sweep again and again."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.scores.bootstrap import Resampled, instruction_draws, interval, mean_interval, seed_draws

ROUNDS = 400


def _judged(generator: np.random.Generator, ease: np.ndarray) -> np.ndarray:
    """Outcomes in percent (0, 50, 100) of instructions that a model finds so easy."""
    return 50.0 * (generator.random(ease.shape) < ease) + 50.0 * (generator.random(ease.shape) < ease)


@pytest.mark.parametrize("ease", [0.2, 0.5])
def test_the_interval_of_a_score_covers_the_truth_95_times_in_100(ease: float) -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(ROUNDS):
        outcomes = _judged(generator, np.full(100, ease))
        wins, ties, losses = (int((outcomes == value).sum()) for value in (100, 50, 0))
        low, high = interval(wins, ties, losses, draws=1000)
        assert low is not None and high is not None
        covered += low <= 100 * ease <= high
    assert covered / ROUNDS == pytest.approx(0.95, abs=0.035)


def test_the_interval_of_an_average_covers_the_truth_where_translations_are_of_one_difficulty() -> None:
    """Twelve translations of an instruction are as easy as each other: they are one instruction, not twelve."""
    generator = np.random.default_rng(2)
    clustered = apart = 0
    for _ in range(ROUNDS):
        ease = generator.choice([0.1, 0.9], size=120)
        outcomes = _judged(generator, np.tile(ease, (12, 1)))
        found = Resampled(outcomes[None], draws=600).average(range(12))
        assert found.ci_low is not None and found.ci_high is not None
        clustered += found.ci_low <= 50 <= found.ci_high
        wide = mean_interval(outcomes.ravel(), draws=600)
        assert wide.ci_low is not None and wide.ci_high is not None
        apart += wide.ci_low <= 50 <= wide.ci_high
    assert clustered / ROUNDS == pytest.approx(0.95, abs=0.035)
    assert apart / ROUNDS < 0.7


def test_the_interval_of_a_paired_difference_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(ROUNDS):
        ease = generator.uniform(0.1, 0.7, size=150)
        better, worse = _judged(generator, ease + 0.1), _judged(generator, ease)
        found = mean_interval(better - worse, draws=1000)
        assert found.ci_low is not None and found.ci_high is not None
        covered += found.ci_low <= 10 <= found.ci_high
    assert covered / ROUNDS == pytest.approx(0.95, abs=0.035)


def test_seeds_are_a_second_source_of_variance() -> None:
    generator = np.random.default_rng(4)
    shifts = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    outcomes = np.stack([_judged(generator, np.full((1, 200), 0.5 + shift)) for shift in shifts])
    both = Resampled(outcomes).average([0])
    one = Resampled(outcomes[2:3]).average([0])
    assert both.ci_low is not None and both.ci_high is not None
    assert one.ci_low is not None and one.ci_high is not None
    # Five seeds that lie 14 points around their mean: at least 1.96 * 14 / sqrt(5) to either side.
    assert both.ci_high - both.ci_low > 2 * 10
    assert one.ci_high - one.ci_low < 2 * 6


def test_draws_are_the_same_every_time_and_hold_as_many_as_there_are() -> None:
    draws = instruction_draws(31, 200)
    assert draws.shape == (200, 31)
    assert (draws.sum(axis=1) == 31).all()
    assert np.array_equal(draws, instruction_draws(31, 200))
    assert not np.array_equal(draws[:, :3], seed_draws(3, 200))


def test_a_cell_without_a_valid_instruction_has_no_average() -> None:
    values = np.full((1, 2, 10), 50.0)
    values[0, 1] = np.nan
    resampled = Resampled(values)
    assert resampled.average([0]).value == 50.0
    assert resampled.average([0, 1]) == (None, None, None, 10)


def test_an_instruction_that_is_invalid_in_one_language_still_counts_in_the_others() -> None:
    values = np.array([[[0.0, 100.0, 100.0, np.nan], [0.0, 0.0, 100.0, 100.0]]])
    found = Resampled(values).average([0, 1])
    assert found.value == pytest.approx((200 / 3 + 50) / 2)
    assert found.n == 4
