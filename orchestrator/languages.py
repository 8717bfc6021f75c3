"""The languages: the seventeen of the study, and any other that a user's own files may be in.

The seventeen are a table, with what the grids and the figures need to know about each. A user's own corpus can be in
any language that CLDR has a name for, written as a BCP 47 tag: ``sv``, ``yue``, ``pt-BR``, ``sr-Latn``. What is neither
is refused, with the nearest code that is, because a mistyped code would become a training set nobody asked for.

This room is a table and two look-ups. It must never know which corpus has a language or what was tuned on it.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass

from trainables.errors import UserError

ENGLISH = "en"


@dataclass(frozen=True)
class Language:
    """One language."""

    code: str
    """The code used in data, sweep files and tables: ISO 639-1 for the seventeen, else a BCP 47 tag."""
    name: str
    """English name, as figures label it."""
    family: str
    """Family, with the branch where the paper tells branches apart; empty for what is not of the seventeen."""
    script: str
    """The script its texts are written in."""
    groups: tuple[str, ...]
    """Of ``main`` (the twelve), ``six`` (the pinch-6 set) and ``slavic`` (figure 7)."""
    mutually_intelligible: str | None = None
    """The code of the language its speakers understand without learning it, if it is one of these."""


_TABLE = (
    Language("ar", "Arabic", "Afro-Asiatic", "Arabic", ("main", "six")),
    Language("zh", "Chinese", "Sino-Tibetan", "Chinese", ("main",)),
    Language("cs", "Czech", "Indo-European (West Slavic)", "Latin", ("main", "slavic"), "sk"),
    Language("en", "English", "Indo-European", "Latin", ("main", "six")),
    Language("et", "Estonian", "Uralic", "Latin", ("main",)),
    Language("fi", "Finnish", "Uralic", "Latin", ("main", "six")),
    Language("he", "Hebrew", "Afro-Asiatic", "Hebrew", ("main",)),
    Language("hi", "Hindi", "Indo-European", "Devanagari", ("main",)),
    Language("it", "Italian", "Indo-European", "Latin", ("main", "six")),
    Language("ru", "Russian", "Indo-European (East Slavic)", "Cyrillic", ("main", "six", "slavic")),
    Language("es", "Spanish", "Indo-European", "Latin", ("main",)),
    Language("sw", "Swahili", "Niger-Congo", "Latin", ("main", "six")),
    Language("sr", "Serbian", "Indo-European (South Slavic)", "Cyrillic", ("slavic",), "hr"),
    Language("hr", "Croatian", "Indo-European (South Slavic)", "Latin", ("slavic",), "sr"),
    Language("sl", "Slovenian", "Indo-European (South Slavic)", "Latin", ("slavic",)),
    Language("pl", "Polish", "Indo-European (West Slavic)", "Latin", ("slavic",)),
    Language("sk", "Slovak", "Indo-European (West Slavic)", "Latin", ("slavic",), "cs"),
)

LANGUAGES: dict[str, Language] = {entry.code: entry for entry in _TABLE}
"""The seventeen, by code."""

MAIN12: tuple[str, ...] = ("ar", "cs", "en", "es", "et", "fi", "he", "hi", "it", "ru", "sw", "zh")
"""The twelve main languages in the order of the paper's heat maps."""

SIX: tuple[str, ...] = ("ar", "en", "fi", "it", "ru", "sw")
"""The language set of pinch-6 and of the permutations."""

SLAVIC: tuple[str, ...] = ("ru", "sr", "hr", "sl", "pl", "sk", "cs")
"""The seven Slavic languages in the order of figure 7."""

_BY_NAME = {entry.name.lower(): entry.code for entry in _TABLE}
_NO_LANGUAGE = ("mul", "und", "zxx")  # several, unknown, none
_TAG = re.compile(r"(?P<language>[a-z]{2,3})(?:-(?P<script>[A-Z][a-z]{3}))?(?:-(?P<region>[A-Z]{2}|[0-9]{3}))?")


def language(code: str) -> Language:
    """The language with this code.

    Raises:
        UserError: for a code that is not one of the seventeen, with the nearest known one.
    """
    found = LANGUAGES.get(code)
    if found is not None:
        return found
    nearest = _nearest(str(code))
    hint = f"did you mean {nearest} ({LANGUAGES[nearest].name})? " if nearest else ""
    raise UserError(
        f"unknown language {code!r}; {hint}known: {', '.join(sorted(LANGUAGES))}; others need files of your own."
    )


@functools.cache
def any_language(code: str) -> Language:
    """The language with this code: one of the seventeen, or any other that CLDR has an English name for.

    Codes are spelled as BCP 47 recommends (``pt-BR``, ``sr-Latn``, ``zh-Hant-HK``), so that each has one spelling.

    Raises:
        UserError: for what is no such code, with the nearest known one.
    """
    if code in LANGUAGES:
        return LANGUAGES[code]
    tag = _TAG.fullmatch(str(code))
    found = _named_by_cldr(code, **tag.groupdict()) if tag else None
    if found is not None:
        return found
    nearest = _nearest(str(code))
    hint = f"did you mean {nearest} ({LANGUAGES[nearest].name})? " if nearest else ""
    raise UserError(
        f"unknown language {code!r}; {hint}a language is written as a BCP 47 tag that CLDR has a name for, such as "
        "fi, yue, pt-BR or sr-Latn."
    )


def _named_by_cldr(code: str, language: str, script: str | None, region: str | None) -> Language | None:
    from babel import Locale  # here: only another language than the seventeen needs its data
    from babel.core import get_global

    english = Locale("en")
    if language not in english.languages or language in _NO_LANGUAGE:
        return None
    beside = [(script, english.scripts), (region, english.territories)]
    if any(part is not None and part not in names for part, names in beside):
        return None
    told = ", ".join(names[part] for part, names in beside if part is not None)
    name = f"{english.languages[language]} ({told})" if told else english.languages[language]
    likely = get_global("likely_subtags").get(language, "").split("_")
    written = script or next((part for part in likely[1:] if len(part) == 4), "")
    return Language(code, name, "", english.scripts.get(written, ""), ())


def _nearest(code: str) -> str | None:
    """The known code that a wrong one most likely stands for: "finnish" for fi, "en-GB" for en."""
    lowered = code.strip().lower()
    if lowered in LANGUAGES:
        return lowered
    by_name = difflib.get_close_matches(lowered, _BY_NAME, n=1, cutoff=0.7)
    if by_name:
        return _BY_NAME[by_name[0]]
    region_free = lowered.replace("_", "-").split("-")[0]
    if region_free in LANGUAGES:
        return region_free
    close = difflib.get_close_matches(lowered, sorted(LANGUAGES), n=1, cutoff=0.5)
    return close[0] if close else None
