"""Which facts the cldr corpus asks about: the pool of its examples, before any language has words for them.

An item is a kind of question, a wording (the n-th of that kind in every language) and a subject in neutral
terms: an ISO code, a date, a number, a tuple of codes. Parallelism follows: every language renders the same
items. The pools are fixed (seeded per kind, mixed once), so item i never depends on how many are asked
for, and any first n hold each kind in its share.

Most kinds follow a rule that a small model can learn (dates, lists, numbers, what comes next). The three that
are knowledge (country, currency, language by code) hold out facts: a code asked about in eval is not in
train, where a model could have learnt it by heart; the tiny base meets all of them in its statements.

This room must never know a language.
"""

from __future__ import annotations

import datetime
import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

COUNTS: dict[str, tuple[int, int]] = {
    "country": (265, 35),
    "currency": (177, 23),
    "language": (265, 35),
    "month_next": (20, 4),
    "month_previous": (20, 4),
    "day_next": (11, 3),
    "day_previous": (11, 3),
    "day_later": (98, 14),
    "month_later": (166, 24),
    "date": (610, 80),
    "month_of_date": (397, 52),
    "list": (600, 78),
    "first": (200, 26),
    "last": (200, 26),
    "repeat": (380, 50),
    "number": (380, 50),
    "percent": (300, 39),
    "duration": (320, 42),
    "amount": (220, 29),
}
"""How many examples of each kind: (train, eval). Kinds with few facts (months, days) are nearly used up."""

VARIANTS: dict[str, int] = {
    "country": 3,
    "currency": 3,
    "language": 3,
    "month_next": 2,
    "month_previous": 2,
    "day_next": 2,
    "day_previous": 2,
    "day_later": 2,
    "month_later": 2,
    "date": 3,
    "month_of_date": 2,
    "list": 3,
    "first": 2,
    "last": 2,
    "repeat": 3,
    "number": 3,
    "percent": 2,
    "duration": 3,
    "amount": 3,
}
"""How many wordings each kind has in every language."""

TRAIN_SIZE = sum(train for train, _ in COUNTS.values())
EVAL_SIZE = sum(evaluation for _, evaluation in COUNTS.values())

Subject = tuple[str | int, ...]
"""What an item is about, in neutral terms; the shape depends on the kind (see cldr_words.slots)."""


@dataclass(frozen=True)
class Item:
    """One example without words."""

    id: str
    kind: str
    variant: int
    """Which wording of its kind, from 0; the same in every language."""
    subject: Subject


