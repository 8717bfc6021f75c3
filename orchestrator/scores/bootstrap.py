"""Intervals by resampling: 95%, percentile, seeded, over what the numbers would vary by if the sweep were done again.

The unit is the instruction. A score's interval draws n instructions with replacement from the n there are.

The same instruction is asked in every language, and one that is hard in Finnish tends to be hard in Estonian. So an
average over languages draws *instruction ids*, once, and applies the draw to every language (a cluster bootstrap);
drawing each language apart would treat twelve translations of one instruction as twelve instructions and make intervals
far too narrow. A paired difference between two mixtures is resampled the same way, instruction by instruction.

With several train seeds a draw also takes as many seeds, with replacement, as there are, and the instructions it drew
are the same for each of them: seeds and instructions are crossed (Owen, The pigeonhole bootstrap, 2007). What this can
and cannot say:

- With one seed the interval is conditional on it: it says what other instructions would have changed, and nothing of
  what another run of the training would have.
- With few seeds it is too narrow, as every bootstrap over few units is: the variance between S seeds comes out
  (S - 1)/S of what it is, half of it for two.
- A percentile interval covers a little less than 95% for a few dozen instructions, and clearly less for scores within
  a few points of 0 or 100 on that few, where there may be no win to draw at all.

Instructions whose verdict could not be parsed are left out per cell: they can be drawn, and add nothing. A draw in
which some cell has no valid instruction says nothing about an average over it and is left out.

Every draw comes from a fixed seed, so the same verdicts have the same intervals, and two statistics over the same
instructions share their draws. This room must never know a store, a study, or what was judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 5_000
CONFIDENCE = 95.0

_TAILS = [(100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2]


class Estimate(NamedTuple):
    """A number with its interval; None where there is nothing to say."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    """Distinct instructions it rests on."""


@lru_cache(maxsize=4096)
def interval(
    wins: int, ties: int, losses: int, *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """The interval of one score over its instructions, in percent; (None, None) over none.

    Drawing n instructions with replacement is drawing their three outcomes from a multinomial with the
    observed shares, which costs the same for any n.
    """
    n = wins + ties + losses
    if not n:
        return None, None
    generator = np.random.default_rng(seed)
    resampled = generator.multinomial(n, [wins / n, ties / n, losses / n], size=draws)
    low, high = np.percentile(50.0 * (2 * resampled[:, 0] + resampled[:, 1]) / n, _TAILS)
    return float(low), float(high)


def mean_interval(values: NDArray[np.floating], *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean of one value per instruction, NaN left out; ``values`` take few distinct values, as outcomes do."""
    valid = values[~np.isnan(values)]
    n = len(valid)
    if not n:
        return Estimate(None, None, None, 0)
    distinct, counts = np.unique(valid, return_counts=True)
    means = np.random.default_rng(seed).multinomial(n, counts / n, size=draws) @ distinct / n
    low, high = np.percentile(means, _TAILS)
    return Estimate(float(counts @ distinct / n), float(low), float(high), n)


class Resampled:
    """Cells resampled together, so that any average over them can be had with its interval.

    Args:
        values: (seeds, languages, instructions), each instruction's value in each cell, NaN where it has none. A
            position on the last axis is one instruction everywhere: that is what is drawn. Whole numbers, such as
            outcomes in percent, are added up exactly.
    """

    def __init__(self, values: NDArray[np.floating], *, draws: int = DRAWS, seed: int = 0) -> None:
        seeds, languages, instructions = values.shape
        self._valid = ~np.isnan(values)
        flat = np.where(self._valid, values, 0.0).reshape(-1, instructions)
        counted = self._valid.reshape(-1, instructions)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.means: NDArray[np.float64] = (flat.sum(axis=1) / counted.sum(axis=1)).reshape(seeds, languages)
            drawn = instruction_draws(instructions, draws, seed)
            sums, counts = (drawn @ cells.T.astype(np.float32) for cells in (flat, counted))  # whole numbers: exact
            self._drawn = np.divide(sums, counts, dtype=np.float64).reshape(-1, seeds, languages)
        self._seeds = seed_draws(seeds, draws, seed)

    def average(self, languages: Sequence[int]) -> Estimate:
        """The plain mean over some of the languages, and over the seeds; None where a cell has no valid instruction."""
        chosen = list(languages)
        value = self.means[:, chosen].mean()
        n = int(self._valid[:, chosen].any(axis=(0, 1)).sum())
        if np.isnan(value):
            return Estimate(None, None, None, n)
        per_seed = self._drawn[:, :, chosen].mean(axis=2)
        resampled = np.where(self._seeds > 0, self._seeds * per_seed, 0.0).sum(axis=1) / self._seeds.shape[1]
        said = resampled[~np.isnan(resampled)]
        if not len(said):
            return Estimate(float(value), None, None, n)
        low, high = np.percentile(said, _TAILS)
        return Estimate(float(value), float(low), float(high), n)


@lru_cache(maxsize=8)
def instruction_draws(instructions: int, draws: int = DRAWS, seed: int = 0) -> NDArray[np.float32]:
    """(draws, instructions): how often each draw holds each instruction; rows add up to ``instructions``."""
    return _multiplicities(np.random.default_rng([seed, 0]), instructions, draws)


@lru_cache(maxsize=8)
def seed_draws(seeds: int, draws: int = DRAWS, seed: int = 0) -> NDArray[np.float32]:
    """(draws, seeds): the same for train seeds, drawn independently of the instructions."""
    return _multiplicities(np.random.default_rng([seed, 1]), seeds, draws)


def _multiplicities(generator: np.random.Generator, units: int, draws: int) -> NDArray[np.float32]:
    picked = generator.integers(0, units, size=(draws, units))
    picked += np.arange(draws)[:, None] * units
    counts = np.bincount(picked.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float32)
    counts.setflags(write=False)  # it is shared
    return counts
