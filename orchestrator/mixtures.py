"""Mixtures: which language each training example is in (paper section 3).

A mixture is a function from example id to language: every id of the training set exactly once, in exactly one
language, so that all mixtures of a corpus are of one size and differ in language only.

Everything follows from one order of the ids, drawn from the seed alone. Languages (as a sorted set, so that
fi,en is en,fi) are dealt to the ids in that order, one each in turn, until a language has its share; what is
left is English. Three promises need no further code:

- *Nesting.* The first M ids of the order get the same languages at every level that mixes at least M
  examples, so an example that is multilingual at one level stays so, in its language, at every larger one.
- *One mixture, one assignment.* P=100 is the uniform mixture, P=0 and uniform over one language are
  monolingual, and a custom mixture with the counts of any of these is that same mixture.
- *Paired comparisons.* Two language sets mix the same examples at the same level.

The order is a sort by SHA-256, not a shuffle by some library's generator: it is the same in every process,
Python version and listing order of the ids, and an id keeps its place when others are added.

This room is arithmetic. It must never know studies, corpora or models.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from orchestrator.languages import ENGLISH


@dataclass(frozen=True)
class Mixture:
    """A function from example id to language."""

    assignment: dict[str, str]
    """Language code by example id, in sorted order of the ids. Not to be changed."""

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of examples by language, in sorted order of the codes; no language with none."""
        return dict(sorted(Counter(self.assignment.values()).items()))

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have examples, sorted."""
        return tuple(self.counts)

    @cached_property
    def digest(self) -> str:
        """Full SHA-256 (64 hex digits) of the canonical JSON of the sorted [id, language] pairs."""
        pairs = json.dumps(sorted(self.assignment.items()), ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(pairs.encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def without(self, ids: Collection[str]) -> dict[str, str]:
        """The assignment of all other ids: with the dev ids, what is trained on."""
        left_out = frozenset(ids)
        return {key: code for key, code in self.assignment.items() if key not in left_out}


def round_half_up(value: Fraction) -> int:
    """The nearest integer; halves go up."""
    return math.floor(value + Fraction(1, 2))


def share_of(total: int, percent: float) -> int:
    """P percent of ``total`` examples, half rounded up, exact for decimal P (0.1 percent is 1 in 1,000).

    Raises:
        ValueError: for a percentage outside 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentage is between 0 and 100, not {percent}")
    return round_half_up(Fraction(str(percent)) * total / 100)


def even_split(total: int, languages: Iterable[str]) -> dict[str, int]:
    """``total`` examples over the set of languages, by code; parts differ by at most one.

    The examples that are left over go to languages in sorted code order.

    Raises:
        ValueError: for a negative total or no language.
    """
    codes = sorted(set(languages))
    if not codes or total < 0:
        raise ValueError(f"cannot split {total} examples over {len(codes)} languages")
    each, left_over = divmod(total, len(codes))
    return {code: each + (index < left_over) for index, code in enumerate(codes)}


def dev_ids(ids: Iterable[str], count: int, seed: int) -> frozenset[str]:
    """The ``count`` ids held out to choose a checkpoint by: one draw per corpus and seed, for every mixture.

    Raises:
        ValueError: when there are not that many ids.
    """
    distinct = _distinct(ids)
    if not 0 <= count <= len(distinct):
        raise ValueError(f"cannot draw {count} dev ids from {len(distinct)}")
    return frozenset(_order(distinct, "dev", seed)[:count])


def monolingual(ids: Iterable[str], language: str) -> Mixture:
    """D_L: every example in one language."""
    return Mixture(dict.fromkeys(sorted(_distinct(ids)), language))


def uniform(ids: Iterable[str], languages: Iterable[str], seed: int) -> Mixture:
    """Every example, split evenly over the set of languages."""
    distinct = _distinct(ids)
    return _deal(_order(distinct, "mixture", seed), even_split(len(distinct), languages))


