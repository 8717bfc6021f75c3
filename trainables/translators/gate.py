"""A look at what came out: is it in the language asked for, of a sensible length, and translated at all?

The gate flags and never throws away: a flagged text is still trained on or answered, and the count per language says
whether to. What must survive (code, addresses, names in braces) is left out of the look. A text of fewer than 20
letters is not judged, and of a long one the beginning is.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from trainables.langid import FEWEST_LETTERS, in_language, letters
from trainables.translators.courses import Translation
from trainables.translators.protect import prose

LOOKED_AT = 600
"""Characters of a text by which its language is told."""
TIMES = 3.0
"""A translation so many times longer, or shorter, than its language lets expect is absurd."""
EXPECTED = {"zh": 0.35, "he": 0.85, "ar": 0.9}
"""Characters for one of English, where that is far from 1."""
SAME = 0.8
"""Of the words of a text as many that stand in the translation again mean that it is none."""


class Flag(StrEnum):
    """What is wrong with a translation; where several things are, the first of these."""

    UNTRANSLATED = "untranslated"
    LENGTH = "length"
    LANGUAGE = "language"


def look(sources: Sequence[str], translations: Sequence[Translation], language: str) -> list[Flag | None]:
    """For each English text and its translation, what is wrong with it, or None."""
    said = [prose(translation.text) for translation in translations]
    flags = [_at_once(*pair, language) for pair in zip(map(prose, sources), translations, said, strict=True)]
    places = [place for place, flag in enumerate(flags) if flag is None]
    right = in_language([said[place].strip()[:LOOKED_AT] for place in places], language)
    for place, answer in zip(places, right, strict=True):
        if answer is False:
            flags[place] = Flag.LANGUAGE
    return flags


def counts(flags: Sequence[str | None]) -> dict[str, int]:
    """How many translations have each flag, and how many were looked at."""
    return {**{str(flag): flags.count(flag) for flag in Flag}, "of": len(flags)}


def _at_once(source: str, translation: Translation, said: str, language: str) -> Flag | None:
    """What can be seen without telling a language."""
    if letters(source) < FEWEST_LETTERS:
        return Flag.UNTRANSLATED if translation.left else None
    if translation.left or _same(source, said):
        return Flag.UNTRANSLATED
    expected = letters(source) * EXPECTED.get(language, 1.0)
    found = letters(said)
    return None if expected / TIMES <= found <= expected * TIMES else Flag.LENGTH


def _same(source: str, said: str) -> bool:
    before, after = source.casefold().split(), set(said.casefold().split())
    words = [word for word in before if letters(word)]
    return bool(words) and sum(word in after for word in words) >= SAME * len(words)
