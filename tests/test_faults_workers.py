"""A worker that dies, hangs, runs out of memory or does not start costs its step a try, and nothing else."""

from __future__ import annotations

import json
import re
import resource
import signal
from pathlib import Path

import psutil
import pytest

from orchestrator.store import Store
from tests.conftest import Pinch
from tests.faults import Session, checkpointed, complete, digests, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
WORKER, ENGINE, JUDGE = "ray::RayTrainWorker", "ray::EngineActor", "ray::JudgeActor"


def last_checkpoints(store: Path) -> dict[str, int]:
    """Folder of a fine-tune that is under way -> the step of its last checkpoint."""
    last: dict[str, int] = {}
    for path in (store / "attempts").glob("*/checkpoint-*"):
        folder = path.parent.name.rpartition(".")[0]
        last[folder] = max(last.get(folder, 0), int(path.name.split("-")[1]))
    return last


def test_killed_workers_are_replaced_and_no_more_than_a_checkpoint_interval_is_lost(
    small: Path, begun: Path, undisturbed: Path, pinch: Pinch
) -> None:
    session = Session(small, begun)
    until(lambda: checkpointed(begun), session)
    under_way = last_checkpoints(begun)
    session.send(signal.SIGKILL, WORKER)
    under_way = {folder: step for folder, step in under_way.items() if not (begun / "fine_tune" / folder).exists()}
    session.send(signal.SIGKILL, f"{ENGINE}.generate")
    until(lambda: any((begun / "generation_set").glob("*/manifest.json")), session)
    before = digests(begun)
    session.send(signal.SIGKILL, JUDGE)
    assert session.wait() == 0, session.text()
    gone = r"the lane's workers are gone: \w+ on worker \d|worker \d lost the others"  # whoever says it first
    assert re.search(rf"({gone}).*; trying again\.", session.text()), session.text()
    assert under_way, "the worker was killed in the middle of a fine-tune"
    for folder, step in under_way.items():
        manifest = json.loads((begun / "fine_tune" / folder / "manifest.json").read_text())
        assert manifest["facts"]["resumed_at"] > step - 4, "a checkpoint every 4 steps"
    assert {path: digests(begun).get(path) for path in before} == before
    complete(begun, small, undisturbed, pinch)


def test_an_engine_that_hangs_is_ended_and_replaced(small: Path, begun: Path, undisturbed: Path, pinch: Pinch) -> None:
    session = Session(small, begun, "--set", "runtime.silence=30")
    session.send(signal.SIGSTOP, f"{ENGINE}.generate")
    until(lambda: "no word from its engine for 30 s; trying again" in session.text(), session)
    assert session.wait() == 0, session.text()
    complete(begun, small, undisturbed, pinch)


BROKEN_DEVICE = """
import os
from pathlib import Path

rename, broken = os.rename, False

def fails(source, target, **options):
    global broken
    if Path(target).parent.name == "generation_set" and not Path({flag!r}).exists():
        Path({flag!r}).touch()
        broken = True
    if broken:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return rename(source, target, **options)

os.rename = fails
"""
"""Loaded by every process of a session: in the first that publishes a response set nothing works any more."""


def test_an_engine_that_is_broken_for_good_gets_no_second_step(
    small: Path, begun: Path, undisturbed: Path, pinch: Pinch, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BROKEN_DEVICE.format(flag=str(tmp_path / "flag")))
    session = Session(small, begun, path=folder)
    assert session.wait() == 0, session.text()
    assert session.text().count("an illegal memory access was encountered; trying again with a fresh worker") == 1
    complete(begun, small, undisturbed, pinch)


def test_a_fine_tune_whose_workers_get_no_more_memory_is_tried_in_a_fresh_lane(
    small: Path, begun: Path, undisturbed: Path, pinch: Pinch
) -> None:
    session = Session(small, begun)
    until(lambda: bool(session.processes(WORKER)) and bool(list((begun / "attempts").glob("*"))), session)
    for worker in session.processes(WORKER):
        worker.rlimit(psutil.RLIMIT_AS, (worker.memory_info().vms, resource.RLIM_INFINITY))
    assert session.wait() == 0, session.text()
    assert "; trying again." in session.text()
    assert not Store(begun).failures(), "it is not the fine-tune's fault"
    complete(begun, small, undisturbed, pinch)


def test_vllm_that_does_not_start_leaves_the_fine_tunes_and_one_that_is_killed_is_replaced(
    small: Path, begun: Path, pinch: Pinch, monkeypatch: pytest.MonkeyPatch
) -> None:
    vllm = ("--set", "runtime.engine=vllm")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "nonsense")
    first = Session(small, begun, *vllm)
    assert first.wait() == 1, first.text()
    assert "its worker did not start in 3 tries" in first.text()
    assert len(list((begun / "fine_tune").glob("*/manifest.json"))) == 3, "what needs no engine is done"
    before = digests(begun)
    monkeypatch.delenv("VLLM_LOGGING_LEVEL")
    session = Session(small, begun, *vllm)
    session.send(signal.SIGKILL, f"{ENGINE}.generate")
    assert session.wait() == 0, session.text()
    assert {path: digests(begun).get(path) for path in before} == before
    complete(begun, small, None, pinch)
