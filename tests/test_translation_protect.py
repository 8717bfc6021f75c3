"""What must survive a translation survives every engine, also one that breaks whatever it is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.translators.courses import Courses, Translation, digest
from trainables.translators.protect import STYLES, pieces, prose, protect

EXAMPLE = """# How to greet {name}

Call `greet(name)` from https://example.org/docs (see also www.example.com):

```python
def greet(name):
    return f"Hello {name}"   # not translated
```

1. Replace {0} by {1}.
\t* Ask help@example.org,  twice
   > quoted words
---
The end.  """

Engine = Callable[[str], str]


def translated(text: str, engine: Engine, whole: bool = True, limit: int = 1000) -> tuple[Translation, list[str]]:
    """A text's translation and every string the engine was asked for."""
    courses, known, asked = Courses([text], whole, limit), {}, []
    while wanted := courses.wanted(known):
        assert len(asked) < 500
        asked += wanted
        known |= {digest(string): engine(string) for string in wanted}
    return courses.done[text], asked


def shouting(text: str) -> str:
    """An engine that keeps marks and lines, and nothing else."""
    return "".join(part if re.fullmatch(r"⟦\d+⟧|<x\d+/>", part) else part.upper() for part in re.split(_MARK, text))


_MARK = r"(⟦\d+⟧|<x\d+/>)"


def test_a_good_engine_is_asked_once_and_touches_only_words() -> None:
    done, asked = translated(EXAMPLE, shouting)
    assert len(asked) == 1
    assert "def greet" not in asked[0]
    assert "example" not in asked[0].lower().replace("⟦", "")
    assert done == Translation(
        EXAMPLE.replace("How to greet", "HOW TO GREET")
        .replace("Call", "CALL")
        .replace("from", "FROM")
        .replace("(see also", "(SEE ALSO")
        .replace("Replace", "REPLACE")
        .replace("by", "BY")
        .replace("Ask", "ASK")
        .replace("twice", "TWICE")
        .replace("quoted words", "QUOTED WORDS")
        .replace("The end", "THE END")
    )


@pytest.mark.parametrize("whole", [True, False])
def test_an_engine_that_swallows_marks_is_asked_again_and_then_for_the_pieces_between_them(whole: bool) -> None:
    done, asked = translated(EXAMPLE, lambda text: re.sub(_MARK, "", text).upper(), whole)
    assert done.left == 0
    assert "REPLACE {0} BY {1}." in done.text
    assert "CALL `greet(name)` FROM https://example.org/docs (SEE ALSO www.example.com):" in done.text
    assert any("<x" in string for string in asked), "the second try has other marks"
    assert {"Call", "from", "(see also"} <= set(asked), "the last is without any"
    assert all(line.count(" ") == other.count(" ") for line, other in _pairs(done.text))


def test_only_the_lines_that_do_not_hold_are_asked_again() -> None:
    def breaks_one(text: str) -> str:
        return shouting(text).replace("BY", "⟦7⟧") if "\n" in text else shouting(text)

    done, asked = translated(EXAMPLE, breaks_one)
    assert asked[1:] == ["Replace <x5/> by <x6/>."]
    assert "1. REPLACE {0} BY {1}." in done.text


def test_an_engine_that_loses_lines_is_asked_line_by_line() -> None:
    done, asked = translated(EXAMPLE, lambda text: shouting(text).replace("\n", " "))
    assert len(_lines(done.text)) == len(_lines(EXAMPLE))
    assert "1. REPLACE {0} BY {1}." in done.text
    assert "\t* ASK help@example.org,  TWICE" in done.text
    assert "   > QUOTED WORDS" in done.text
    assert not [string for string in asked[1:] if "\n" in string]


def test_an_engine_without_answers_leaves_the_text_and_says_so() -> None:
    done, _ = translated(EXAMPLE, lambda text: "")
    assert done.text == EXAMPLE
    assert done.left == 10


def test_marks_with_spaces_or_foreign_digits_are_marks() -> None:
    done, asked = translated("Replace {0} by {1}.", lambda text: text.replace("⟦0⟧", "⟦ ٠ ⟧").replace("⟦1⟧", "⟦१⟧"))
    assert done.text == "Replace {0} by {1}."
    assert len(asked) == 1


def test_words_may_move_around_the_marks_of_a_line_but_not_between_lines() -> None:
    text = "Replace {0} by {1}.\nThen add {2}."
    done, asked = translated(text, lambda text: "⟦1⟧ is put for ⟦0⟧.\nAfter: ⟦2⟧." if "\n" in text else "no")
    assert done.text == "{1} is put for {0}.\nAfter: {2}."
    swapped = {0: "⟦2⟧ and ⟦1⟧\n⟦0⟧ too"}
    done, asked = translated(text, lambda text: swapped.pop(0, text))
    assert done.text == text
    assert len(asked) == 3


def test_a_text_without_words_is_never_sent() -> None:
    for text in ("", "\n\n", "12 + 30 = 42", "```\nprint(1)\n```", "https://example.org", "{0} - {1}", "---\n***"):
        assert translated(text, shouting) == (Translation(text), [])


