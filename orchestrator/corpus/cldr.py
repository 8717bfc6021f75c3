"""The corpus that needs no data: parallel instructions and answers in seventeen languages, from Unicode CLDR.

Real multilingual data that everyone already has: CLDR's names of places, currencies and languages, its dates,
lists, numbers and durations, put into instructions that were written by hand in each language. Every answer
is known, so the reference judge can work; every example exists in every language, so mixtures are what the
paper's are.

``cldr_items`` holds what is asked, ``cldr_words`` how a language says it, ``templates/`` the wordings. This
room joins them into the corpus the rest sees, and makes the statements that the tiny base is pre-trained on.
It must never know of mixtures or models.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from babel.core import get_cldr_version

from orchestrator.corpus.base import Example, write_corpus
from orchestrator.corpus.cldr_items import (
    EVAL_SIZE,
    TRAIN_SIZE,
    Item,
    Subject,
    amount,
    codes,
    date,
    duration,
    names,
    number,
    percent,
    pools,
)
from orchestrator.corpus.cldr_words import Words, fill, words
from orchestrator.languages import language as known_language
from trainables.errors import UserError

RESULT_VERSION = 2
"""Raised whenever a text changes: by another template, another pool or another CLDR."""

CLDR = get_cldr_version()
"""The CLDR release that Babel carries, by its number ("47")."""


class CldrCorpus:
    """The first ``train_count`` and ``eval_count`` examples of the fixed pools.

    Raises:
        UserError: counts beyond the pools or below zero, or an unknown language.
    """

    source = "cldr"

    def __init__(self, languages: Sequence[str], train_count: int, dev_count: int, eval_count: int) -> None:
        for key, count, size in (
            ("train_count", train_count, TRAIN_SIZE),
            ("eval_count", eval_count, EVAL_SIZE),
        ):
            if count > size:
                raise UserError(
                    f"corpus.{key}: {count} is more than the {size:,} examples the cldr corpus has; "
                    f"use {size} or fewer."
                )
            if count < 0:
                raise UserError(f"corpus.{key}: {count} is less than zero; use a number from 0 to {size}.")
        if not 0 <= dev_count <= train_count:
            raise UserError(
                f"corpus.dev_count: {dev_count} examples cannot be kept out of train_count {train_count}; "
                f"use a number from 0 to {train_count}."
            )
        self.languages = tuple(known_language(code).code for code in languages)
        self._train_count = train_count
        self._eval_count = eval_count

    def train_ids(self) -> list[str]:
        """``cldr-0000`` and on, ``train_count`` of them, dev included."""
        return [item.id for item in pools()[0][: self._train_count]]

    def eval_ids(self) -> list[str]:
        """``cldr-eval-0000`` and on, ``eval_count`` of them."""
        return [item.id for item in pools()[1][: self._eval_count]]

    def origin(self, id: str) -> str:  # noqa: A002 (the example's word)
        """CLDR, every one."""
        return self.source

    def payload(self, language: str) -> dict[str, Any]:
        """What determines the stored examples of one language."""
        return {
            "source": self.source,
            "language": known_language(language).code,
            "cldr": CLDR,
            "version": RESULT_VERSION,
        }

    def prepare(self, languages: Collection[str]) -> None:
        """Nothing is needed that is not here."""

    def build(self, language: str, out: Path) -> dict[str, Any]:
        """Write the whole pools of one language into ``out``; returns ``{"train": 4640, "eval": 617}``."""
        train, evaluation = examples(language)
        return write_corpus(out, train, evaluation)


def examples(language: str) -> tuple[list[Example], list[Example]]:
    """All examples of one language, train and eval, in the fixed order."""
    tongue = words(language)

    def rendered(item: Item) -> Example:
        instruction, response = tongue.render(item)
        return Example(item.id, instruction, response)

    train, evaluation = pools()
    return [rendered(item) for item in train], [rendered(item) for item in evaluation]


def statements(shares: dict[str, float], count: int, seed: int) -> list[tuple[str, str]]:
    """Declarative sentences over the same facts, as (language, text), for pre-training the tiny base.

    They share no wording with the instructions, and none of them asks anything.

    Args:
        shares: how much of each language, in any unit (only the proportions count).
        count: how many statements in all. Each language gets its part rounded down; what is left over goes to
            the languages with the largest fractions, then in code order.
        seed: of the draw and of the order, in which the languages are mixed.

    Raises:
        UserError: an unknown language, a negative share, or nothing to share out.
    """
    total = sum(shares.values())
    if min(shares.values(), default=0) < 0 or total <= 0:
        raise UserError("the shares of the languages must be zero or more, and not all of them zero.")
    exact = {code: count * shares[code] / total for code in sorted(shares)}
    counts = {code: int(part) for code, part in exact.items()}
    by_fraction = sorted(exact, key=lambda code: counts[code] - exact[code])
    for code in by_fraction[: count - sum(counts.values())]:
        counts[code] += 1
    rows: list[tuple[str, str]] = []
    for code, part in counts.items():
        rng = random.Random(f"pinch cldr statements {seed} {code}")
        tongue = words(code)
        rows += [(code, _statement(tongue, rng)) for _ in range(part)]
    random.Random(f"pinch cldr statements {seed}").shuffle(rows)
    return rows


_STATEMENT_WEIGHTS = {
    "country": 16,
    "currency": 9,
    "language": 12,
    "months": 6,
    "days": 5,
    "date": 18,
    "list": 12,
    "number": 6,
    "percent": 5,
    "duration": 6,
    "amount": 5,
    "date_both": 14,
    "amount_both": 7,
    "percent_both": 6,
    "duration_both": 7,
    "list_both": 10,
    "number_both": 8,
    "repeat": 12,
    "month_next": 4,
    "day_next": 3,
}
"""How often each sort of statement comes.

