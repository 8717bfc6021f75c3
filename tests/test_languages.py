"""Rules of the language table."""

import pytest

from orchestrator.languages import LANGUAGES, MAIN12, SIX, SLAVIC, language
from trainables.errors import UserError


def test_the_table_has_the_papers_seventeen_languages_in_its_groups() -> None:
    assert len(LANGUAGES) == 17
    assert " ".join(MAIN12) == "ar cs en es et fi he hi it ru sw zh"
    assert " ".join(SIX) == "ar en fi it ru sw"
    for group, codes in (("main", MAIN12), ("six", SIX), ("slavic", SLAVIC)):
        assert {code for code, entry in LANGUAGES.items() if group in entry.groups} == set(codes)


def test_mutual_intelligibility_is_mutual() -> None:
    pairs = {code: entry.mutually_intelligible for code, entry in LANGUAGES.items() if entry.mutually_intelligible}
    assert pairs == {"cs": "sk", "sk": "cs", "sr": "hr", "hr": "sr"}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("fin", "fi"), ("finnish", "fi"), ("FI", "fi"), ("en-GB", "en"), ("Serbain", "sr"), ("zhh", "zh")],
)
def test_an_unknown_code_is_refused_with_the_nearest_known_one(wrong: str, right: str) -> None:
    with pytest.raises(UserError, match=f"unknown language '{wrong}'; did you mean {right} "):
        language(wrong)


def test_a_code_like_no_other_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown language 'qqq'; known: ar, cs, "):
        language("qqq")


def test_a_known_code_is_its_language() -> None:
    assert language("hi").script == "Devanagari"
