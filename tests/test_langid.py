"""Language identification: which texts are judged, and that the 17 languages are told apart where they can be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainables.langid import CODES, FEWEST_LETTERS, in_language, letters

SENTENCES = {
    "ar": "عاصمة فرنسا هي مدينة باريس، وهي مدينة كبيرة وجميلة يزورها الناس من كل مكان.",
    "cs": "Hlavním městem Francie je Paříž, velké a krásné město, které navštěvují lidé z celého světa.",
    "en": "The capital of France is Paris, a large and beautiful city that people from everywhere visit.",
    "es": "La capital de Francia es París, una ciudad grande y hermosa que visita gente de todas partes.",
    "et": "Prantsusmaa pealinn on Pariis, suur ja ilus linn, mida külastavad inimesed kogu maailmast.",
    "fi": "Ranskan pääkaupunki on Pariisi, suuri ja kaunis kaupunki, jossa käy ihmisiä kaikkialta maailmasta.",
    "he": "בירת צרפת היא פריז, עיר גדולה ויפה שאנשים מכל העולם באים לבקר בה.",
    "hi": "फ्रांस की राजधानी पेरिस है, जो एक बड़ा और सुंदर शहर है और जहाँ दुनिया भर से लोग आते हैं।",
    "hr": "Glavni grad Francuske je Pariz, velik i lijep grad koji posjećuju ljudi iz cijelog svijeta.",
    "it": "La capitale della Francia è Parigi, una città grande e bella visitata da persone di ogni paese.",
    "pl": "Stolicą Francji jest Paryż, duże i piękne miasto, które odwiedzają ludzie z całego świata.",
    "ru": "Столица Франции — Париж, большой и красивый город, куда приезжают люди со всего света.",
    "sk": "Hlavným mestom Francúzska je Paríž, veľké a krásne mesto, ktoré navštevujú ľudia z celého sveta.",
    "sl": "Glavno mesto Francije je Pariz, veliko in lepo mesto, ki ga obiskujejo ljudje z vsega sveta.",
    "sr": "Главни град Француске је Париз, велики и леп град који посећују људи из целог света.",
    "sw": "Mji mkuu wa Ufaransa ni Paris, mji mkubwa na mzuri ambao watu kutoka kila mahali huutembelea.",
    "zh": "法国的首都是巴黎，这是一座美丽的大城市，每年都有来自世界各地的人们前来参观游览。",
}  # fmt: skip


def test_there_is_a_sentence_for_each_of_the_17_languages() -> None:
    assert set(SENTENCES) == set(CODES)
    assert len(CODES) == 17


@pytest.mark.parametrize("language", CODES)
def test_a_sentence_is_in_its_language_and_in_no_other(language: str) -> None:
    codes = list(SENTENCES)
    answers = in_language([SENTENCES[code] for code in codes], language)
    assert answers == [code == language for code in codes]


def test_short_texts_are_not_judged() -> None:
    assert in_language(["", "Suomi", "12345678901234567890 !!!", "a" * (FEWEST_LETTERS - 1)], "fi") == [None] * 4


def test_a_chinese_character_counts_for_three_letters() -> None:
    assert in_language(["法国的首都是巴", "法国的首都是"], "zh") == [True, None]
    assert in_language(["法国的首都是巴"], "ar") == [False]


def test_texts_keep_their_places_among_those_that_are_not_judged() -> None:
    assert in_language(["Suomi", SENTENCES["fi"], "", SENTENCES["en"]], "fi") == [None, True, None, False]


def test_marks_that_a_reader_takes_for_letters_count() -> None:
    assert letters("की") == 2
    assert letters("a1 ,-") == 1


def test_serbian_in_latin_letters_counts_as_croatian() -> None:
    latin = "Glavni grad Francuske je Pariz, veliki i lep grad koji posećuju ljudi iz celog sveta."
    assert in_language([latin], "sr") == [False]
    assert in_language([latin], "hr") == [True]


def test_of_a_language_outside_the_study_nothing_is_said() -> None:
    german = "Die Hauptstadt von Frankreich ist Paris, eine große und schöne Stadt."
    assert in_language([german], "de") == [None]


def test_nothing_is_loaded_for_short_texts() -> None:
    code = (
        "import sys; from trainables.langid import in_language; "
        "in_language(['x'], 'fi'); sys.exit('lingua' in sys.modules)"
    )
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == 0


def test_the_languages_are_those_of_the_study() -> None:
    from orchestrator.languages import LANGUAGES

    assert set(CODES) == set(LANGUAGES)
