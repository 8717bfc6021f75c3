"""ROUGE-L for any script: how checkpoints are selected on dev (paper section 2).

rouge-score computes it; its own tokenizer keeps only a-z and 0-9, so that Arabic, Hebrew, Hindi, Russian and Chinese
would always score 0. Here a token is a word of letters, marks and digits in any script, and a single character where
words are not separated (Han, kana, and the scripts of Thai, Lao, Khmer and Burmese).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

RESULT_VERSION = 1
"""Raised when the same texts would score differently, and so another checkpoint might be selected."""

_SEPARATE = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # Han iteration mark and zero
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def tokens(text: str) -> list[str]:
    """Case-folded words of any script, and single characters of scripts without spaces; nothing else.

    Text is normalised to NFKC, so that one spelling of a character equals another. Marks stay with the letter they
    follow (Hindi vowel signs, Hebrew points).
    """
    found: list[str] = []
    word = ""
    for character in unicodedata.normalize("NFKC", text).casefold():
        category = unicodedata.category(character)
        mark = category[0] == "M"
        if _stands_alone(character) and not mark:
            found += [word, character]
            word = ""
        elif mark and not word and found and found[-1] and _stands_alone(found[-1][0]):
            found[-1] += character
        elif category[0] in "LNM":
            word += character
        elif category != "Cf":  # invisible joiners do not separate words
            found.append(word)
            word = ""
    return [token for token in [*found, word] if token]


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L F-measure between 0 and 1 (Lin 2004), by rouge-score over :func:`tokens`; 0 if either has no token."""
    return float(_scorer().score(reference, prediction)["rougeL"].fmeasure)


def _stands_alone(character: str) -> bool:
    code = ord(character)
    return code >= 0x0E00 and any(first <= code <= last for first, last in _SEPARATE)


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@lru_cache(maxsize=1)
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Tokenizer())