def pinch(
    ids: Iterable[str],
    languages: Iterable[str],
    seed: int,
    *,
    share: float | None = None,
    count: int | None = None,
    dev_ids: Collection[str] = (),
) -> Mixture:
    """English with a pinch of other languages, by exactly one of ``share`` and ``count``.

    ``share``: that percentage of the examples is split evenly over the whole set, English included.
    ``count``: that many examples are split evenly over the languages of the set that are not English, drawn
    from ids outside ``dev_ids``, so that a training set without its dev part still has all of them (the
    paper's 40). All other examples are English. Both are nested: each in itself, and a count in the shares
    that have room for it.

    Raises:
        ValueError: for both or neither of share and count, a share outside 0 to 100, more examples than there
            are ids to draw from, or a set that is without English or, for a count, has nothing else.
    """
    distinct = _distinct(ids)
    codes = sorted(set(languages))
    if ENGLISH not in codes:
        raise ValueError(f"a pinch is of other languages in English, but {', '.join(codes)} has no {ENGLISH}")
    if (share is None) == (count is None):
        raise ValueError("a pinch has either a share or a count")
    order = _order(distinct, "mixture", seed)
    if share is not None:
        return _deal(order, pinch_counts(len(distinct), codes, share))
    assert count is not None
    return _sprinkle(order, codes, count, frozenset(dev_ids))


def pinch_counts(total: int, languages: Iterable[str], share: float) -> dict[str, int]:
    """Examples per language where ``share`` percent of ``total`` is split evenly and the rest is English."""
    mixed = share_of(total, share)
    counts = even_split(mixed, languages)
    counts[ENGLISH] = counts.get(ENGLISH, 0) + total - mixed
    return counts


def custom(ids: Iterable[str], counts: Mapping[str, int], seed: int, *, dev_ids: Collection[str] = ()) -> Mixture:
    """So many examples of each language, dev examples included as in every other mixture.

    The counts may add up to fewer examples than there are. Such a mixture leaves ids out, and has its part of
    the dev ids: as many of them, in proportion, as it has of all ids, but at least one (beside at least one
    that is trained on), for without dev examples no checkpoint can be chosen.

    Raises:
        ValueError: for a negative count, no example at all, or more than there are ids.
    """
    distinct = _distinct(ids)
    total = sum(counts.values())
    if any(count < 0 for count in counts.values()) or not 0 < total <= len(distinct):
        raise ValueError(f"cannot give out {total} examples of {len(distinct)}: {dict(counts)}")
    order = _order(distinct, "mixture", seed)
    if total < len(order):
        order = _part(order, total, frozenset(dev_ids))
    return _deal(order, counts)


@dataclass(frozen=True)
class MixtureRule:
    """How a mixture is made, known before any id is: two rules are equal if they make the same mixture.

    Whatever way a study words it, a mixture is given by its counts, except a pinch given by its count,
    which is drawn another way.
    """

    counts: tuple[tuple[str, int], ...]
    """(language, examples) in sorted code order, without languages that have none."""
    pinch_of: tuple[str, ...] = ()
    """The sorted language set of a pinch given by a count; empty for every other mixture."""

    @classmethod
    def of_counts(cls, counts: Mapping[str, int]) -> MixtureRule:
        """The mixture with these counts."""
        return cls(tuple(sorted((code, count) for code, count in counts.items() if count)))

    @classmethod
    def monolingual(cls, language: str, total: int) -> MixtureRule:
        """D_L of ``total`` examples."""
        return cls.of_counts({language: total})

    @classmethod
    def uniform(cls, languages: Iterable[str], total: int) -> MixtureRule:
        """``total`` examples split evenly."""
        return cls.of_counts(even_split(total, languages))

    @classmethod
    def pinch_share(cls, languages: Iterable[str], share: float, total: int) -> MixtureRule:
        """``share`` percent of ``total`` examples split evenly over the set, the rest English."""
        return cls.of_counts(pinch_counts(total, languages, share))

    @classmethod
    def pinch_count(cls, languages: Iterable[str], count: int, total: int) -> MixtureRule:
        """``count`` of ``total`` examples split evenly over the languages that are not English."""
        codes = tuple(sorted(set(languages)))
        counts = even_split(count, [code for code in codes if code != ENGLISH])
        return cls(cls.of_counts(counts | {ENGLISH: total - count}).counts, codes)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have examples, sorted."""
        return tuple(code for code, _ in self.counts)

    @property
    def total(self) -> int:
        """Number of examples, dev included."""
        return sum(count for _, count in self.counts)

    def standard_name(self, total: int) -> str | None:
        """``mono-fi`` or ``uniform-en+fi`` where all ``total`` examples are mixed so, else None."""
        if self.pinch_of or self.total != total:
            return None
        if len(self.counts) == 1:
            return f"mono-{self.counts[0][0]}"
        even = self.uniform(self.languages, total)
        return f"uniform-{'+'.join(self.languages)}" if self == even else None

    def build(self, ids: Iterable[str], seed: int, dev_ids: Collection[str] = ()) -> Mixture:
        """The mixture itself; ``ids`` must be as many as the rule was made for (a custom one may use fewer).

        Raises:
            ValueError: when the ids do not suffice.
        """
        if self.pinch_of:
            count = sum(count for code, count in self.counts if code != ENGLISH)
            return pinch(ids, self.pinch_of, seed, count=count, dev_ids=dev_ids)
        return custom(ids, dict(self.counts), seed, dev_ids=dev_ids)


def _distinct(ids: Iterable[str]) -> tuple[str, ...]:
    distinct = tuple(ids)
    _check_distinct(distinct)
    return distinct


@lru_cache(maxsize=16)
def _check_distinct(ids: tuple[str, ...]) -> None:
    if len(set(ids)) != len(ids):
        doubled = next(key for key, times in Counter(ids).items() if times > 1)
        raise ValueError(f"example id {doubled!r} appears twice")


@lru_cache(maxsize=16)
def _in_sorted_order(order: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The ids sorted, and the place of each in the order."""
    places = sorted(range(len(order)), key=order.__getitem__)
    return tuple(order[place] for place in places), tuple(places)