Knowledge often, for it is learnt nowhere else. The sorts from ``date_both`` on show one thing in two forms, or
twice, in one sentence: from them a model learns to convert and to copy, which the instructions then ask for.
"""


def _statement(tongue: Words, rng: random.Random) -> str:
    kind = rng.choices(list(_STATEMENT_WEIGHTS), weights=list(_STATEMENT_WEIGHTS.values()))[0]
    return fill(rng.choice(tongue.statements[kind]), _statement_slots(tongue, kind, rng))


def _statement_slots(tongue: Words, kind: str, rng: random.Random) -> dict[str, str]:
    if kind in ("months", "days"):
        start, size = rng.randrange(84), rng.choice((3, 4))
        in_order = [tongue.name(kind.removesuffix("s"), start + step) for step in range(size)]
        return {kind: tongue.comma.join(in_order)}
    if kind == "date":
        iso = str(date(rng)[0])
        return {"date": tongue.date(iso, weekday=rng.random() < 0.5)}
    kind = kind.removesuffix("_both")
    return tongue.slots(kind, _SUBJECTS[kind](rng))


def _code(pool: str) -> Callable[[random.Random], Subject]:
    return lambda rng: (rng.choice(codes(pool)),)


def _name(rng: random.Random) -> Subject:
    sort = rng.choice(("territory", "currency", "language"))
    pool = {"territory": "territories", "currency": "currencies", "language": "languages"}[sort]
    return (sort, rng.choice(codes(pool)))


_SUBJECTS: dict[str, Callable[[random.Random], Subject]] = {
    "country": _code("territories"),
    "currency": _code("currencies"),
    "language": _code("languages"),
    "date": date,
    "list": names,
    "number": number,
    "percent": percent,
    "duration": duration,
    "amount": amount,
    "repeat": _name,
    "month_next": lambda rng: (rng.randrange(12),),
    "day_next": lambda rng: (rng.randrange(7),),
}
"""What a statement is about, drawn anew for each."""
