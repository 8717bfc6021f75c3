"""What `benchmarks/chaos.py` does to a sweep: sessions as real processes, the faults there are, and when they come.

Faults are caused, not imitated: processes are killed or stopped, bytes are flipped. Whatever is drawn is drawn from
the round's own random numbers; how far a session had come by then is the machine's affair.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.witness import Witness

ROOT = Path(__file__).parent.parent
MARK = "PINCH_CHAOS"
"""A variable in the environment of every process of a round, by which those that outlive their driver are found."""
HANGS_AFTER = 600.0
"""Seconds without an end, or without coming to the moment a fault waits for, after which a session hangs."""
PHASES = {
    "start": (frozenset({""}), 12.0),
    "fine-tune": (frozenset({"fine_tune"}), 3.0),
    "generation": (frozenset({"selection", "generation_set"}), 0.5),
    "judging": (frozenset({"comparison"}), 0.02),
    "publishing": (frozenset({""}), 0.0),
}
"""In the order they come: the kinds of step that a session is at then, and how many seconds of delay are drawn from."""


class Hung(Exception):
    """A session that did not end."""


def pinch(sweep: Path, store: Path, command: str, *arguments: str) -> list[str]:
    """The command line of ``pinch``."""
    return [sys.executable, "-m", "orchestrator.cli", command, str(sweep), "--store", str(store), *arguments]


def environment(mark: str, scratch: Path) -> dict[str, str]:
    """Of a command of a round; what Ray and others put down for a while goes to ``scratch``."""
    return {
        **os.environ,
        MARK: mark,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch),
        "RAY_TMPDIR": str(scratch),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # 60 s otherwise, and nothing happens in them
        "COLUMNS": "200",
        "HF_HUB_OFFLINE": "1",
    }


def marked(mark: str) -> Iterator[psutil.Process]:
    """Every process that lives and was started, by whomever, under a mark."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK, "").startswith(mark) and process.status() != psutil.STATUS_ZOMBIE:
                yield process


def kill_all(mark: str) -> None:
    """SIGKILL everything under a mark, as a power cut would, and see it gone."""
    while family := list(marked(mark)):
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        time.sleep(0.05)  # not `psutil.wait_procs`: it would reap the driver, and nobody would know how that ended


class Session:
    """`pinch run` as a process of its own, with everything it starts."""

    def __init__(self, sweep: Path, store: Path, mark: str, scratch: Path, settings: list[str]) -> None:
        self.id, self.store = uuid.uuid4().hex, store
        self.mark = f"{mark}/{self.id}"
        self.log = store.parent / f"session-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            self.driver = psutil.Popen(
                pinch(sweep, store, "run", "--session", self.id, *settings),
                cwd=store.parent,
                env=environment(self.mark, scratch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # a shell that runs a command in the background has it ignore this, and what it starts too
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.began = time.monotonic()
        self.unharmed = True
        """Whether nothing was done to it."""

    @property
    def running(self) -> bool:
        return self.driver.poll() is None

    def wait(self) -> int:
        """Its exit status.

        Raises:
            Hung: it does not end.
        """
        try:
            return self.driver.wait(max(1.0, self.began + HANGS_AFTER - time.monotonic()))
        except psutil.TimeoutExpired:
            raise Hung(f"{self.log.name} had not ended after {HANGS_AFTER:.0f} s") from None

    def processes(self, is_one: Callable[[str], bool]) -> list[psutil.Process]:
        """Those whose title says so; Ray's workers say what they are at (``ray::EngineActor.generate``)."""
        found = []
        for process in marked(self.mark):
            with contextlib.suppress(psutil.NoSuchProcess):
                if is_one(title(process)):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def is_at(self, kinds: dict[str, str]) -> set[str]:
        """The kinds of step that it holds leases of; ``kinds``: of each step, by the first 16 digits of its key."""
        held = set()
        for path in (self.store / "leases").glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):
                if path.read_text() == self.id:
                    held.add(kinds.get(path.name, ""))
        return held


def title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


@dataclasses.dataclass
class Scene:
    """Where a fault happens: the round's sessions, its store and its random numbers."""

    rng: random.Random
    store: Path
    witness: Witness
    start: Callable[[], Session]
    """Starts another session."""
    sessions: list[Session] = dataclasses.field(default_factory=list)

    def running(self) -> list[Session]:
        return [session for session in self.sessions if session.running]


def _kill_driver(scene: Scene, session: Session) -> str:
    session.driver.kill()
    return ""


def _kill_everything(scene: Scene, session: Session) -> str:
    kill_all(session.mark)
    return ""


def _interrupt(scene: Scene, session: Session) -> str:
    session.driver.send_signal(signal.SIGINT)
    return ""


def _kill_one(is_one: Callable[[str], bool]) -> Callable[[Scene, Session], str | None]:
    """A fault that kills one process by its title, where there is one."""

    def kill(scene: Scene, session: Session) -> str | None:
        there = session.processes(is_one)
        if not there:
            return None
        chosen = scene.rng.choice(there)
        with contextlib.suppress(psutil.NoSuchProcess):
            what = title(chosen).partition(" ")[0].rpartition("/")[2]
            chosen.kill()
            return what
        return None

    return kill