@lru_cache(maxsize=16)
def _order(ids: tuple[str, ...], purpose: str, seed: int) -> tuple[str, ...]:
    """The ids as the seed orders them; draws for different purposes are independent of each other."""
    prefix = f"{purpose}\n{seed}\n"
    return tuple(sorted(ids, key=lambda key: (hashlib.sha256((prefix + key).encode()).digest(), key)))


def _deal(order: Sequence[str], counts: Mapping[str, int]) -> Mixture:
    """Deal the languages to the ids in order, one each in sorted code order, until each has its count."""
    codes = sorted(code for code, count in counts.items() if count)
    dealt: list[str] = []
    rounds = 0
    for count in sorted({counts[code] for code in codes}):
        dealt += [code for code in codes if counts[code] > rounds] * (count - rounds)
        rounds = count
    if len(dealt) != len(order):
        raise ValueError(f"{len(dealt)} examples are to be dealt to {len(order)} ids")
    ids, places = _in_sorted_order(tuple(order))
    return Mixture(dict(zip(ids, map(dealt.__getitem__, places), strict=True)))


def _sprinkle(order: Sequence[str], codes: Sequence[str], count: int, dev: frozenset[str]) -> Mixture:
    """``count`` examples over the languages that are not English, none of them a dev example.

    A language takes the ids that the uniform mixture over the same set gives it, in order, so that the level
    is nested in the shares. A count too large for that goes on with ids that would be English, then with any.
    """
    others = [code for code in codes if code != ENGLISH]
    if not others:
        raise ValueError(f"a pinch needs a language beside {ENGLISH}")
    own: dict[str, list[str]] = {code: [] for code in codes}
    free = 0
    for place, key in enumerate(order):
        if key not in dev:
            own[codes[place % len(codes)]].append(key)
            free += 1
    if not 0 <= count <= free:
        raise ValueError(f"cannot draw {count} examples from {free} that are not dev examples")
    waiting = {code: iter(keys) for code, keys in own.items()}
    sources = {code: [code, ENGLISH, *(other for other in others if other != code)] for code in others}
    assignment = dict.fromkeys(order, ENGLISH)
    for turn in range(count):
        code = others[turn % len(others)]
        key = next(key for source in sources[code] for key in waiting[source])
        assignment[key] = code
    return Mixture(dict(sorted(assignment.items())))


@lru_cache(maxsize=16)
def _part(order: tuple[str, ...], total: int, dev: frozenset[str]) -> tuple[str, ...]:
    """The first ``total`` ids of the order, with dev ids in proportion."""
    held_out = [key for key in order if key in dev]
    trained = [key for key in order if key not in dev]
    wanted = round_half_up(Fraction(total * len(held_out), len(order)))
    wanted = min(max(wanted, min(1, len(held_out)), total - len(trained)), max(total - 1, total - len(trained)))
    chosen = {*held_out[:wanted], *trained[: total - wanted]}
    return tuple(key for key in order if key in chosen)
