"""How far raters agree, by the paper's rule (table 3, appendix D).

Per instruction and pair of raters: 1 if they agree, 0.5 if exactly one of them says tie, 0 if they differ.
The judge is one rater among the others, called ``judge``; whether it agrees with people as they agree with
each other is for the reader to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.scores.tables import read_table
from trainables.errors import UserError

COLUMNS = ("instruction_id", "rater", "verdict")
VERDICTS = ("a", "b", "tie")


class Rating(NamedTuple):
    """What one rater said of one instruction."""

    instruction_id: str
    rater: str
    verdict: str
    """``a``, ``b`` or ``tie``."""
    language: str | None = None


def read_ratings(path: Path) -> list[Rating]:
    """The ratings of a CSV file ``instruction_id,rater,verdict[,language]``; further columns are ignored.

    One instruction id in two languages is two instructions.

    Raises:
        UserError: naming the file and the row, for what :func:`orchestrator.scores.tables.read_table` refuses, an
            empty cell, an unknown verdict, or one rater's second verdict on one instruction.
    """
    ratings: list[Rating] = []
    first_rows: dict[tuple[str, str, str | None], int] = {}
    for number, cells in read_table(path, COLUMNS, ("language",)):
        for column, cell in cells.items():
            if not cell:
                raise UserError(f"{path}: row {number} has no {column}; fill it in.")
        rating = Rating(cells["instruction_id"], cells["rater"], cells["verdict"], cells.get("language"))
        if rating.verdict not in VERDICTS:
            raise UserError(f"{path}: row {number} has verdict {rating.verdict!r}; write a, b or tie.")
        same = (rating.instruction_id, rating.rater, rating.language)
        if same in first_rows:
            raise UserError(
                f"{path}: row {number} is a second verdict of {rating.rater} on instruction "
                f"{rating.instruction_id!r}, after row {first_rows[same]}; keep one of them."
            )
        first_rows[same] = number
        ratings.append(rating)
    return ratings


def credit(x: str, y: str) -> float:
    """The agreement of two verdicts: 1, 0.5 or 0."""
    if x == y:
        return 1.0
    return 0.5 if "tie" in (x, y) else 0.0


def agreement(ratings: Iterable[Rating]) -> dict[str, Any]:
    """``{"overall": [...], "languages": {code: [...]}}``, each list with an entry for every pair of raters.

    An entry is ``{"raters": [x, y], "agreement": percent, "n": instructions both rated}``, raters in sorted
    order; pairs that share no instruction have none. Without languages in the ratings ``languages`` is empty.
    """
    by_language: dict[str | None, dict[str, dict[tuple[str | None, str], str]]] = {}
    overall: dict[str, dict[tuple[str | None, str], str]] = {}
    for rating in ratings:
        item = (rating.language, rating.instruction_id)
        overall.setdefault(rating.rater, {})[item] = rating.verdict
        by_language.setdefault(rating.language, {}).setdefault(rating.rater, {})[item] = rating.verdict
    return {
        "overall": _pairs(overall),
        "languages": {
            code: _pairs(raters)
            for code, raters in sorted(by_language.items(), key=lambda entry: entry[0] or "")
            if code is not None
        },
    }


def _pairs(raters: Mapping[str, Mapping[tuple[str | None, str], str]]) -> list[dict[str, Any]]:
    entries = []
    for x, y in combinations(sorted(raters), 2):
        shared = raters[x].keys() & raters[y].keys()
        if shared:
            total = sum(credit(raters[x][item], raters[y][item]) for item in shared)
            entries.append({"raters": [x, y], "agreement": 100.0 * total / len(shared), "n": len(shared)})
    return entries
