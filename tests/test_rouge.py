"""ROUGE-L must mean the same in every script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.rouge import rouge_l, tokens

TEXTS = {
    "ar": "القاهرة هي عاصمة مصر",
    "he": "ירושלים היא בירת ישראל",
    "hi": "नई दिल्ली भारत की राजधानी है",
    "ru": "Москва — столица России",
    "zh": "北京是中国的首都",
    "en": "Paris is the capital of France",
    "cs": "Hlavní město je Praha",
}


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_a_text_equals_itself_in_every_script(language):
    assert rouge_l(TEXTS[language], TEXTS[language]) == 1.0


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_half_of_a_text_scores_between_nothing_and_all(language):
    half = TEXTS[language][: len(TEXTS[language]) // 2]
    assert 0.2 < rouge_l(half, TEXTS[language]) < 1.0


def test_texts_without_a_common_token_score_nothing():
    assert rouge_l(TEXTS["ru"], TEXTS["zh"]) == 0.0
    assert rouge_l("", TEXTS["en"]) == 0.0


def test_words_keep_their_marks_and_han_stands_alone():
    assert tokens("दिल्ली की!") == ["दिल्ली", "की"]
    assert tokens("共42个 test") == ["共", "42", "个", "test"]
    assert tokens("Größe, GRÖSSE") == ["grösse", "grösse"]


def test_the_known_value_of_an_english_pair():
    # Longest common subsequence: "the cat on mat", 4 of 5 and 4 of 6 words.
    assert rouge_l("the cat sat on mat", "the cat is on the mat") == pytest.approx(
        2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)
    )


@given(st.text(max_size=60))
def test_tokens_never_fail_and_never_are_empty(text):
    assert all(tokens(text))


@given(st.text(max_size=40), st.text(max_size=40))
def test_the_score_is_symmetric_and_bounded(one, other):
    score = rouge_l(one, other)
    assert 0 <= score <= 1
    assert score == pytest.approx(rouge_l(other, one))
