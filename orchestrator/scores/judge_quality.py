"""How far a score can be trusted: what a reader wants beside it before believing a judge.

A score is only as good as the judge that made it. A judge that follows positions makes ties of wins, one that likes
long answers rewards length, one that cannot be parsed leaves instructions out, and a model that answers Finnish
prompts in English may win all the same. None of that shows in the score, so each is a number of its own here. They
describe; nothing is corrected by them.

This room must never know a store or a plan: it is given the answers and the responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.scores.scoring import Judged


@dataclass(frozen=True)
class Quality:
    """About one comparison; None where it cannot be said."""

    order_agreement: float | None = None
    """Share of valid instructions on which both orders prefer the same response, 0 to 1: wins and losses, no ties."""
    invalid_rate: float | None = None
    """Share of instructions with an answer that could not be parsed in either order, 0 to 1."""
    length_correlation: float | None = None
    """Pearson correlation, over valid instructions, of the outcome (1, 0.5, 0) with the model's response length less
    the baseline's, in characters (Unicode code points). None where outcome or difference is constant."""
    in_language_score: float | None = None
    """The score, 0 to 100, over the valid instructions that the model answered in the prompt's language; which
    language the baseline answered in is not asked, for it is the score's yardstick either way. Responses of too few
    letters to tell are left out, so this is not comparable with a score over all of them where texts are short."""
    in_language_n: int | None = None
    """Instructions that score rests on."""

    def as_dict(self) -> dict[str, float | int | None]:
        """The fields, in the order of :data:`QUALITY_COLUMNS`."""
        return asdict(self)


QUALITY_COLUMNS = tuple(field.name for field in fields(Quality))
"""What ``pinch scores --quality`` adds behind the score table's own columns."""


@dataclass(frozen=True, eq=False)
class Responses:
    """What is asked of one response set, as arrays over its instructions."""

    ids: tuple[str, ...]
    characters: NDArray[np.float64]
    in_language: NDArray[np.float64]
    """1 in its prompt's language, 0 in another, NaN where the text is too short to tell."""


def read_responses(path: Path) -> Responses:
    """The lengths and languages of a response set's ``responses.parquet``; the texts are not kept."""
    table = pq.read_table(path, columns=["instruction_id", "text", "in_language"])
    lengths = pc.call_function("utf8_length", [table["text"]])
    return Responses(
        ids=tuple(table["instruction_id"].to_pylist()),
        characters=lengths.to_numpy().astype(float),
        in_language=table["in_language"].to_numpy().astype(float),  # a null is None there, and becomes NaN
    )


def quality(answers: Judged, baseline: Responses | None = None, model: Responses | None = None) -> Quality:
    """The measures of one comparison; without the responses, those that need none."""
    valid, results = answers.valid, answers.outcomes
    n, total = int(valid.sum()), len(answers.ids)
    decided = int((results[valid] != 0.5).sum())
    correlation = score = count = None
    if model is not None:
        told = _in_order(answers.ids, model.ids, model.in_language)
        chosen = results[valid & (told == 1)]
        score, count = 100.0 * float(chosen.mean()) if len(chosen) else None, len(chosen)
        if baseline is not None:
            longer = _in_order(answers.ids, model.ids, model.characters)
            longer -= _in_order(answers.ids, baseline.ids, baseline.characters)
            correlation = pearson(results[valid], longer[valid])
    return Quality(
        order_agreement=decided / n if n else None,
        invalid_rate=(total - n) / total if total else None,
        length_correlation=correlation,
        in_language_score=score,
        in_language_n=count,
    )


def pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """The correlation of two arrays, over the places where both have a value; None where either is constant."""
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = x[both], y[both]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1, 1))


def _in_order(wanted: Sequence[str], ids: Sequence[str], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values by instruction id, in the order wanted; NaN for an instruction that is not there."""
    by_id = dict(zip(ids, values, strict=True))
    return np.array([by_id.get(name, np.nan) for name in wanted])
