"""What one `pinch` command takes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

# `pinch`, which leaves behind what the kernel counted. (What wait4 tells of a child begins with its parent's memory.)
PINCH = """
import atexit, pathlib, resource, runpy, sys
counted = pathlib.Path(sys.argv.pop(1))
def count():
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    counted.write_text(f"{used.ru_utime + used.ru_stime} {int(peak) * 1024}")
atexit.register(count)
runpy.run_module("orchestrator.cli", run_name="__main__", alter_sys=True)
"""


def measured(arguments: list[str], folder: Path) -> dict[str, float]:
    """Wall and processor seconds, peak GB and GB of output of one `pinch` command."""
    out, counted = folder / "out", folder / "counted"
    began = time.monotonic()
    with out.open("w") as file, (folder / "log").open("w") as log:
        ended = subprocess.run(
            [sys.executable, "-c", PINCH, str(counted), *arguments], stdout=file, stderr=log, check=False
        )
    seconds = time.monotonic() - began
    if ended.returncode != 0:
        raise SystemExit(f"pinch {' '.join(arguments)} ended with {ended.returncode}:\n{(folder / 'log').read_text()}")
    processor, peak = map(float, counted.read_text().split())
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(processor, 1),
        "peak_gb": gb(peak),
        "output_gb": gb(out.stat().st_size),
    }


def gb(count: float) -> float:
    return round(count / 1e9, 2)
