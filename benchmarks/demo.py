"""What the demo takes: from nothing, a second time, and between two fine-tunes of its lane.

Every round runs in a store of its own. Memory is the proportional set size (PSS) of the driver and all processes it
started, sampled twice a second, so that shared pages count once. Prints one line per round and the medians as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

PINCH = [sys.executable, "-m", "orchestrator.cli"]


def memory(process: psutil.Process) -> int:
    """Bytes of PSS of a process and everything below it."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def run(arguments: list[str], log: Path) -> tuple[float, int]:
    """Wall seconds and peak bytes of one command."""
    began = time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([*PINCH, *arguments], stdout=out, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, memory(psutil.Process(process.pid)))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
    if process.returncode != 0:
        raise SystemExit(f"pinch {' '.join(arguments)} ended with {process.returncode}:\n{log.read_text()}")
    return time.monotonic() - began, peak


def one_round(folder: Path) -> dict[str, float]:
    """One demo from nothing, one again, one plan of the paper."""
    store, log = folder / "store", folder / "log"
    first, peak = run(["run", "demo", "--store", str(store)], log)
    starts = log.read_text().count("Engine ready")
    second, _ = run(["run", "demo", "--store", str(store)], folder / "log2")
    plan, _ = run(["plan", "paper", "--json", "--store", str(store)], folder / "log3")
    facts: list[dict[str, Any]] = [
        json.loads(path.read_text())["facts"] for path in store.glob("fine_tune/*/manifest.json")
    ]
    gaps = [
        fact["seconds_since_last_job"] + fact["seconds_before_first_step"]
        for fact in facts
        if fact.get("seconds_since_last_job") is not None
    ]
    base = json.loads(next(store.glob("base/*/manifest.json")).read_text())["facts"]["seconds"]
    return {
        "run_seconds": first,
        "peak_gb": peak / 1e9,
        "again_seconds": second,
        "plan_paper_seconds": plan,
        "base_seconds": base,
        "fine_tune_seconds": statistics.median(fact["seconds"] for fact in facts),
        "between_fine_tunes_seconds": statistics.median(gaps),
        "between_fine_tunes_longest": max(gaps),
        "engine_starts": starts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    results = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="pinch-benchmark-") as folder:
            results.append(one_round(Path(folder)))
        print(f"round {number + 1}: {json.dumps({name: round(value, 2) for name, value in results[-1].items()})}")
    medians = {name: round(statistics.median(result[name] for result in results), 2) for name in results[0]}
    print(f"medians of {rounds}: {json.dumps(medians)}")


if __name__ == "__main__":
    main()
