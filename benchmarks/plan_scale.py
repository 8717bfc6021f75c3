"""What a plan of ten thousand models in a hundred languages, a million cells, takes; and what its status takes.

Files of a corpus in a hundred languages and a sweep of custom mixtures over them are written, and a store in which a
part of the steps is published: each with a manifest and a small file, through `Store.publish`. Each command then runs
in a process of its own; memory is the highest resident set the kernel saw in it. Prints one JSON line per command.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from babel import Locale

from benchmarks.measured import gb, measured
from orchestrator.identity import KINDS, Step
from orchestrator.languages import ENGLISH, LANGUAGES
from orchestrator.plan import Plan
from orchestrator.run.board import Board, State
from orchestrator.store import Store
from orchestrator.sweep import load

TRAIN, DEV, EVAL = 4640, 250, 617
"""The paper's counts."""


def languages(count: int) -> list[str]:
    """The seventeen, English first, then others that CLDR names, in the order of their codes."""
    others = sorted(str(code) for code in Locale("en").languages if len(str(code)) == 2 and code not in LANGUAGES)
    return sorted([ENGLISH, *sorted(LANGUAGES.keys() - {ENGLISH}), *others][:count])


def write_sweep(folder: Path, models: int, count: int) -> Path:
    """The corpus and the sweep file, whose path is returned."""
    codes = languages(count)
    for name, rows in (("train", TRAIN), ("eval", EVAL)):
        ids = [f"{name}-{number:05d}" for number in range(rows)]
        table = {
            "id": ids * len(codes),
            "language": [code for code in codes for _ in ids],
            "instruction": [f"Say {key} in {code}." for code in codes for key in ids],
            "response": [f"{key}, said in {code}." for code in codes for key in ids],
        }
        pq.write_table(pa.table(table), folder / f"{name}.parquet", compression="zstd")
    sweep = {
        "name": "plan-scale",
        "corpus": {
            "source": "files",
            "train": str(folder / "train.parquet"),
            "eval": str(folder / "eval.parquet"),
            "languages": codes,
            "train_count": TRAIN,
            "dev_count": DEV,
            "eval_count": EVAL,
        },
        "studies": [
            {"study": "monolingual", "languages": codes},
            {"study": "custom", "mixtures": dict(mixtures(codes, models - len(codes))), "evaluate_in": codes},
        ],
    }
    path = folder / "plan-scale.yaml"
    path.write_text(yaml.safe_dump(sweep, default_flow_style=None, sort_keys=False, width=10**6), encoding="utf-8")
    return path


def mixtures(codes: list[str], count: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Made-up mixtures of 2 to 12 languages; one in ten leaves examples out."""
    draw = random.Random(0)
    for number in range(count):
        mixed = sorted(draw.sample(codes, draw.randint(2, min(12, len(codes)))))
        total = TRAIN if draw.random() < 0.9 else draw.randint(500, TRAIN)
        cuts = sorted(draw.sample(range(1, total), len(mixed) - 1))
        yield (
            f"m{number:05d}",
            dict(zip(mixed, [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)], strict=True)),
        )


def publish(plan: Plan, store: Store, share: float) -> int:
    """Publish that share of the steps, inputs first, as a run would; returns how many."""
    store.create()
    published = 0
    for step in islice(plan.steps, round(share * len(plan.steps))):
        attempt = store.attempt(step)
        (attempt / "rows.json").write_text("[]\n")
        store.publish(step, attempt, facts_of(step))
        published += 1
    return published


def board_of(plan: Plan, store: Store) -> dict[str, Any]:
    """What the driver of a run holds: every step with its state."""
    began = time.monotonic()
    board = Board(plan.steps, store, lambda *_: None)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    done = sum(counts[State.DONE] for counts in map(board.counts, KINDS))
    return {"steps": len(board.steps), "done": done, "seconds": round(time.monotonic() - began, 1), "peak_gb": gb(peak)}


def facts_of(step: Step) -> dict[str, Any]:
    return {"rows": EVAL, "seconds": 1.5, "device": "cpu", "kind": step.kind}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--languages", type=int, default=100)
    parser.add_argument("--published", type=float, default=0.02, help="share of the steps that are in the store")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pinch-benchmark-") as name:
        folder = Path(name)
        sweep = str(write_sweep(folder, chosen.models, chosen.languages))
        empty, store = ["--store", str(folder / "empty")], ["--store", str(folder / "store")]
        say("plan --json, nothing done", measured(["plan", sweep, "--json", *empty], folder))
        began, plan = time.monotonic(), Plan(load(sweep))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        say("Plan(...)", {**plan.counts(), "seconds": round(time.monotonic() - began, 1), "peak_gb": gb(peak)})
        began = time.monotonic()
        published = publish(plan, Store(folder / "store"), chosen.published)
        say("publish", {"steps": published, "of": len(plan.steps), "seconds": round(time.monotonic() - began, 1)})
        say("Board(...)", board_of(plan, Store(folder / "store")))
        del plan
        for what in ("status, nothing indexed", "status", "status again"):
            say(what, measured(["status", sweep, *store], folder))
        for file in (folder / "store" / "index").glob("*.parquet"):
            if not file.name.startswith("plan-"):
                file.unlink()
        say("status, index of results lost", measured(["status", sweep, *store], folder))
        say("plan --json", measured(["plan", sweep, "--json", *store], folder))


def say(what: str, found: dict[str, Any]) -> None:
    print(json.dumps({"what": what, **found}), flush=True)


if __name__ == "__main__":
    main()
