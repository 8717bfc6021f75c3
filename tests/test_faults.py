"""Nothing lost: sessions are killed at named points, run side by side, or meet spoiled results, with real processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


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
            # a shell that runs the tests in the background has them ignore it, and what they start too
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the base and the corpora only, so that each test does not build them again."""
    folder = tmp_path_factory.mktemp("base")
    path = folder / "small.yaml"
    path.write_text(SMALL)
    session = Session(path, folder / "store")
    until(lambda: bool(list((folder / "store" / "base").glob("tiny-*"))), session)
    until(lambda: len(list((folder / "store" / "corpus").glob("cldr-*"))) == 2, session)
    session.process.send_signal(signal.SIGINT)
    session.wait()
    return folder / "store"


@pytest.fixture
def store(tmp_path: Path, base: Path) -> Path:
    for kind in ("base", "corpus"):
        subprocess.run(["cp", "-r", "--parents", kind, str(tmp_path)], cwd=base, check=True)
    (tmp_path / "store").mkdir()
    for kind in ("base", "corpus"):
        (tmp_path / kind).rename(tmp_path / "store" / kind)
    return tmp_path / "store"


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


def leased(store: Path, sweep: Path, kind: str) -> Callable[[], bool]:
    """Whether a session works on a step of this kind right now."""
    keys = {step.key[:16] for step in Plan(load(str(sweep))).of_kind(kind)}
    return lambda: any((store / "leases" / key).exists() for key in keys)


def complete(store: Path, sweep: Path, pinch: Pinch) -> None:
    """The sweep is finished and whole."""
    assert json.loads(pinch("status", sweep, "--store", store, "--json").stdout)["steps"] == []
    rows = pinch("scores", sweep, "--store", store).stdout.strip().splitlines()
    header, *cells = [row.split(",") for row in rows]
    assert all(cell[header.index("if_score")] for cell in cells)
    assert "0 did not" in pinch("verify", "--store", store).stderr


SLOW_PUBLISHING = """
import os, time
from pathlib import Path

rename = os.rename

def slowly(source, target, **options):
    if Path(target).parent.name == "fine_tune":
        Path({flag!r}).touch()
        time.sleep(20)
    return rename(source, target, **options)

os.rename = slowly
"""
"""Loaded by every process of a session: whoever publishes a fine-tune holds its breath before the last step."""


