"""A sweep that names files of one's own, for tests that submit it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.conftest import SMALL


def files_sweep(folder: Path) -> Path:
    """Write its corpus, its template and itself into a folder; returns the sweep file."""
    rows = [
        {"id": f"x-{n}", "language": code, "instruction": f"{code} {n}?", "response": f"{code} {n}."}
        for n in range(20)
        for code in ("en", "fi")
    ]
    (folder / "data").mkdir()
    for name in ("train", "eval"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / f"{name}.jsonl").write_text(text)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "mine.txt").write_text("Q: {instruction}\nA:")
    corpus = {
        "source": "files",
        "languages": ["en", "fi"],
        "train": "data/train.jsonl",
        "eval": "data/eval.jsonl",
        "train_count": 16,
        "dev_count": 4,
        "eval_count": 4,
    }
    plain = yaml.safe_load(SMALL)
    plain["corpus"] = corpus
    plain["recipe"]["template"] = str(folder / "elsewhere" / "mine.txt")
    plain["studies"] = [{"study": "monolingual", "languages": ["en", "fi"]}]
    sweep = folder / "mine.yaml"
    sweep.write_text(yaml.safe_dump(plain))
    return sweep
