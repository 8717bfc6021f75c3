"""The gate flags what is no translation, counts it, and leaves good ones alone."""

from __future__ import annotations

import pytest

from trainables.langid import CODES
from trainables.translators.courses import Translation
from trainables.translators.gate import Flag, counts, look

SOURCE = "Explain in two sentences why the sky is blue, and why it turns red in the evening."
GOOD = {
    "ar": "اشرح في جملتين لماذا السماء زرقاء، ولماذا تتحول إلى اللون الأحمر في المساء.",
    "cs": "Vysvětli ve dvou větách, proč je obloha modrá a proč se večer zbarvuje do červena.",
    "es": "Explica en dos frases por qué el cielo es azul y por qué se vuelve rojo al atardecer.",
    "et": "Selgita kahe lausega, miks taevas on sinine ja miks see õhtul punaseks muutub.",
    "fi": "Selitä kahdella lauseella, miksi taivas on sininen ja miksi se muuttuu illalla punaiseksi.",
    "he": "הסבר בשני משפטים מדוע השמיים כחולים, ומדוע הם הופכים לאדומים בערב.",
    "hi": "दो वाक्यों में समझाइए कि आकाश नीला क्यों होता है और शाम को लाल क्यों हो जाता है।",
    "hr": "Objasni u dvije rečenice zašto je nebo plavo i zašto navečer postaje crveno.",
    "it": "Spiega in due frasi perché il cielo è blu e perché diventa rosso la sera.",
    "pl": "Wyjaśnij w dwóch zdaniach, dlaczego niebo jest niebieskie i dlaczego wieczorem robi się czerwone.",
    "ru": "Объясни в двух предложениях, почему небо голубое и почему вечером оно становится красным.",
    "sk": "Vysvetli v dvoch vetách, prečo je obloha modrá a prečo sa večer sfarbuje do červena.",
    "sl": "V dveh stavkih pojasni, zakaj je nebo modro in zakaj zvečer postane rdeče.",
    "sr": "Објасни у две реченице зашто је небо плаво и зашто увече постаје црвено.",
    "sw": "Eleza kwa sentensi mbili kwa nini anga ni la bluu, na kwa nini hugeuka kuwa jekundu jioni.",
    "zh": "请用两句话解释天空为什么是蓝色的，以及为什么傍晚会变成红色。",
}


def flag(source: str, text: str, language: str, left: int = 0) -> Flag | None:
    (found,) = look([source], [Translation(text, left)], language)
    return found


@pytest.mark.parametrize("language", GOOD)
def test_a_good_translation_is_not_flagged(language: str) -> None:
    assert {*GOOD, "en"} == set(CODES)
    assert flag(SOURCE, GOOD[language], language) is None


@pytest.mark.parametrize("language", GOOD)
def test_another_language_is_flagged(language: str) -> None:
    other = GOOD["pl"] if language in ("ru", "sr", "hi", "ar", "he") else GOOD["ru"]
    assert flag(SOURCE, other[: 60 if language == "zh" else None], language) is Flag.LANGUAGE


@pytest.mark.parametrize("text", [SOURCE, SOURCE.upper(), "Väitä: " + SOURCE])
def test_a_text_that_stayed_as_it_was_is_untranslated(text: str) -> None:
    assert flag(SOURCE, text, "fi") is Flag.UNTRANSLATED


def test_a_text_with_pieces_left_as_they_were_is_untranslated() -> None:
    assert flag(SOURCE, GOOD["fi"], "fi", left=1) is Flag.UNTRANSLATED
    assert flag("Yes", "Yes", "fi", left=1) is Flag.UNTRANSLATED


@pytest.mark.parametrize("text", ["", "Taivas", GOOD["fi"] * 5])
def test_an_absurd_length_is_flagged(text: str) -> None:
    assert flag(SOURCE, text, "fi") is Flag.LENGTH


def test_a_translation_into_chinese_may_be_short_but_not_too_short() -> None:
    assert flag(SOURCE * 5, GOOD["zh"] * 5, "zh") is None
    assert flag(SOURCE * 5, GOOD["zh"][:12], "zh") is Flag.LENGTH


def test_what_must_survive_counts_for_nothing() -> None:
    code = "\n```python\nfor item in everything: print(item)  # all of the many English words that stay here\n```\n"
    assert flag(code + SOURCE, code + GOOD["fi"], "fi") is None
    assert flag(code, code, "fi") is None
    assert (
        flag("Use https://example.org/some/long/path/in/english", "https://example.org/some/long/path/in/english", "fi")
        is None
    )


def test_short_texts_are_not_judged() -> None:
    assert flag("Paris", "Paris", "fi") is None
    assert flag("12 + 30 = 42", "12 + 30 = 42", "zh") is None


def test_flags_are_counted() -> None:
    assert counts([None, Flag.LENGTH, Flag.LENGTH, Flag.LANGUAGE]) == {
        "untranslated": 0,
        "length": 2,
        "language": 1,
        "of": 4,
    }
