"""Rules of mixtures: sizes, evenness, nesting, and what is the same as what."""

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.languages import LANGUAGES, MAIN12, SIX
from orchestrator.mixtures import (
    Mixture,
    MixtureRule,
    custom,
    dev_ids,
    even_split,
    monolingual,
    pinch,
    share_of,
    uniform,
)

ROOT = str(Path(__file__).parents[1])
PAPER_IDS = [f"ex-{number:04d}" for number in range(4640)]

sizes = st.integers(1, 400)
language_sets = st.sets(st.sampled_from(sorted(LANGUAGES)), min_size=1)
pinch_sets = st.sets(st.sampled_from(sorted(LANGUAGES)), min_size=1).map(lambda codes: {"en", "fi", *codes})
shares = st.one_of(st.integers(0, 100), st.decimals(0, 100, places=2).map(float))
seeds = st.integers(0, 5)


def ids_of(size: int) -> list[str]:
    return [f"example-{number}" for number in range(size)]


def multilingual(mixture: Mixture) -> set[tuple[str, str]]:
    return {(key, code) for key, code in mixture.assignment.items() if code != "en"}


def spread(counts: Sequence[int]) -> int:
    return max(counts) - min(counts)


@given(sizes, language_sets, seeds)
@settings(deadline=None)
def test_uniform_has_every_example_once_and_is_even(size: int, codes: set[str], seed: int) -> None:
    mixture = uniform(ids_of(size), codes, seed)
    assert sorted(mixture.assignment) == sorted(ids_of(size))
    assert spread([mixture.counts.get(code, 0) for code in codes]) <= 1
    assert set(mixture.languages) <= codes


@given(sizes, pinch_sets, shares, seeds)
@settings(deadline=None)
def test_a_pinch_by_share_splits_that_share_evenly_and_leaves_the_rest_english(
    size: int, codes: set[str], share: float, seed: int
) -> None:
    mixture = pinch(ids_of(size), codes, seed, share=share)
    assert sorted(mixture.assignment) == sorted(ids_of(size))
    mixed = share_of(size, share)
    expected = even_split(mixed, codes)
    expected["en"] += size - mixed
    assert mixture.counts == {code: count for code, count in sorted(expected.items()) if count}


@given(sizes, pinch_sets, st.lists(shares, min_size=2, max_size=6), seeds)
@settings(deadline=None)
def test_examples_that_are_multilingual_at_a_smaller_share_stay_so_at_larger_ones(
    size: int, codes: set[str], levels: list[float], seed: int
) -> None:
    mixtures = [pinch(ids_of(size), codes, seed, share=level) for level in sorted(levels)]
    for smaller, larger in pairwise(mixtures):
        assert multilingual(smaller) <= multilingual(larger)


@given(st.integers(10, 400), pinch_sets, st.data(), seeds)
@settings(deadline=None)
def test_a_pinch_by_count_draws_that_many_evenly_and_never_from_dev(
    size: int, codes: set[str], data: st.DataObject, seed: int
) -> None:
    dev = dev_ids(ids_of(size), data.draw(st.integers(0, size - 1)), seed)
    counts = sorted(data.draw(st.lists(st.integers(0, size - len(dev)), min_size=2, max_size=4)))
    mixtures = [pinch(ids_of(size), codes, seed, count=count, dev_ids=dev) for count in counts]
    for count, mixture in zip(counts, mixtures, strict=True):
        assert sorted(mixture.assignment) == sorted(ids_of(size))
        drawn = multilingual(mixture)
        assert len(drawn) == count
        assert not {key for key, _ in drawn} & dev
        by_language = even_split(count, codes - {"en"})
        assert Counter(code for _, code in drawn) == {code: times for code, times in by_language.items() if times}
    for smaller, larger in pairwise(mixtures):
        assert multilingual(smaller) <= multilingual(larger)


@pytest.mark.parametrize("codes", [MAIN12, SIX])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_papers_forty_are_nested_in_every_share(codes: tuple[str, ...], seed: int) -> None:
    dev = dev_ids(PAPER_IDS, 250, seed)
    forty = pinch(PAPER_IDS, codes, seed, count=40, dev_ids=dev)
    assert len(forty.without(dev)) == 4390
    assert len(multilingual(Mixture(forty.without(dev)))) == 40
    assert forty.counts["en"] == 4600
    for percent in range(10, 101, 10):
        assert multilingual(forty) < multilingual(pinch(PAPER_IDS, codes, seed, share=percent))


