"""How tests do damage to a run, and how they see that nothing was lost by it.

A session is `pinch run` as a process of its own. Faults are caused, not imitated: processes are killed or stopped,
disks fill, servers go away.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow.parquet as pq

from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import load

if TYPE_CHECKING:
    from tests.conftest import Pinch

ROOT = Path(__file__).parent.parent
KINDS = ("base", "corpus", "fine_tune", "selection", "generation_set", "comparison")


class Session:
    """`pinch run`, or another command, as a process of its own, with everything it started."""

    def __init__(
        self,
        sweep: Path,
        store: Path | str,
        *arguments: str,
        path: Path | None = None,
        command: str = "run",
        folder: Path | None = None,
    ) -> None:
        """Args:
        folder: where it runs and logs; by default beside the store.
        """
        folder = folder or Path(store).parent
        self.log = folder / f"session-{time.monotonic_ns()}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli", command, str(sweep), "--store", str(store), *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT)))), "COLUMNS": "200"},
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def kill(self) -> None:
        """SIGKILL the driver and every process it started, as a power cut would."""
        family = psutil.Process(self.process.pid)
        everybody = [*family.children(recursive=True), family]
        for member in everybody:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(30)
        psutil.wait_procs(everybody, timeout=30)

    def wait(self, timeout: float = 600) -> int:
        return self.process.wait(timeout)

    def text(self) -> str:
        return self.log.read_text()

    def processes(self, title: str) -> list[psutil.Process]:
        """What it started that calls itself so; Ray's workers say what they are at (``ray::EngineActor.generate``)."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def send(self, number: signal.Signals, title: str, timeout: float = 300) -> None:
        """Wait for a process that calls itself so, and send it a signal."""
        until(lambda: bool(self.processes(title)), self, timeout)
        self.processes(title)[0].send_signal(number)


def until(condition: Callable[[], bool], session: Session, timeout: float = 300) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert session.process.poll() is None, f"the session ended first:\n{session.text()}"
        assert time.monotonic() < deadline, session.text()
        time.sleep(0.002)


def digests(store: Path) -> dict[str, str]:
    """Every file of every published result, with its content."""
    found = {}
    for kind in ("base", "corpus", "fine_tune", "selection", "generation_set", "comparison"):
        for path in sorted((store / kind).rglob("*")) if (store / kind).is_dir() else ():
            if path.is_file() and (path.parent / "manifest.json").exists():
                found[str(path.relative_to(store))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def spoil(path: Path) -> None:
    """Flip a bit of a file, as a bad disk does."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def leased(store: Path, sweep: Path, kind: str) -> Callable[[], bool]:
    """Whether a session works on a step of this kind right now."""
    keys = {step.key[:16] for step in Plan(load(str(sweep))).of_kind(kind)}
    return lambda: any((store / "leases" / key).exists() for key in keys)


def checkpointed(store: Path) -> bool:
    """Whether a fine-tune that is under way has saved something."""
    return any((store / "attempts").glob("*/checkpoint-*"))


def complete(store: Path, sweep: Path, undisturbed: Path | None, pinch: Pinch) -> None:
    """The sweep is finished and whole, every verdict is there once, and the scores are an undisturbed run's.

    Args:
        undisturbed: the store of one with the same engine, or None where there is none.
    """
    assert json.loads(pinch("status", sweep, "--store", store, "--json").stdout)["steps"] == []
    found = scores(store, sweep, pinch)
    assert undisturbed is None or found == scores(undisturbed, sweep, pinch)
    assert "0 did not" in pinch("verify", "--store", store).stderr
    for step in Plan(load(str(sweep))).of_kind("comparison"):
        rows = pq.read_table(store / "comparison" / step.folder / "verdicts.parquet").to_pylist()
        asked = {(row["instruction_id"], row["order"]) for row in rows}
        assert len(rows) == len(asked) == 2 * len({instruction for instruction, _ in asked}) == 12
    assert not Store(store).sessions.holders(), "nobody works on anything any more"


def scores(store: Path, sweep: Path, pinch: Pinch) -> list[str]:
    """A row for each cell of the grid."""
    rows = pinch("scores", sweep, "--store", store).stdout.strip().splitlines()
    header, *cells = [row.split(",") for row in rows]
    assert all(cell[header.index("if_score")] for cell in cells)
    return rows
