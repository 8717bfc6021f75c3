"""The responses a page carries: every judged cell's samples in one block of JSON, which the page's script shows.

All of it is somebody else's text. Here it is made printable (what would steer a terminal or turn a line around is shown
instead of obeyed) and safe to stand inside a ``script`` element: no ``<``, ``>`` or ``&`` and no line separator is left
as it is, so nothing in it can end the element or begin a comment. The script puts it into the page as text only.

Hundreds of cells share their instructions and their baseline's responses, so each text is written once. Where it would
still be too much, long texts are cut, all at the same length, and say so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.languages import any_language
from orchestrator.report.views import Sample, language_name
from orchestrator.saying import visible
from trainables.errors import UserError

CellKey = tuple[str, str, str]
"""Model, baseline and evaluation language, as the score table names them."""

LONGEST = (4_000, 2_000, 1_000, 500, 250)
"""Characters of a text that are shown, the first with which everything fits."""
BUDGET = 6_000_000
"""Bytes that all texts together may have."""

_RIGHT_TO_LEFT = ("Arabic", "Hebrew", "Thaana", "Syriac", "N’Ko", "Adlam", "Hanifi")  # scripts
_UNSAFE = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def place_samples(samples: Sequence[Sample]) -> dict[CellKey, int]:
    """Each cell's place among the cells that have samples; a model's other names lead to the same place."""
    own = dict.fromkeys((sample.model, sample.baseline, sample.language) for sample in samples)
    places = {key: place for place, key in enumerate(own)}
    for sample in samples:
        place = places[sample.model, sample.baseline, sample.language]
        for name in sample.also:
            places.setdefault((name, sample.baseline, sample.language), place)
    return places


def pack(samples: Sequence[Sample], facts: Mapping[CellKey, Sequence[str]]) -> str:
    """The samples as JSON that may stand in a ``script`` element.

    ``{"texts": [...], "languages": {code: [name, direction]}, "cells": [[model, baseline, language, facts, samples]]}``
    in the order of :func:`place_samples`; a sample is ``[id, instruction, reference, baseline's response, model's
    response, outcome, verdict, verdict]``, all but the id as places in ``texts``, -1 where there is none.

    Args:
        facts: what is said of a cell's score, a line each.
    """
    longest = next((limit for limit in LONGEST if _size(samples, limit) <= BUDGET), LONGEST[-1])
    texts: dict[str, int] = {}

    def place(text: str | None) -> int:
        return -1 if text is None else texts.setdefault(_cut(visible(text), longest), len(texts))

    cells: dict[CellKey, list[Any]] = {}
    for sample in samples:
        key = (sample.model, sample.baseline, sample.language)
        said = (sample.instruction, sample.reference, sample.baseline_response, sample.model_response)
        packed = [visible(sample.instruction_id), *map(place, (*said, *judged(sample.choices)))]
        cells.setdefault(key, [*map(visible, key), list(map(visible, facts.get(key, ()))), []])[-1].append(packed)
    block = {
        "texts": list(texts),
        "languages": {
            visible(code): [visible(language_name(code)), direction(code)] for code in {key[2]: None for key in cells}
        },
        "cells": list(cells.values()),
    }
    return embedded(block)


def embedded(block: object) -> str:
    """JSON that may stand in a ``script`` element, whatever the texts in it are."""
    text = json.dumps(block, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029]", lambda match: _UNSAFE[match.group()], text)


def judged(choices: Mapping[str, int | None]) -> tuple[str, str, str]:
    """The outcome (win, loss, tie, invalid, not judged yet) and a sentence for each order."""
    preferred = {order: _preferred(order, choices) for order in ("ab", "ba")}
    words = {
        "baseline": "preferred the baseline",
        "model": "preferred the model",
        "invalid": "gave no answer that can be read",
        "missing": "was not asked yet",
    }
    both = set(preferred.values())
    if "missing" in both:
        outcome = "not judged yet"
    elif "invalid" in both:
        outcome = "invalid"
    elif len(both) == 2:
        outcome = "tie"
    else:
        outcome = "win" if both == {"model"} else "loss"
    return (
        outcome,
        f"Baseline shown first: the judge {words[preferred['ab']]}.",
        f"Model shown first: the judge {words[preferred['ba']]}.",
    )


def direction(code: str) -> str:
    """``rtl`` for the languages whose script is written from right to left, else ``ltr``."""
    try:
        return "rtl" if any_language(code).script in _RIGHT_TO_LEFT else "ltr"
    except UserError:
        return "ltr"


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest:,} more characters are in the store)"


def _size(samples: Sequence[Sample], longest: int) -> int:
    texts = {
        text
        for sample in samples
        for text in (sample.instruction, sample.reference, sample.baseline_response, sample.model_response)
        if text
    }
    return sum(len(text[:longest].encode("utf-8", "replace")) for text in texts)


def _preferred(order: str, choices: Mapping[str, int | None]) -> str:
    if order not in choices:
        return "missing"
    choice = choices[order]
    if choice is None:
        return "invalid"
    return "baseline" if (choice == 1) == (order == "ab") else "model"
