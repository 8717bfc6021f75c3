"""Small real material for tests that train: statements, parallel-looking examples, a tiny base made from them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables import base_models, tiny_base
from trainables.batches import template_source
from trainables.job import FineTuneJob
from trainables.parallel import Parallel
from trainables.recipe import Recipe

TOWNS = ("Helsinki", "Tampere", "Turku", "Oulu", "Lahti", "Espoo", "Vaasa", "Kotka")
TOWNS_RU = ("Москва", "Казань", "Самара", "Омск", "Тверь", "Сочи", "Пермь", "Уфа")


def write_statements(path: Path, count: int = 600) -> Path:
    """A parquet of (language, text) with a few hundred different sentences."""
    draw = random.Random(0)
    rows = []
    for _ in range(count // 2):
        one, two = draw.sample(TOWNS, 2)
        rows.append({"language": "en", "text": f"The road from {one} to {two} is {draw.randint(2, 900)} km long."})
        one, two = draw.sample(TOWNS_RU, 2)
        rows.append({"language": "ru", "text": f"Дорога из города {one} в город {two}: {draw.randint(2, 900)} км."})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_examples(path: Path, count: int = 64) -> Path:
    """A parquet of (id, language, instruction, response), of different lengths, sorted by id."""
    draw = random.Random(1)
    rows = []
    for number in range(count):
        towns = draw.sample(TOWNS, draw.randint(1, 4))
        rows.append(
            {
                "id": f"x-{number:04d}",
                "language": "en",
                "instruction": f"Write these names as a list: {' / '.join(towns)}",
                "response": f"The list is: {', '.join(towns)}.",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def make_tiny(folder: Path, monkeypatch: pytest.MonkeyPatch, steps: int = 20) -> Path:
    """A base ``tiny``, trained for a few steps only; returns its folder."""
    small = {
        "vocabulary": 400,
        "hidden": 64,
        "feed_forward": 128,
        "layers": 2,
        "heads": 2,
        "steps": steps,
        "rows": 8,
        "warmup": 5,
    }
    for name, value in small.items():
        monkeypatch.setitem(tiny_base.RECIPE, name, value)
    statements = write_statements(folder / "statements.parquet")
    base = folder / "tiny"
    base_models.prepare(base_models.parse_base("tiny"), base, statements, lambda fraction, sentence: None)
    return base


def job(folder: Path, base: Path, name: str, recipe: dict[str, Any] | None = None, **changes: Any) -> FineTuneJob:
    """A short fine-tune of ``base`` on ``folder``/examples.parquet; ``parallel`` may be given as a dict."""
    settings: dict[str, Any] = {
        "steps": 6,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint_every": 3,
        "max_input_tokens": 128,
        "max_target_tokens": 64,
    }
    parallel = {"threads": 1, **changes.pop("parallel", {})}
    return FineTuneJob(
        name=name,
        base=base,
        examples=folder / "examples.parquet",
        recipe=Recipe(**(settings | (recipe or {}))),
        seed=0,
        template=template_source("plain"),
        out=folder / name,
        parallel=Parallel(**parallel),
        **changes,
    )
