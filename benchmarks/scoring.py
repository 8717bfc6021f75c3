"""What scores, figures and page of a sweep of the paper's size take: 562 comparisons, 617 instructions, both orders.

A store is filled with made-up results of the paper's studies on the embedded corpus (`tests/page_example.py`), and
one table is written with as many verdicts. Each command then runs in a process of its own; memory is the highest
resident set the kernel saw in it. Prints the medians, one command per line, as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from benchmarks.measured import measured
from orchestrator.store import Store
from orchestrator.sweep import shipped
from tests.page_example import finished_store


def write_sweep(folder: Path, prompts: int) -> Path:
    """The paper's studies without `base`, on the embedded corpus; the path of the sweep file."""
    sweep = yaml.safe_load(shipped()["paper-tiny"].read_text(encoding="utf-8"))
    sweep["name"] = "paper-size"
    sweep["corpus"]["eval_count"] = prompts
    sweep["studies"] = [study for study in sweep["studies"] if study["study"] != "base"]
    path = folder / "paper-size.yaml"
    path.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return path


def write_verdicts(path: Path, verdicts: int) -> None:
    """One table of so many verdicts, two an instruction, one in a thousand of them without an answer."""
    draw = np.random.default_rng(0)
    names = [f"instruction-{number:06d}" for number in range(verdicts // 2)]
    choice = pd.Series(draw.integers(1, 3, verdicts), dtype="Int64").mask(draw.random(verdicts) < 0.001)
    table = pd.DataFrame({"instruction_id": np.repeat(names, 2), "order": ["ab", "ba"] * len(names), "choice": choice})
    table.to_csv(path, index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=617)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pinch-benchmark-") as name:
        folder = Path(name)
        sweep, table = str(write_sweep(folder, chosen.prompts)), folder / "verdicts.csv"
        began = time.monotonic()
        plan, store = finished_store(sweep, folder / "store")
        calls = plan.counts()["judge_calls"]
        write_verdicts(table, calls)
        print(f"made {calls:,} verdicts in {time.monotonic() - began:.0f} s", flush=True)
        commands = commands_of(sweep, store, table, folder)
        for what, arguments in commands.items():
            rounds = [measured(arguments, folder) for _ in range(chosen.rounds)]
            found = {name: statistics.median(one[name] for one in rounds) for name in ("seconds", "peak_gb")}
            print(json.dumps({"command": what, **found, "rounds": chosen.rounds}), flush=True)


def commands_of(sweep: str, store: Store, table: Path, folder: Path) -> dict[str, list[str]]:
    """What is measured: a name for people -> arguments of `pinch`."""
    here = [sweep, "--store", str(store.root)]
    everything = ["--quality", "--averages", str(folder / "a.csv"), "--differences", str(folder / "d.csv")]
    return {
        "score-verdicts": ["score-verdicts", str(table)],
        "scores": ["scores", *here, "--csv", str(folder / "s.csv")],
        "scores, quality, averages, differences": ["scores", *here, "--csv", str(folder / "s.csv"), *everything],
        "report": ["report", *here, "--out", str(folder / "report")],
    }


if __name__ == "__main__":
    main()