POINTS = {
    "building the base": "base",
    "a fine-tune": "fine_tune",
    "generation": "generation_set",
    "judging": "comparison",
    "publishing": "",
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_session_is_gone_on_with_and_nothing_published_is_made_again(
    point: str, sweep: Path, tmp_path: Path, pinch: Pinch, request: pytest.FixtureRequest
) -> None:
    store = tmp_path / "store" if point == "building the base" else request.getfixturevalue("store")
    kind, flag, slow = POINTS[point], tmp_path / "publishing", tmp_path / "slow"
    if not kind:
        slow.mkdir()
        (slow / "sitecustomize.py").write_text(SLOW_PUBLISHING.format(flag=str(flag)))
    session = Session(sweep, store, path=None if kind else slow)
    until(leased(store, sweep, kind) if kind else flag.exists, session)
    if kind == "fine_tune":
        until(lambda: any((store / "attempts").glob("*/checkpoint-*")), session)
    session.kill()
    before = digests(store)
    if not kind:
        assert not list((store / "fine_tune").glob("*")), "what was about to be published is not half there"
    again = Session(sweep, store)
    assert again.wait() == 0, again.text()
    after = digests(store)
    assert {path: after.get(path) for path in before} == before
    complete(store, sweep, pinch)


def test_two_sessions_share_the_work_and_make_nothing_twice(sweep: Path, store: Path, pinch: Pinch) -> None:
    first, second = Session(sweep, store), Session(sweep, store)
    assert first.wait() == 0, first.text()
    assert second.wait() == 0, second.text()
    complete(store, sweep, pinch)
    makers: dict[str, int] = {}
    for path in store.glob("*/*/manifest.json"):
        manifest = json.loads(path.read_text())
        if manifest["kind"] not in ("base", "corpus"):
            makers[manifest["made"]["session"]] = makers.get(manifest["made"]["session"], 0) + 1
    assert len(makers) == 2, f"one session did everything: {makers}"
    assert "quarantine" not in [path.name for path in store.iterdir()]
    made = sum(_made(session.text()) for session in (first, second))
    assert made == sum(makers.values()), "a step was made by both"


def _made(log: str) -> int:
    """How many steps a session says it made."""
    line = next(line for line in log.splitlines() if line.startswith("small: "))
    counts = line.removeprefix("small: ").split(", in ")[0]
    kinds = ("fine_tune", "selection", "generation_set", "comparison")
    return sum(int(part.split()[0]) for part in counts.split(", ") if part.split()[-1] in kinds)


def test_ctrl_c_ends_within_ten_seconds_and_says_how_to_go_on(sweep: Path, store: Path) -> None:
    session = Session(sweep, store)
    until(leased(store, sweep, "fine_tune"), session)
    until(lambda: any((store / "attempts").glob("*/checkpoint-*")), session)
    began = time.monotonic()
    session.process.send_signal(signal.SIGINT)
    assert session.wait(30) == 130
    assert time.monotonic() - began < 10
    assert f"go on with: pinch run {sweep} --store {store}" in session.text()
    assert not list((store / "leases").iterdir())


def test_an_interrupted_fine_tune_continues_from_its_last_state(tmp_path: Path, store: Path) -> None:
    sweep = tmp_path / "long.yaml"
    sweep.write_text(SMALL.replace("steps: 8", "steps: 400").replace("checkpoint_every: 4", "checkpoint_every: 40"))
    session = Session(sweep, store)
    until(lambda: any((store / "attempts").glob("*/state-*/state.json")), session)
    session.kill()
    states = [path.parent.name for path in (store / "attempts").glob("*/state-*/state.json")]
    again = Session(sweep, store)
    until(lambda: any((store / "fine_tune").glob("*/manifest.json")), again)
    manifest = json.loads(next((store / "fine_tune").glob("*/manifest.json")).read_text())
    again.kill()
    assert manifest["facts"]["resumed_at"] == max(int(state.split("-")[1]) for state in states)
    assert not list((store / "fine_tune").glob("*/state-*"))


def test_a_spoiled_checkpoint_is_quarantined_and_made_again(sweep: Path, store: Path, pinch: Pinch) -> None:
    first = Session(sweep, store)
    until(lambda: any((store / "fine_tune").glob("*/manifest.json")), first)
    first.kill()
    weights = next((store / "fine_tune").glob("*/checkpoint-*/model.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    for kind in ("selection", "generation_set", "comparison"):
        subprocess.run(["rm", "-rf", str(store / kind)], check=True)
    again = Session(sweep, store)
    assert again.wait() == 0, again.text()
    assert any((store / "quarantine").glob("fine_tune-*/reason.txt"))
    complete(store, sweep, pinch)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("this process may not mount a small file system to fill")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_leaves_no_half_result_and_the_run_goes_on_with_more_room(
    sweep: Path, base: Path, full_disk: Path, pinch: Pinch
) -> None:
    store = full_disk / "store"
    store.mkdir()
    for kind in ("base", "corpus"):
        subprocess.run(["cp", "-r", str(base / kind), str(store)], check=True)
    ballast = full_disk / "ballast"
    done = pinch("run", sweep, "--store", store, check=3)
    assert "are free" in done.stderr, "a run that will not fit is refused"
    subprocess.run(["mount", "-o", "remount,size=300m", str(full_disk)], check=True)
    session = Session(sweep, store)
    filled = False
    while session.process.poll() is None:
        if not filled and any((store / "attempts").glob("*/examples.parquet")):
            with ballast.open("wb") as file:
                try:
                    while True:
                        file.write(bytes(64 * 1024))
                        file.flush()
                except OSError:
                    filled = True
        time.sleep(0.05)
    assert filled
    assert session.wait() in (1, 3), session.text()
    opened = Store(store)
    for kind in ("fine_tune", "selection", "generation_set", "comparison"):
        for folder in (store / kind).iterdir() if (store / kind).is_dir() else ():
            assert (folder / "manifest.json").exists(), f"{folder} is half published"
    assert all(problem is None for _, problem in opened.verify())
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=900m", str(full_disk)], check=True)
    again = Session(sweep, store)
    assert again.wait() == 0, again.text()
    complete(store, sweep, pinch)
