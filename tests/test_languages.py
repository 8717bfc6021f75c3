"""Rules of the language table."""

import pytest

from orchestrator.languages import LANGUAGES, MAIN12, SIX, SLAVIC, any_language, language
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


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_one_of_the_seventeen_is_the_same_to_whoever_takes_any_language(code: str) -> None:
    assert any_language(code) is language(code)


@pytest.mark.parametrize(
    ("code", "name", "script"),
    [
        ("sv", "Swedish", "Latin"),
        ("ur", "Urdu", "Arabic"),
        ("ceb", "Cebuano", "Latin"),
        ("pt-BR", "Portuguese (Brazil)", "Latin"),
        ("sr-Latn", "Serbian (Latin)", "Latin"),
        ("es-419", "Spanish (Latin America)", "Latin"),
    ],
)
def test_other_languages_have_the_names_that_cldr_gives_them(code: str, name: str, script: str) -> None:
    found = any_language(code)
    assert (found.name, found.script, found.groups) == (name, script, ())
    with pytest.raises(UserError, match="need files of your own"):
        language(code)


@pytest.mark.parametrize(
    "wrong", ["fin", "finnish", "FI", "pt-br", "pt_BR", "zhh", "qqq", "und", "sv-Xxxx", "../sv", ""]
)
def test_what_is_no_tag_of_a_language_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="unknown language"):
        any_language(wrong)
