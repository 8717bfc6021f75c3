"""Nothing lost: sessions are killed at named points, run side by side, or meet spoiled results, with real processes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store
from tests.conftest import SMALL, Pinch
from tests.faults import Session, checkpointed, complete, digests, leased, spoil, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


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


def test_a_session_killed_at_one_point_after_the_other_is_gone_on_with_and_nothing_published_is_made_again(
    small: Path, tmp_path: Path, undisturbed: Path, pinch: Pinch
) -> None:
    store, flag, slow = tmp_path / "store", tmp_path / "publishing", tmp_path / "slow"
    slow.mkdir()
    (slow / "sitecustomize.py").write_text(SLOW_PUBLISHING.format(flag=str(flag)))
    points = {
        "building the base": leased(store, small, "base"),
        "a fine-tune": lambda: checkpointed(store),
        "publishing": flag.exists,
        "generation": leased(store, small, "generation_set"),
        "judging": leased(store, small, "comparison"),
    }
    before: dict[str, str] = {}
    for point, reached in points.items():
        session = Session(small, store, path=slow if point == "publishing" else None)
        until(reached, session)
        session.kill()
        there = digests(store)
        assert {path: there.get(path) for path in before} == before, point
        before = there
        if point == "publishing":
            assert not list((store / "fine_tune").glob("*")), "what was about to be published is not half there"
    again = Session(small, store)
    assert again.wait() == 0, again.text()
    assert {path: digests(store).get(path) for path in before} == before
    complete(store, small, undisturbed, pinch)


def test_ctrl_c_ends_within_ten_seconds_and_says_how_to_go_on(small: Path, begun: Path) -> None:
    session = Session(small, begun)
    until(leased(begun, small, "fine_tune"), session)
    until(lambda: checkpointed(begun), session)
    began = time.monotonic()
    session.process.send_signal(signal.SIGINT)
    assert session.wait(30) == 130
    assert time.monotonic() - began < 10
    assert f"go on with: pinch run {small} --store {begun}" in session.text()
    assert not list((begun / "leases").iterdir())


def test_an_interrupted_fine_tune_continues_from_its_last_state(tmp_path: Path, begun: Path) -> None:
    sweep = tmp_path / "long.yaml"
    sweep.write_text(SMALL.replace("steps: 8", "steps: 400").replace("checkpoint_every: 4", "checkpoint_every: 40"))
    session = Session(sweep, begun)
    until(lambda: any((begun / "attempts").glob("*/state-*/state.json")), session)
    session.kill()
    states = [path.parent.name for path in (begun / "attempts").glob("*/state-*/state.json")]
    again = Session(sweep, begun)
    until(lambda: any((begun / "fine_tune").glob("*/manifest.json")), again)
    manifest = json.loads(next((begun / "fine_tune").glob("*/manifest.json")).read_text())
    again.kill()
    assert manifest["facts"]["resumed_at"] == max(int(state.split("-")[1]) for state in states)
    assert not list((begun / "fine_tune").glob("*/state-*"))


def test_a_spoiled_checkpoint_and_a_spoiled_corpus_are_quarantined_and_made_again(
    small: Path, begun: Path, undisturbed: Path, pinch: Pinch
) -> None:
    first = Session(small, begun)
    until(lambda: any((begun / "fine_tune").glob("*/manifest.json")), first)
    first.kill()
    spoil(next((begun / "fine_tune").glob("*/checkpoint-*/model.safetensors")))
    spoil(next((begun / "corpus").glob("cldr-en-*/train.parquet")))
    for kind in ("selection", "generation_set", "comparison"):
        subprocess.run(["rm", "-rf", str(begun / kind)], check=True)
    again = Session(small, begun)
    assert again.wait() == 0, again.text()
    for kind in ("fine_tune", "corpus"):
        assert any((begun / "quarantine").glob(f"{kind}-*/reason.txt"))
    complete(begun, small, undisturbed, pinch)


def test_a_result_that_is_spoiled_when_everything_was_done_is_made_again(
    small: Path, undisturbed: Path, tmp_path: Path, pinch: Pinch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    spoil(next((store / "selection").glob("*/scores.json")))
    again = Session(small, store)
    assert again.wait() == 0, again.text()
    assert "scores.json does not have the content its manifest names: quarantined; making it again" in again.text()
    complete(store, small, undisturbed, pinch)


def test_a_base_that_is_spoiled_when_an_engine_loads_it_is_made_again(
    small: Path, undisturbed: Path, tmp_path: Path, pinch: Pinch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(undisturbed, store)
    for kind in ("generation_set", "comparison"):
        shutil.rmtree(store / kind)
    spoil(next((store / "base").glob("*/model.safetensors")))
    again = Session(small, store)
    assert again.wait() == 0, again.text()
    assert "model.safetensors does not have the content its manifest names: quarantined; making it" in again.text()
    complete(store, small, undisturbed, pinch)


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
    small: Path, undisturbed: Path, full_disk: Path, pinch: Pinch
) -> None:
    store = full_disk / "store"
    store.mkdir()
    for kind in ("base", "corpus"):
        shutil.copytree(undisturbed / kind, store / kind)
    ballast = full_disk / "ballast"
    done = pinch("run", small, "--store", store, check=3)
    assert "are free" in done.stderr, "a run that will not fit is refused"
    subprocess.run(["mount", "-o", "remount,size=300m", str(full_disk)], check=True)
    session = Session(small, store)
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
    again = Session(small, store)
    assert again.wait() == 0, again.text()
    complete(store, small, undisturbed, pinch)
