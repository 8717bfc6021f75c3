"""Rules of studies and their grids: what may be asked, and the paper's numbers."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.grids import Grid, expand
from orchestrator.languages import MAIN12, SIX, SLAVIC
from orchestrator.mixtures import MixtureRule, dev_ids
from orchestrator.studies import Studies
from trainables.errors import UserError

CUSTOM = {"all-fi": {"fi": 100}, "half": {"fi": 50, "en": 50}}
UNSEEN = ("cs", "et", "he", "hi", "es", "zh")
PAPER: list[dict[str, Any]] = [
    {"study": "monolingual", "languages": MAIN12},
    {"study": "pinch", "languages": MAIN12},
    {"study": "pinch", "languages": SIX, "evaluate_in": MAIN12},
    {
        "study": "permutations",
        "orders": [
            ["fi", "en", "ru", "it", "sw", "ar"],
            ["sw", "it", "ar", "en", "fi", "ru"],
            ["it", "fi", "en", "ar", "ru", "sw"],
        ],
        "evaluate_in": UNSEEN,
    },
    {
        "study": "pairs",
        "pairs": [("es", "en"), ("zh", "ru"), ("ar", "et"), ("he", "cs"), ("fi", "it"), ("hi", "sw")],
    },
    {"study": "slavic"},
]
BASE = {"study": "base", "languages": MAIN12}
MONO = {"study": "monolingual", "languages": ["en", "fi"]}


def grid(*studies: dict[str, Any], train_count: int = 4640, dev_count: int = 250, **more: Any) -> Grid:
    validated = TypeAdapter(Studies).validate_python(studies)
    return expand(validated, train_count=train_count, dev_count=dev_count, **more)


def refusal(*studies: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Studies).validate_python(studies)
    return str(refused.value)


def test_the_whole_paper_has_the_papers_numbers() -> None:
    paper = grid(*PAPER)
    assert len(paper.listed) == 79
    assert len(paper.rules) == 56
    assert len(paper.rows) == 769
    assert len(paper.cells) == 579
    assert len({(row.listed.rule, row.language) for row in paper.rows}) == 579
    assert len({(row.listed.rule, row.language) for row in paper.rows if row.diagonal}) == 17
    assert len(paper.comparisons) == 562
    assert len(paper.comparisons) * 617 * 2 == 693_508
    listed = Counter(model.study for model in paper.listed)
    assert listed == {
        "monolingual": 12, "pinch-12": 12, "pinch-6": 12, "permutations": 18, "pairs": 18, "slavic": 7,
    }  # fmt: skip


def test_the_base_study_adds_only_the_untuned_models_sets_and_comparisons() -> None:
    paper, with_base = grid(*PAPER), grid(*PAPER, BASE)
    assert with_base.rules == paper.rules
    assert len(with_base.cells) - len(paper.cells) == 12
    assert len(with_base.comparisons) - len(paper.comparisons) == 144
    added = [row for row in with_base.rows if row.listed.study == "base"]
    assert len(added) == 144
    assert {row.baseline for row in added} == {None}
    assert not any(row.diagonal for row in added)


def test_the_papers_rules_are_56_distinct_training_sets() -> None:
    ids = [f"ex-{number:04d}" for number in range(4640)]
    dev = dev_ids(ids, 250, 0)
    mixtures = {rule.build(ids, 0, dev).digest for rule in grid(*PAPER).rules}
    assert len(mixtures) == 56


def test_levels_of_a_pinch_are_listed_by_size_under_the_papers_names() -> None:
    levels = grid(PAPER[2]).listed
    names = [model.name for model in levels]
    assert names[:4] == ["pinch-6-p0", "pinch-6-n40", "pinch-6-p10", "pinch-6-p20"]
    assert names[-1] == "pinch-6-p100"
    assert [model.percent for model in levels[:3]] == [0, 100 * 40 / 4640, 10]
    assert [model.count for model in levels[:3]] == [None, 40, None]
    assert levels[0].rule == MixtureRule.monolingual("en", 4640)
    assert levels[-1].rule == MixtureRule.uniform(SIX, 4640)
    assert levels[-1].rule.standard_name(4640) == "uniform-ar+en+fi+it+ru+sw"


def test_seen_is_the_studys_set_in_a_pinch_and_the_mixture_elsewhere() -> None:
    pinch, permutations, mono = grid(PAPER[2]), grid(PAPER[3]), grid(PAPER[0])
    for row in pinch.rows:
        assert row.seen == (row.language in SIX)
    assert not any(row.seen for row in permutations.rows)
    assert all(row.seen == (row.language in row.listed.rule.languages) for row in mono.rows)


def test_permutations_are_averaged_by_size_and_end_in_one_mixture() -> None:
    permutations = grid(PAPER[3])
    assert Counter(model.group for model in permutations.listed) == dict.fromkeys("123456", 3)
    assert len({model.rule for model in permutations.listed if model.group == "6"}) == 1
    assert {model.name for model in permutations.listed if model.group == "1"} == {
        "mono-fi",
        "mono-sw",
        "mono-it",
    }
    assert len(permutations.rows) == 108


def test_pairs_are_evaluated_in_the_languages_that_are_neither() -> None:
    pairs = grid(PAPER[4])
    assert [model.name for model in pairs.listed[:3]] == ["mono-es", "mono-en", "uniform-en+es"]
    for model in pairs.listed:
        assert len(model.evaluate_in) == 10
        assert not set(model.evaluate_in) & set(model.group.split("+"))
    few = grid({"study": "pairs", "pairs": [["es", "en"], ["ru", "fi"]], "evaluate_in": ["fi", "he", "en"]})
    assert [model.evaluate_in for model in few.listed] == [("fi", "he")] * 3 + [("he", "en")] * 3


def test_a_baseline_that_no_study_lists_is_tuned_and_not_listed() -> None:
    custom = grid(
        {"study": "custom", "mixtures": {"mine": {"en": 400, "fi": 80}}, "evaluate_in": ["fi", "ru"]},
        train_count=1600, dev_count=32,
    )  # fmt: skip
    assert [model.name for model in custom.listed] == ["mine"]
    assert [custom.names(rule) for rule in custom.rules] == [("mono-fi",), ("mono-ru",), ("mine",)]
    assert custom.studies(custom.rules[0]) == ()
    assert len(custom.rows) == 2
    assert len(custom.cells) == 4
    assert len(custom.comparisons) == 2
    assert custom.languages == ("en", "fi", "ru")


def test_the_base_study_alone_needs_no_other_baseline() -> None:
    base = grid({"study": "base", "languages": ["en", "fi"]})
    assert {cell.model for cell in base.cells} == {None, *base.rules}
    assert len(base.cells) == 2 + 4


def test_a_mixture_has_one_rule_however_a_study_words_it() -> None:
    same = grid(
        {"study": "custom", "mixtures": CUSTOM, "evaluate_in": ["fi"]},
        {"study": "monolingual", "languages": ["fi"]},
        {"study": "pairs", "pairs": [["fi", "en"]], "evaluate_in": ["ru"]},
        {"study": "pinch", "languages": ["fi", "en"], "percents": [100], "counts": []},
        train_count=100, dev_count=10,
    )  # fmt: skip
    by_name = {model.name: model.rule for model in same.listed}
    assert by_name["all-fi"] == by_name["mono-fi"]
    assert by_name["half"] == by_name["uniform-en+fi"] == by_name["pinch-2-p100"]
    assert same.names(by_name["half"]) == ("uniform-en+fi", "half", "pinch-2-p100")
    assert same.studies(by_name["half"]) == ("custom", "pairs", "pinch-2")


def test_a_study_of_its_own_name_passes_it_to_its_pinch_models() -> None:
    named = grid({"study": "pinch", "name": "nordic", "languages": ["en", "fi"], "percents": [2.5], "counts": [7]})
    assert [model.name for model in named.listed] == ["nordic-n7", "nordic-p2.5"]
    assert {model.study for model in named.listed} == {"nordic"}


def test_slavic_is_monolingual_with_its_own_languages() -> None:
    assert [model.name for model in grid({"study": "slavic"}).listed] == [f"mono-{code}" for code in SLAVIC]
    asked = grid({"study": "slavic", "languages": ["ru", "pl"], "evaluate_in": ["cs"]})
    assert [(row.listed.name, row.language) for row in asked.rows] == [("mono-ru", "cs"), ("mono-pl", "cs")]


def test_a_whole_percent_is_one_level_however_it_is_spelled() -> None:
    levels = grid({"study": "pinch", "languages": ["en", "fi"], "percents": [10.0], "counts": []}).listed
    assert levels[0].name == "pinch-2-p10"
    assert "named 2 times" in refusal({"study": "pinch", "languages": ["en", "fi"], "percents": [10, 10.0]})


@pytest.mark.parametrize(
    ("study", "messages"),
    [
        (
            {"study": "monolingul", "languages": ["en"]},
            ["unknown study 'monolingul', did you mean 'monolingual'?"],
        ),
        ({"study": ["pinch"]}, ["unknown study ['pinch']"]),
        ({"languages": ["en"]}, ["needs the key study"]),
        (
            {**MONO, "evalute_in": ["en"]},
            ["unknown key 'evalute_in' in a monolingual study", "'evaluate_in'?"],
        ),
        ({**MONO, "percents": [1]}, ["unknown key 'percents' in a monolingual study"]),
        ({"study": "monolingual"}, ["languages", "Field required"]),
        ({"study": "monolingual", "languages": []}, ["languages"]),
        ({"study": "monolingual", "languages": ["en", "fii"]}, ["unknown language 'fii'; did you mean fi"]),
        ({"study": "monolingual", "languages": ["en", "fi", "en"]}, ["en is named 2 times"]),
        ({**MONO, "evaluate_in": ["qq"]}, ["evaluate_in", "unknown language 'qq'"]),
        ({**MONO, "name": "a b"}, ["found 'a b'; a study's name is made of letters"]),
        ({"study": "pinch", "languages": ["fi", "ru"]}, ["fi, ru is without en"]),
        ({"study": "pinch", "languages": ["en"]}, ["needs a language beside en"]),
        ({"study": "pinch", "languages": SIX, "percents": [0, 101]}, ["percents.1", "found 101;"]),
        ({"study": "pinch", "languages": SIX, "percents": [-1]}, ["found -1;"]),
        ({"study": "pinch", "languages": SIX, "percents": [float("nan")]}, ["found nan;"]),
        ({"study": "pinch", "languages": SIX, "percents": ["ten"]}, ["found 'ten';"]),
        ({"study": "pinch", "languages": SIX, "percents": [10, 20, 10]}, ["10 is named 2 times"]),
        ({"study": "pinch", "languages": SIX, "counts": [40, 40]}, ["40 is named 2 times"]),
        ({"study": "pinch", "languages": SIX, "counts": [0]}, ["found 0; a count is a whole number"]),
        ({"study": "pinch", "languages": SIX, "counts": [1.5]}, ["found 1.5; a count is a whole number"]),
        ({"study": "pinch", "languages": SIX, "counts": [], "percents": []}, ["both empty"]),
        ({"study": "pairs", "pairs": [["en", "fi", "ru"]]}, ["found [en, fi, ru]; a pair is two"]),
        ({"study": "pairs", "pairs": [["en", "en"]]}, ["found [en, en]; a pair is two different languages"]),
        ({"study": "pairs", "pairs": [["en", "fi"]]}, ["[en, fi] is left without a language", "evaluate_in"]),
        (
            {"study": "pairs", "pairs": [["en", "fi"], ["ru", "it"], ["fi", "en"]]},
            ["[fi, en] is listed twice"],
        ),
        (
            {"study": "permutations", "orders": [["fi", "en", "fi"]], "evaluate_in": ["ru"]},
            ["names fi twice"],
        ),
        ({"study": "permutations", "orders": [[]], "evaluate_in": ["ru"]}, ["empty order"]),
        (
            {"study": "permutations", "orders": [["fi"], ["fi"]], "evaluate_in": ["ru"]},
            ["[fi] is listed twice"],
        ),
        ({"study": "permutations", "orders": [["fi"]]}, ["evaluate_in", "Field required"]),
        ({"study": "custom", "mixtures": {"base": {"en": 1}}, "evaluate_in": ["en"]}, ["'base' is the name"]),
        ({"study": "custom", "mixtures": {"a/b": {"en": 1}}, "evaluate_in": ["en"]}, ["found 'a/b'"]),
        (
            {"study": "custom", "mixtures": {"a": {}}, "evaluate_in": ["en"]},
            ["mixtures.a: found no language"],
        ),
        ({"study": "custom", "mixtures": {"a": {"en": -1}}, "evaluate_in": ["en"]}, ["found -1; a count is"]),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused_with_key_and_cure(study: dict[str, Any], messages: list[str]) -> None:
    text = refusal(study)
    for message in messages:
        assert message in text


def test_two_studies_of_one_name_are_refused() -> None:
    assert "2 studies are called 'monolingual'" in refusal(MONO, {**MONO, "languages": ["ru"]})
    renamed = grid(MONO, {**MONO, "name": "other", "languages": ["ru"]})
    assert {model.study for model in renamed.listed} == {"monolingual", "other"}


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (
            {"study": "pinch", "languages": ["en", "fi"], "counts": [91]},
            "91 examples are asked for, but 90 are left",
        ),
        ({"study": "custom", "mixtures": {"a": {"en": 99, "fi": 2}}, "evaluate_in": ["en"]}, "add up to 101"),
        ({"study": "custom", "mixtures": {"a": {"en": 1}}, "evaluate_in": ["en"]}, "found 1 example"),
        ({"study": "custom", "mixtures": {"mono-fi": {"en": 9}}, "evaluate_in": ["en"]}, "begin with mono-"),
        (
            {"study": "monolingual", "languages": ["en", "ru"]},
            "names ru, but corpus.languages has only en, fi",
        ),
        ({**MONO, "evaluate_in": ["ru"]}, "names ru, but corpus.languages has only en, fi"),
    ],
)
def test_what_the_corpus_cannot_give_is_refused_at_expansion(study: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid(study, train_count=100, dev_count=10, corpus_languages=["fi", "en"])


def test_one_model_name_for_two_mixtures_is_refused() -> None:
    custom = {"study": "custom", "mixtures": {"pinch-2-p10": {"en": 9}}, "evaluate_in": ["en"]}
    with pytest.raises(UserError, match="pinch-2-p10 is also the name of another mixture in study pinch-2"):
        grid({"study": "pinch", "languages": ["en", "fi"]}, custom)


def test_planning_rooms_are_light_to_import() -> None:
    heavy = {"numpy", "pandas", "torch", "pyarrow", "ray"}
    code = f"import sys, orchestrator.grids; print(sorted({heavy!r} & set(sys.modules)))"
    root = str(Path(__file__).parents[1])
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, text=True, capture_output=True, check=True)
    assert ran.stdout.strip() == "[]"
