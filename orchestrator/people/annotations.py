"""What people said: their answers are checked as a whole, and kept beside the store's results.

An answer is a preference (1, 2 or tie, by the place on the sheet) and a rating of each response (excellent, pass,
fail). Kept answers are CSV, a file for each rater and draw, and are never replaced unless that is asked for. Read with
the draw they become verdicts (table 3) and ratings of a language's own model (figure 2).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.people.draws import Draw, Item, stored
from orchestrator.plan import Plan
from orchestrator.report.ratings import PARTS
from orchestrator.report.tables import JUDGE
from orchestrator.report.views import language_name
from orchestrator.scores.agreement import Rating
from orchestrator.scores.score_table import ScoreTable
from orchestrator.scores.tables import read_table
from orchestrator.store import Store
from trainables.errors import UserError

COLUMNS = ("item", "rater", "preference", "rating_1", "rating_2")
PREFERENCES = ("1", "2", "tie")
_NAME = re.compile(r"""[^\s!-/:-@\[-`{-~][^!-,./:-@\[-`{-~]{0,39}""")
"""A rater's name becomes a file's: any script's letters and marks, no ASCII punctuation but hyphens inside."""


class Answer(NamedTuple):
    """One person's answer to one item, as :data:`COLUMNS`."""

    item: str
    rater: str
    preference: str
    rating_1: str
    rating_2: str


# Taken in


def take_in(plan: Plan, store: Store, files: Sequence[Path], replace: bool = False) -> list[str]:
    """Check files of answers, and put them into the store when all of them hold.

    Args:
        replace: a rater's new answers take the place of other ones.

    Returns:
        A sentence for each rater and language.

    Raises:
        UserError: naming the file, the row, what was found and the cure; nothing is written then.
    """
    store.refuse_another_schema()
    asked = {item.id: (drawn, folder) for drawn, folder in stored(plan, store) for item in drawn.items}
    sheets: dict[tuple[str, str], dict[str, Answer]] = {}
    came: dict[tuple[str, str], str] = {}
    for path in files:
        before = len(came)
        for number, cells in read_table(path, COLUMNS):
            if not any(cells[name] for name in COLUMNS[1:]):
                continue  # a spreadsheet's row that nobody answered
            answer = _answer(f"{path}: row {number}", cells, asked, store)
            same = (answer.rater, answer.item)
            if same in came:
                raise UserError(
                    f"{path}: row {number} is a second answer of {answer.rater} to {answer.item}, after {came[same]}; "
                    "keep one of them."
                )
            came[same] = f"{path}: row {number}"
            sheets.setdefault((answer.rater, asked[answer.item][1]), {})[answer.item] = answer
        if len(came) == before:
            raise UserError(f"{path}: has no answer under row 1; answer the sheet and give the file it makes.")
    for (rater, _), answers in sheets.items():
        _refuse_gaps(rater, answers, asked[next(iter(answers))][0], came)
    return _put(store, sheets, asked, replace)


def _answer(where: str, cells: Mapping[str, str], asked: Mapping[str, tuple[Draw, str]], store: Store) -> Answer:
    answer = Answer(**{name: cells[name] for name in COLUMNS})
    if answer.item not in asked:
        raise UserError(
            f"{where} has item {answer.item!r}, which no sheet of this sweep in {store.location} has; give the sweep "
            "and the store the sheet was exported from."
        )
    if not _NAME.fullmatch(answer.rater) or not answer.rater.isprintable():
        raise UserError(
            f"{where} has rater {answer.rater!r}; write a name of at most 40 letters, digits, spaces and hyphens."
        )
    if answer.rater == JUDGE:
        raise UserError(f"{where} has rater {JUDGE!r}, the name of the sweep's judge; write another name.")
    for column, choices in (("preference", PREFERENCES), ("rating_1", PARTS), ("rating_2", PARTS)):
        if cells[column] not in choices:
            found = f"{column} {cells[column]!r}" if cells[column] else f"no {column}"
            raise UserError(f"{where} ({answer.item}) has {found}; write one of {', '.join(choices)}.")
    return answer


def _refuse_gaps(rater: str, answers: Mapping[str, Answer], drawn: Draw, came: Mapping[tuple[str, str], str]) -> None:
    missing = [item.id for item in drawn.items if item.id not in answers]
    if missing:
        last = came[rater, list(answers)[-1]]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"{last} is the last of {len(answers)} answers of {rater} in {language_name(drawn.language)}, of "
            f"{len(drawn.items)}: there is no row for {missing[0]}{more}; answer all of a language, or leave it out."
        )


def _put(
    store: Store,
    sheets: Mapping[tuple[str, str], Mapping[str, Answer]],
    asked: Mapping[str, tuple[Draw, str]],
    replace: bool,
) -> list[str]:
    writes: dict[str, bytes] = {}
    said = []
    for (rater, folder), answers in sheets.items():
        name, drawn = f"{folder}/{rater}.csv", asked[next(iter(answers))][0]
        there, text = store.storage.read(name), _kept([answers[item.id] for item in drawn.items]).encode()
        told = f"{rater}, {language_name(drawn.language)}: {len(answers)} answers"
        if there == text:
            said.append(f"{told}, there already.")
            continue
        if there is not None and not replace:
            raise UserError(
                f"{store.location}/{name}: has other answers of {rater} to the same sheet; give --replace to put "
                "these in their place, or import them under another name."
            )
        said.append(f"{told}{', in the place of others' if there is not None else ''}.")
        writes[name] = text
    for name, text in writes.items():
        store.storage.write(name, text)
    return said


def _kept(answers: Sequence[Answer]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([COLUMNS, *answers])
    return out.getvalue()


# What it says


class Said(NamedTuple):
    """One person's answer with what it was about."""

    language: str
    item: Item
    own: str
    """The family of the own model's response set."""
    answer: Answer

    @property
    def verdict(self) -> str:
        """``a`` for the language's own model, ``b`` for the other, or ``tie``."""
        if self.answer.preference == "tie":
            return "tie"
        return "a" if (self.answer.preference == "1") == self.item.own_first else "b"

    @property
    def own_rating(self) -> str:
        return self.answer.rating_1 if self.item.own_first else self.answer.rating_2


def answers_in(plan: Plan, store: Store) -> list[Said]:
    """Everything people said about this plan's responses, by language, draw, rater and item."""
    found = []
    for drawn, folder in stored(plan, store):
        items = {item.id: item for item in drawn.items}
        for name, content in store.storage.read_all(folder).items():
            for _, cells in read_table(Path(name), COLUMNS, content=content) if name.endswith(".csv") else ():
                answer = Answer(**{name: cells[name] for name in COLUMNS})
                found.append(Said(drawn.language, items[answer.item], drawn.own, answer))
    return found


def all_verdicts(plan: Plan, store: Store) -> list[Rating]:
    """People's preferences with the judge's, for :func:`orchestrator.scores.agreement.agreement`.

    Raises:
        UserError: nobody's answers are in the store.
    """
    answers = answers_in(plan, store)
    if not answers:
        raise UserError(
            f"{store.location}: holds no annotations of {plan.loaded.source}; make sheets with: pinch annotate export "
            f"{plan.loaded.typed()} --out DIR, or name a table that ends in .csv."
        )
    return verdicts(answers, ScoreTable(plan, store))


def verdicts(answers: Sequence[Said], table: ScoreTable) -> list[Rating]:
    """People's preferences, and the judge's on the same items where they are made and valid, for :mod:`agreement`."""
    ratings = [Rating(one.item.id, one.answer.rater, one.verdict, one.language) for one in answers]
    cells = {
        (cell.comparison.needs[0].family, cell.comparison.needs[1].family): cell
        for cell in table.plan.cells
        if cell.comparison is not None
    }
    outcomes: dict[tuple[str, str], dict[str, float]] = {}
    for one in {one.item.id: one for one in answers}.values():
        sides = (one.own, one.item.other)
        if sides not in outcomes:
            judged = table.answers(cells[sides]) if sides in cells else None
            outcomes[sides] = {} if judged is None else dict(zip(judged.ids, judged.outcomes.tolist(), strict=True))
        verdict = {0.0: "a", 0.5: "tie", 1.0: "b"}.get(outcomes[sides].get(one.item.instruction_id, -1.0))
        if verdict is not None:
            ratings.append(Rating(one.item.id, JUDGE, verdict, one.language))
    return ratings


def own_ratings(answers: Sequence[Said]) -> list[dict[str, Any]]:
    """How people rated each language's own model, for :func:`orchestrator.report.ratings.draw_ratings`."""
    counts: dict[str, Counter[str]] = {}
    for one in answers:
        counts.setdefault(one.language, Counter())[one.own_rating] += 1
    return [
        {"language": code, **{part: 100 * found[part] / found.total() for part in PARTS}, "n": found.total()}
        for code, found in counts.items()
    ]
