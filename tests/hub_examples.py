"""Rows of the paper's public data sets in the forms they are given away in, and a sweep that needs no translation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ENGLISH = """
name: english
corpus: {source: hub, languages: [en], train_count: 7, dev_count: 2, eval_count: 3}
judge: {kind: local, model: tiny}
studies: [{study: monolingual, languages: [en]}]
"""


def lines(path: Path, rows: Iterable[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def gair(count: int = 6) -> list[Row]:
    """LIMA as GAIR gives it away; every fifth conversation has two turns more."""
    return [
        {"conversations": [f"q{at}", f"a{at}", *(["more", "most"] if at % 5 == 4 else [])], "source": "wikihow"}
        for at in range(count)
    ]


def factory(count: int = 6) -> list[Row]:
    """The same in LLaMA-Factory's form, in which the turns before the last are the history."""
    return [
        {"instruction": "more", "input": "", "output": "most", "history": [[f"q{at}", f"a{at}"]]}
        if at % 5 == 4
        else {"instruction": f"q{at}", "input": "", "output": f"a{at}", "history": []}
        for at in range(count)
    ]


def message(key: str, parent: str | None = None, **changes: Any) -> Row:
    return {
        "message_id": key,
        "parent_id": parent,
        "message_tree_id": key[0],
        "text": f"text {key}",
        "role": "prompter" if parent is None else "assistant",
        "lang": "en",
        "rank": None,
        "deleted": False,
        "review_result": True,
        "tree_state": "ready_for_export",
    } | changes


def tree(key: str, **prompt: Any) -> list[Row]:
    return [message(key, **prompt), message(f"{key}2", key, rank=1), message(f"{key}1", key, rank=0)]


def prompts(count: int = 5) -> list[Row]:
    return [
        {
            "instruction": f"do {at}",
            "output": "one model's",
            "generator": "m",
            "dataset": "oasst" if at == 2 else "koala",
        }
        for at in range(count)
    ]