@functools.cache
def codes(kind: str) -> tuple[str, ...]:
    """The codes of one kind in cldr_codes.yaml: territories, currencies, languages, and the shorter lists."""
    text = Path(__file__).with_name("cldr_codes.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text)[kind].split())


@functools.cache
def pools() -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """All items, in fixed order: 4,640 of train (``cldr-0000`` …) and 617 of eval (``cldr-eval-0000`` …)."""
    train: list[tuple[float, tuple[str, int, Subject]]] = []
    evaluation: list[tuple[float, tuple[str, int, Subject]]] = []
    for kind, (n_train, n_eval) in COUNTS.items():
        # A generator per kind: another count or a new kind moves no item of the other kinds.
        rng = random.Random(f"pinch cldr {kind}")
        for pool, drawn in zip((train, evaluation), _DRAW[kind](rng, kind, n_train, n_eval), strict=True):
            # Spread over the whole pool with a little chance, so that a prefix has each kind in its share:
            # plainly shuffled, the first 48 eval items could be a quarter lists.
            pool += [
                ((index + rng.random()) / len(drawn), (kind, variant, subject))
                for index, (subject, variant) in enumerate(drawn)
            ]
    return (
        tuple(Item(f"cldr-{index:04d}", *item) for index, (_, item) in enumerate(sorted(train))),
        tuple(Item(f"cldr-eval-{index:04d}", *item) for index, (_, item) in enumerate(sorted(evaluation))),
    )


Drawn = tuple[list[tuple[Subject, int]], list[tuple[Subject, int]]]


def _held_out(pool: str) -> Callable[[random.Random, str, int, int], Drawn]:
    """Code kinds: eval facts are met once, in one wording, and train has none of them."""

    def draw(rng: random.Random, kind: str, n_train: int, n_eval: int) -> Drawn:
        facts = list(codes(pool))
        rng.shuffle(facts)
        evaluation: list[tuple[Subject, int]] = [((code,), rng.randrange(VARIANTS[kind])) for code in facts[:n_eval]]
        train = _every_wording(rng, kind, [(code,) for code in facts[n_eval:]])
        return train[:n_train], evaluation

    return draw


def _small(subjects: Callable[[], list[Subject]]) -> Callable[[random.Random, str, int, int], Drawn]:
    """Kinds with few facts: every fact in every wording; eval may ask one of train in other words."""

    def draw(rng: random.Random, kind: str, n_train: int, n_eval: int) -> Drawn:
        dealt = _every_wording(rng, kind, subjects())
        return dealt[:n_train], dealt[n_train : n_train + n_eval]

    return draw


def _unlimited(
    subject: Callable[[random.Random], Subject],
) -> Callable[[random.Random, str, int, int], Drawn]:
    """Kinds without end: every subject is drawn anew and used once."""

    def draw(rng: random.Random, kind: str, n_train: int, n_eval: int) -> Drawn:
        drawn: dict[Subject, int] = {}
        while len(drawn) < n_train + n_eval:
            drawn.setdefault(subject(rng), rng.randrange(VARIANTS[kind]))
        items = list(drawn.items())
        return items[:n_train], items[n_train:]

    return draw


def _every_wording(rng: random.Random, kind: str, subjects: list[Subject]) -> list[tuple[Subject, int]]:
    pairs = [(subject, variant) for subject in subjects for variant in range(VARIANTS[kind])]
    rng.shuffle(pairs)
    return pairs


def date(rng: random.Random) -> Subject:
    """A day of the century from 1950 to 2049, as ISO text."""
    return (datetime.date.fromordinal(rng.randrange(_FIRST_DAY, _LAST_DAY)).isoformat(),)


def names(rng: random.Random) -> Subject:
    """Two or three different names of one sort, the sort first: territories, languages, months or days."""
    sort = rng.choices(("territory", "language", "month", "day"), weights=(50, 25, 15, 10))[0]
    size = 2 if rng.random() < 0.4 else 3
    return (sort, *rng.sample(_SORTS[sort](), size))


def three_names(rng: random.Random) -> Subject:
    """Three different territories or languages, the sort first."""
    sort = rng.choices(("territory", "language"), weights=(60, 40))[0]
    return (sort, *rng.sample(_SORTS[sort](), 3))


def number(rng: random.Random) -> Subject:
    """A number as plain digits: whole up to ten million, or with one decimal.

    Never under 10,000: some languages write four digits without a separator, which Babel does not follow.
    """
    if rng.random() < 0.5:
        return (str(rng.randrange(10_000, 10_000_000)),)
    return (f"{rng.randrange(10_000, 1_000_000)}.{rng.randrange(1, 10)}",)


def duration(rng: random.Random) -> Subject:
    """Hours and minutes, both more than one."""
    return (rng.randrange(2, 24), rng.randrange(2, 60))


def amount(rng: random.Random) -> Subject:
    """A currency and a round amount of it: 100 to 900, or 10,000 to 99,900.

    Hundreds only, because beside them a currency's name has one form in every language, and CLDR has it; in
    Arabic and Hebrew it lacks most others. None of four digits, for the reason given in ``number``.
    """
    hundreds = rng.randrange(1, 10) if rng.random() < 0.5 else rng.randrange(100, 1000)
    return (rng.choice(codes("amounts")), hundreds * 100)


def percent(rng: random.Random) -> Subject:
    """A share in thousandths: mostly whole percents, the rest with one decimal."""
    return (rng.randrange(1, 100) * 10 if rng.random() < 0.7 else rng.randrange(1, 1000),)


def _percents(rng: random.Random, kind: str, n_train: int, n_eval: int) -> Drawn:
    drawn: dict[tuple[Subject, int], None] = {}  # whole percents are few: the same one may come in both wordings
    while len(drawn) < n_train + n_eval:
        drawn.setdefault((percent(rng), rng.randrange(VARIANTS[kind])))
    items = list(drawn)
    return items[:n_train], items[n_train:]


def _sayings(rng: random.Random, kind: str, n_train: int, n_eval: int) -> Drawn:
    """What is repeated: any one name; each name is used once."""
    every: list[Subject] = [
        (sort, code)
        for sort, pool in (
            ("territory", "territories"),
            ("currency", "currencies"),
            ("language", "languages"),
        )
        for code in codes(pool)
    ]
    drawn = [(subject, rng.randrange(VARIANTS[kind])) for subject in rng.sample(every, n_train + n_eval)]
    return drawn[:n_train], drawn[n_train:]


def _range(stop: int) -> Callable[[], list[Subject]]:
    return lambda: [(index,) for index in range(stop)]


def _later(cycle: int, farthest: int) -> Callable[[], list[Subject]]:
    """From each member of the cycle 2, 3, … farthest steps on (1 step is asked by the ``next`` kinds)."""
    return lambda: [(start, steps) for start in range(cycle) for steps in range(2, farthest + 1)]


_FIRST_DAY = datetime.date(1950, 1, 1).toordinal()
_LAST_DAY = datetime.date(2050, 1, 1).toordinal()
_SORTS: dict[str, Callable[[], tuple[str | int, ...]]] = {
    "territory": lambda: codes("listed_territories"),
    "language": lambda: codes("languages"),
    "month": lambda: tuple(range(12)),
    "day": lambda: tuple(range(7)),
}
_DRAW: dict[str, Callable[[random.Random, str, int, int], Drawn]] = {
    "country": _held_out("territories"),
    "currency": _held_out("currencies"),
    "language": _held_out("languages"),
    "month_next": _small(_range(12)),
    "month_previous": _small(_range(12)),
    "day_next": _small(_range(7)),
    "day_previous": _small(_range(7)),
    "day_later": _small(_later(7, 10)),
    "month_later": _small(_later(12, 11)),
    "date": _unlimited(date),
    "month_of_date": _unlimited(date),
    "list": _unlimited(names),
    "first": _unlimited(three_names),
    "last": _unlimited(three_names),
    "repeat": _sayings,
    "number": _unlimited(number),
    "percent": _percents,
    "duration": _unlimited(duration),
    "amount": _unlimited(amount),
}