def _is_worker(title: str) -> bool:
    return title.startswith(("ray::RayTrainWorker", "ray::EngineActor", "ray::JudgeActor"))


def _stop_driver(scene: Scene, session: Session) -> str:
    """Past the death of its leases; another session begins meanwhile."""
    session.driver.suspend()
    other, seconds = scene.start(), scene.rng.uniform(35, 50)
    with contextlib.suppress(psutil.TimeoutExpired):
        other.driver.wait(seconds)
    session.driver.resume()
    return f"{time.monotonic() - other.began:.0f} s"


def _kill_one_of_two(scene: Scene, session: Session) -> str:
    other, seconds = scene.start(), scene.rng.uniform(3, 20)
    with contextlib.suppress(psutil.TimeoutExpired):
        session.driver.wait(seconds)
    killed = scene.rng.choice([session, other])
    kill_all(killed.mark)
    killed.unharmed = False
    return f"{seconds:.0f} s later"


def _flip(scene: Scene, session: Session) -> str | None:
    results = [path.parent for kind in Witness.KINDS for path in sorted((scene.store / kind).glob("*/manifest.json"))]
    if not results:
        return None
    folder = scene.rng.choice(results)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    path = scene.rng.choice([path for path in files if path.stat().st_size])
    scene.witness.spoil(folder)
    with path.open("r+b") as file:
        at = scene.rng.randrange(path.stat().st_size)
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << scene.rng.randrange(8)]))
    return str(path.relative_to(scene.store))


def _truncate(scene: Scene, session: Session) -> str | None:
    """As a power cut leaves a file whose last pages were not on the disk yet."""
    kill_all(session.mark)
    left = sorted(path for path in (scene.store / "attempts").rglob("*") if path.is_file() and path.stat().st_size)
    if not left:
        return None
    path = scene.rng.choice(left)
    os.truncate(path, scene.rng.randrange(path.stat().st_size))
    return str(path.relative_to(scene.store / "attempts"))


FAULTS: dict[str, Callable[[Scene, Session], str | None]] = {
    "driver killed": _kill_driver,
    "driver and all it started killed": _kill_everything,
    "worker killed": _kill_one(_is_worker),
    "other Ray process killed": _kill_one(lambda title: title.startswith("ray::") and not _is_worker(title)),
    "raylet killed": _kill_one(lambda title: title.split(" ", 1)[0].endswith("/raylet")),
    "GCS server killed": _kill_one(lambda title: title.split(" ", 1)[0].endswith("/gcs_server")),
    "driver stopped past its leases": _stop_driver,
    "one of two sessions killed": _kill_one_of_two,
    "byte of a result flipped": _flip,
    "all killed, file of an attempt truncated": _truncate,
    "interrupted": _interrupt,
}
"""Each does it, and says to what; None where there was nothing to do it to."""
ENDS_IT = {"driver killed", "driver and all it started killed", "raylet killed", "GCS server killed", "interrupted"} | {
    "all killed, file of an attempt truncated"
}
"""What a session need not go on after, by itself."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A fault that is to come."""

    kind: str
    phase: str
    delay: float

    def strike(self, scene: Scene, kinds: dict[str, str]) -> str | None:
        """Wait for its moment and cause it, in a session of its own if none is running; what was done to what.

        None when the moment did not come: nothing of that phase was left to do.

        Raises:
            Hung: a session neither came to it nor ended.
        """
        wanted, _ = PHASES[self.phase]
        published = scene.witness.count
        started = 0
        session: Session | None = None
        while True:
            if session is None or not session.running:
                if session is not None and session.driver.returncode == 0:
                    return None
                if started == 2:
                    return None
                running = scene.running()
                session = scene.rng.choice(running) if running else scene.start()
                started += not running
            if time.monotonic() - session.began > HANGS_AFTER:
                raise Hung(f"{session.log.name} had not come to {self.phase} after {HANGS_AFTER:.0f} s")
            if self.phase == "start" or (self.phase == "publishing" and scene.witness.count > published):
                break
            if self.phase != "publishing" and session.is_at(kinds) & wanted:
                break
            time.sleep(0.002)
        time.sleep(self.delay)
        if not session.running:
            return None
        done = FAULTS[self.kind](scene, session)
        if self.kind in ENDS_IT:
            session.unharmed = False
        return done


def draw(rng: random.Random) -> list[Planned]:
    """One to three faults of a round, in the order of their phases."""
    planned = []
    for _ in range(rng.randint(1, 3)):
        kind = rng.choice(list(FAULTS))
        phase = "fine-tune" if "truncated" in kind else rng.choice(list(PHASES))
        planned.append(Planned(kind, phase, rng.uniform(0, PHASES[phase][1])))
    return sorted(planned, key=lambda fault: list(PHASES).index(fault.phase))