def test_what_looks_like_a_mark_and_is_none_survives() -> None:
    text = "Keep ⟦0⟧ and <x1/> and {2} as they are"
    done, asked = translated(text, shouting)
    assert done.text == "KEEP ⟦0⟧ AND <x1/> AND {2} AS THEY ARE"
    assert asked == ["Keep ⟦0⟧ and ⟦1⟧ and ⟦2⟧ as they are"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Use ```git add -p``` now", ["```git add -p```"]),
        ("~~~\nx = 1\n~~~\nafter", ["~~~\nx = 1\n~~~"]),
        ("open\n```\nnever closed\nat all", ["```\nnever closed\nat all"]),
        ("dos\r\n```\r\na;\r\n```\r\nend", ["```\r\na;\r\n```\r"]),
        ("See:\n\n    \\begin{figure}\n      x\n\nwords", ["    \\begin{figure}\n      x"]),
        ("See:\n\n    a quotation, not code\n\nwords", []),
        ("Go to https://a.b/c_(d)?e=f#g, then.", ["https://a.b/c_(d)?e=f#g"]),
        ("Or (www.a.org/x).", ["www.a.org/x"]),
        ("{0} {name} {{double}} { 1 } {not a place}", ["{0}", "{name}", "{{double}}", "{ 1 }"]),
        ("Solve \\(x^2\\) or $$a\nb$$ for $5 and $6", ["\\(x^2\\)", "$$a\nb$$"]),
    ],
)
def test_what_is_protected(text: str, kept: list[str]) -> None:
    shape = protect(text)
    assert list(shape.parts) == kept
    assert "\n".join(shape.original(place) for place in range(len(shape.lines))) == text


def test_long_lines_are_cut_where_a_sentence_ends() -> None:
    text = "One sentence here. Another {0} there! " * 20
    done, asked = translated(text, shouting, limit=60)
    assert done.text == text.upper()
    assert max(map(len, asked)) <= 60
    assert all(string.endswith((".", "!", "Another", "there! One sentence here.")) for string in asked)


def test_what_two_texts_share_is_asked_once() -> None:
    courses = Courses(["Same line\nOne", "Same line\nTwo"], whole=False, limit=100)
    assert courses.wanted({}) == ["Same line", "One", "Two"]


def test_a_course_is_replayed_from_the_answers_there_are() -> None:
    def first(text: str) -> str:
        return re.sub(_MARK, "", text).upper()

    reference, asked = translated(EXAMPLE, first)
    known = {digest(string): first(string) for string in asked}
    again = Courses([EXAMPLE], whole=True, limit=1000)
    assert again.wanted(known) == []
    assert again.done[EXAMPLE] == reference
    known.pop(digest(asked[-1]))
    assert Courses([EXAMPLE], whole=True, limit=1000).wanted(known) == [asked[-1]]


words = st.sampled_from(["word", "Über", "двор", "a", "{0}", "{n}", "`x`", "https://a.b/c", "⟦1⟧", "<x0/>", "1.", "- "])
line = st.lists(words | st.text(max_size=4), max_size=6).map(" ".join)
fence = st.just("```\ncode line {1}\n\n   more\n```")
texts = st.lists(line | fence | st.just("") | st.just("    x = {};"), max_size=8).map("\n".join)


@given(texts, st.booleans(), st.integers(5, 80))
def test_an_engine_that_changes_nothing_changes_nothing(text: str, whole: bool, limit: int) -> None:
    assert translated(text, lambda string: string, whole, limit)[0].text.split() == text.split()
    assert translated(text, lambda string: string, whole, 10_000)[0].text == text


@settings(max_examples=300)
@given(texts, st.booleans(), st.integers(5, 80), st.randoms(use_true_random=False))
def test_whatever_an_engine_does_what_is_protected_survives(text: str, whole: bool, limit: int, chance: object) -> None:
    def hostile(string: str) -> str:
        parts = [*re.split(r"(\s+)", string), "⟦0⟧", "⟦9⟧", "\n", "```", "", "word"]
        chance.shuffle(parts)  # type: ignore[attr-defined]
        kind = chance.randrange(5)  # type: ignore[attr-defined]
        if kind == 0:
            return ""
        if kind == 1:
            return string
        if kind == 2:
            return re.sub(_MARK, "", string) + "\n\nmore"
        return "".join(parts[: chance.randrange(len(parts))])  # type: ignore[attr-defined]

    done, _ = translated(text, hostile, whole, limit)
    assert done.text.count("\n") == text.count("\n")
    for place, (before, after) in enumerate(zip(text.split("\n"), done.text.split("\n"), strict=True)):
        assert bool(before.strip()) == bool(after.strip()), place
    for part, count in Counter(protect(text).parts).items():
        assert done.text.count(part) >= count
    for style in STYLES:
        assert style.format(77) not in done.text


@given(st.text(max_size=200), st.integers(1, 50))
def test_pieces_are_the_line_again(text: str, limit: int) -> None:
    text = text.replace("\n", " ")
    cut = list(pieces(text, limit))
    assert "".join(piece for piece, _ in cut) == text
    assert all(len(piece) <= limit and piece == piece.strip() for piece, asked in cut if asked)


def test_prose_is_what_a_language_can_be_told_from() -> None:
    assert "greet(name)" not in prose(EXAMPLE)
    assert "quoted words" in prose(EXAMPLE)


def test_protecting_takes_time_in_proportion_to_the_text() -> None:
    for text in ("a" * 100_000, "{" * 100_000, "`" * 20_000, "⟦" * 100_000, " " * 50_000, "- " * 50_000, "$$" * 20_000):
        assert "\n".join(line.lead + line.core + line.trail for line in protect(text).lines)


def _lines(text: str) -> list[str]:
    return text.split("\n")


def _pairs(text: str) -> list[tuple[str, str]]:
    return list(zip(_lines(text), _lines(EXAMPLE), strict=True))