@given(sizes, pinch_sets, seeds)
@settings(deadline=None)
def test_the_ends_of_a_pinch_are_monolingual_english_and_uniform(size: int, codes: set[str], seed: int) -> None:
    ids = ids_of(size)
    assert pinch(ids, codes, seed, share=0) == monolingual(ids, "en")
    assert pinch(ids, codes, seed, count=0) == monolingual(ids, "en")
    assert pinch(ids, codes, seed, share=100) == uniform(ids, codes, seed)


@given(sizes, st.sampled_from(MAIN12), seeds)
@settings(deadline=None)
def test_uniform_over_one_language_is_monolingual(size: int, code: str, seed: int) -> None:
    assert uniform(ids_of(size), [code], seed) == monolingual(ids_of(size), code)


@given(sizes, language_sets, seeds, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_listing_order_changes_nothing(size: int, codes: set[str], seed: int, chance: object) -> None:
    ids = ids_of(size)
    mixture = uniform(ids, sorted(codes), seed)
    other = uniform(list(reversed(ids)), [*sorted(codes, reverse=True), *codes], seed)
    assert mixture.digest == other.digest
    assert dev_ids(ids, size // 2, seed) == dev_ids(list(reversed(ids)), size // 2, seed)


@given(sizes, pinch_sets, shares, seeds)
@settings(deadline=None)
def test_a_custom_mixture_with_the_counts_of_another_is_that_mixture(
    size: int, codes: set[str], share: float, seed: int
) -> None:
    ids = ids_of(size)
    mixture = pinch(ids, codes, seed, share=share)
    assert custom(ids, mixture.counts, seed) == mixture
    assert MixtureRule.pinch_share(codes, share, size) == MixtureRule.of_counts(mixture.counts)


@given(
    st.integers(2, 400),
    st.dictionaries(st.sampled_from(MAIN12), st.integers(0, 100), min_size=1),
    st.data(),
    seeds,
)
@settings(deadline=None)
def test_a_custom_mixture_has_exactly_its_counts_and_its_part_of_dev(
    size: int, counts: dict[str, int], data: st.DataObject, seed: int
) -> None:
    total = sum(counts.values())
    if not 0 < total <= size:
        with pytest.raises(ValueError, match="cannot give out"):
            custom(ids_of(size), counts, seed)
        return
    dev = dev_ids(ids_of(size), data.draw(st.integers(0, size - 1)), seed)
    mixture = custom(ids_of(size), counts, seed, dev_ids=dev)
    assert mixture.counts == {code: count for code, count in sorted(counts.items()) if count}
    assert set(mixture.assignment) <= set(ids_of(size))
    held_out = len(mixture.assignment.keys() & dev)
    if dev and total >= 2:
        assert held_out >= 1
        assert held_out < total or total == size
        assert abs(held_out - total * len(dev) / size) <= 1
    if total == size:
        assert held_out == len(dev)


@given(sizes, pinch_sets, shares, st.integers(0, 40), seeds)
@settings(deadline=None)
def test_a_rule_says_the_counts_of_the_mixture_it_builds(
    size: int, codes: set[str], share: float, count: int, seed: int
) -> None:
    ids = ids_of(size)
    rules = [
        MixtureRule.monolingual("fi", size),
        MixtureRule.uniform(codes, size),
        MixtureRule.pinch_share(codes, share, size),
        MixtureRule.pinch_count(codes, min(count, size), size),
    ]
    for rule in rules:
        mixture = rule.build(ids, seed)
        assert dict(rule.counts) == mixture.counts
        assert rule.languages == mixture.languages
    assert rules[2].build(ids, seed) == pinch(ids, codes, seed, share=share)
    assert rules[3].build(ids, seed) == pinch(ids, codes, seed, count=min(count, size))


@given(st.integers(0, 10_000), language_sets)
def test_an_even_split_gives_left_overs_in_sorted_code_order(total: int, codes: set[str]) -> None:
    split = even_split(total, codes)
    assert sum(split.values()) == total
    assert list(split) == sorted(codes)
    assert spread(list(split.values())) <= 1
    assert list(split.values()) == sorted(split.values(), reverse=True)


def test_half_an_example_is_rounded_up_and_decimals_are_exact() -> None:
    assert share_of(5, 10) == 1
    assert share_of(15, 10) == 2
    assert share_of(25, 10) == 3
    assert share_of(1000, 0.15) == 2
    assert share_of(1000, 28.999) == 290
    assert share_of(4640, 10) == 464


def test_the_seed_changes_who_is_mixed_and_who_is_dev() -> None:
    by_seed = [(uniform(PAPER_IDS, MAIN12, seed).digest, dev_ids(PAPER_IDS, 250, seed)) for seed in range(4)]
    assert all(x[0] != y[0] and x[1] != y[1] for x, y in combinations(by_seed, 2))


def test_dev_is_as_multilingual_as_the_rest() -> None:
    dev = dev_ids(PAPER_IDS, 250, 0)
    counts = Counter(code for key, code in uniform(PAPER_IDS, ["en", "fi"], 0).assignment.items() if key in dev)
    assert len(dev) == 250
    assert 95 <= counts["fi"] <= 155


def test_an_id_keeps_its_place_among_others_when_ids_are_added() -> None:
    few = dev_ids(PAPER_IDS[:4000], 250, 0)
    many = dev_ids(PAPER_IDS, 250, 0)
    assert many & set(PAPER_IDS[:4000]) <= few


def test_the_digest_is_the_hash_of_the_sorted_pairs() -> None:
    mixture = uniform(["b", "ä", "c"], ["fi", "en"], 0)
    text = json.dumps(sorted(mixture.assignment.items()), ensure_ascii=False, separators=(",", ":"))
    assert mixture.digest == hashlib.sha256(text.encode()).hexdigest()
    assert len({mixture, uniform(["c", "b", "ä"], ["en", "fi"], 0)}) == 1


def test_mixtures_are_the_same_in_every_process_and_for_ever() -> None:
    code = (
        "from orchestrator.mixtures import *; ids = [f'ex-{n:04d}' for n in range(100)];"
        "dev = dev_ids(ids, 10, 0); print(pinch(ids, ['fi', 'en', 'ru'], 0, count=9, dev_ids=dev).digest,"
        "uniform(ids, ['fi', 'en'], 3).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ROOT}, text=True,
            capture_output=True, check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert digests == {
        "168713132d3ac22714e49279552a58e53af7dfb15191c26a79dce2ac641d6366 "
        "49be1a2b2b46604468578ad02428d301eb6efd220939841a6dd1165b8ebe087b"
    }


def test_names_say_what_is_mixed() -> None:
    assert MixtureRule.uniform(["fi"], 10).standard_name(10) == "mono-fi"
    assert MixtureRule.uniform(["fi", "en"], 11).standard_name(11) == "uniform-en+fi"
    assert MixtureRule.pinch_share(["fi", "en"], 10, 100).standard_name(100) is None
    assert MixtureRule.pinch_count(["fi", "en"], 50, 100).standard_name(100) is None
    assert MixtureRule.of_counts({"en": 5, "fi": 5}).standard_name(11) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"languages": ["fi", "ru"], "share": 10}, "has no en"),
        ({"languages": ["en", "fi"]}, "either a share or a count"),
        ({"languages": ["en", "fi"], "share": 10, "count": 1}, "either a share or a count"),
        ({"languages": ["en", "fi"], "share": 101}, "between 0 and 100"),
        ({"languages": ["en", "fi"], "share": float("nan")}, "between 0 and 100"),
        ({"languages": ["en"], "count": 1}, "a language beside en"),
        ({"languages": ["en", "fi"], "count": 9, "dev_ids": ["example-0", "example-1"]}, "9 examples from 8"),
    ],
)
def test_a_pinch_that_cannot_be_made_is_refused(arguments: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        pinch(ids_of(10), seed=0, **arguments)


def test_a_doubled_id_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' appears twice"):
        monolingual(["a", "b", "a"], "en")


def test_a_count_that_exhausts_the_corpus_still_draws_no_dev_example() -> None:
    dev = dev_ids(ids_of(100), 30, 0)
    mixture = pinch(ids_of(100), ["en", "fi", "ru"], 0, count=70, dev_ids=dev)
    assert set(mixture.without(dev).values()) == {"fi", "ru"}
    assert {mixture.assignment[key] for key in dev} == {"en"}


def test_hundreds_of_mixtures_of_the_papers_size_take_moments() -> None:
    began = time.process_time()
    digests = {uniform(PAPER_IDS, pair, 0).digest for pair in combinations(sorted(LANGUAGES), 2)}
    assert len(digests) == 136
    assert time.process_time() - began < 5  # about 0.5 s on a quiet core
