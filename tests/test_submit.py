"""`pinch submit`: what travels, what is refused, and what follows from a heartbeat and a job's status."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from ray.job_submission import JobStatus
from rich.console import Console

from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.submit.bundle import FILE_SETTINGS, bundle, named_files
from orchestrator.submit.conclusion import Known, Patience, conclude
from orchestrator.submit.following import Following
from orchestrator.submit.head import Head, Job
from orchestrator.sweep import CldrSource, FilesSource, HubSource, Sweep, load
from tests.conftest import Pinch
from tests.ray_head import ROOT
from tests.submit_examples import files_sweep
from trainables.errors import UserError
from trainables.judges.specs import LocalJudge, RemoteJudge
from trainables.recipe import Recipe
from trainables.translators.specs import GoogleTranslator, LocalTranslator, OpenAITranslator

_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# What travels


def test_a_sweep_means_the_same_where_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(str(files_sweep(tmp_path)), ["recipe.steps=6"])
    digest = Plan(loaded).digest
    with bundle(loaded.sweep) as travels:
        assert not travels.left
        assert (travels.folder / "data" / "train.jsonl").is_file(), "a relative path keeps its place"
        assert (travels.folder / "files" / "recipe.template" / "mine.txt").is_file()
        monkeypatch.chdir(travels.folder)
        for folder in ("data", "elsewhere"):
            (tmp_path / folder).rename(tmp_path / f"{folder}-away")
        arrived = load(travels.sweep)
        assert arrived.sweep.recipe.steps == 6
        assert Plan(arrived).digest == digest


def test_what_is_too_large_stays_and_is_named_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(str(files_sweep(tmp_path)))
    with bundle(loaded.sweep, limit=1000) as travels:
        assert {file.name for file in travels.left} == {"corpus.train", "corpus.eval"}
        assert load(str(travels.folder / travels.sweep)).sweep.corpus.train == str(tmp_path / "data" / "train.jsonl")
        assert "corpus.train" in travels.sentence()
        assert "every node" in travels.sentence()
        assert [path.name for path in travels.folder.rglob("*.jsonl")] == []


@pytest.mark.parametrize("name", ["demo", "paper", "gemma-trial", "paper-tiny"])
def test_a_shipped_sweep_names_no_files(name: str) -> None:
    assert list(named_files(load(name).sweep)) == []


def test_every_setting_that_may_name_a_file_is_known_to_travel() -> None:
    """By what the specs say of themselves: a new field for a path fails here until it is in the list."""
    specs = {
        "": Sweep,
        "recipe": Recipe,
        "corpus": FilesSource,
        "corpus ": HubSource,
        "corpus  ": CldrSource,
        "judge": LocalJudge,
        "judge ": RemoteJudge,
        "corpus.translator": OpenAITranslator,
        "corpus.translator ": LocalTranslator,
        "corpus.translator  ": GoogleTranslator,
    }
    told = {
        f"{where.strip()}.{name}".strip(".")
        for where, spec in specs.items()
        for name, field in spec.model_fields.items()
        if re.search(r"\b(path|folder|file|JSONL|the same)\b", field.description or "")
    }
    assert told | {"base"} == FILE_SETTINGS


# What is refused


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "auto", "127.0.0.1:8265", "http://me:secret@head:8265"])
def test_an_address_that_is_no_dashboards_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:8265"):
        Head(address)


def test_a_head_that_does_not_answer_ends_the_command_at_once(small: Path, pinch: Pinch) -> None:
    done = pinch("submit", small, "--address", "http://127.0.0.1:9", check=3)
    assert "ray dashboard" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_that_is_suggested_repeats_the_overrides(small: Path, tmp_path: Path) -> None:
    class Left(Head):
        """Somebody presses Ctrl-C while it is asked."""

        def running(self, about: Mapping[str, str]) -> str | None:
            raise KeyboardInterrupt

    said = io.StringIO()
    loaded = load(str(small), ["recipe.steps=6"])
    following = Following(loaded, str(tmp_path / "store"), Left("http://127.0.0.1:1"), Console(file=said, width=400))
    assert following.run() == 130
    assert f"pinch submit {small} --set recipe.steps=6 --address http://127.0.0.1:1 --store" in said.getvalue()


def test_a_cluster_that_would_do_something_else_refuses(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    done = pinch("run", small, "--store", tmp_path / "store", "--expect", "0" * 16, check=2)
    assert "another plan" in done.stderr
    assert not (tmp_path / "store").exists()


# Whose heart beats


def test_a_session_in_a_container_beside_us_is_not_dead_because_its_pid_is_not_ours(tmp_path: Path) -> None:
    beating = "import sys, time; from orchestrator.store import Store; store = Store(sys.argv[1], 'contained'); "
    beating += "store.create(); store.sessions.start('in a container'); time.sleep(60)"
    unshare = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this process may not have a process namespace of its own")
    contained = subprocess.Popen([*unshare, sys.executable, "-c", beating, str(tmp_path)], env=_ENVIRONMENT)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "sessions" / "contained.json").exists():
            assert contained.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        store = Store(tmp_path)
        assert json.loads((tmp_path / "sessions" / "contained.json").read_text())["pid"] < 10, (
            "a pid of its own namespace"
        )
        assert store.sessions.alive("contained")
    finally:
        contained.kill()
        contained.wait()


PATIENCE = Patience()
RUNNING, FAILED, SUCCEEDED = (Job(JobStatus[name], None, "") for name in ("RUNNING", "FAILED", "SUCCEEDED"))
LONG = 10_000.0
CASES = {
    "running, and silent for a moment": (RUNNING, True, 1.0, 500.0, 5, None),
    "running, and silent": (RUNNING, True, LONG, LONG, 5, "silent"),
    "running, everything made, drawing its report": (RUNNING, True, PATIENCE.silent_for + 1, LONG, 0, None),
    "running, everything made, and stuck": (RUNNING, True, LONG, LONG, 0, "not ending"),
    "running, not begun yet": (RUNNING, False, 100.0, 100.0, 5, None),
    "running, never begun": (RUNNING, False, LONG, LONG, 5, "not begun"),
    "forgotten by Ray": (None, True, 0.0, 100.0, 5, "forgotten"),
    "failed": (FAILED, True, 0.0, 100.0, 5, "ended"),
    "succeeded": (SUCCEEDED, True, 0.0, 100.0, 0, "ended"),
    "succeeded, results not seen yet": (SUCCEEDED, True, 1.0, 100.0, 5, None),
    "succeeded, results missing": (SUCCEEDED, True, LONG, LONG, 5, "ended"),
}


@pytest.mark.parametrize("case", CASES)
def test_without_a_heartbeat_rays_word_counts_for_what_it_is_worth(case: str) -> None:
    job, seen, quiet, age, missing, how = CASES[case]
    end = conclude(Known(job=job, seen=seen, quiet=quiet, age=age, missing=missing), PATIENCE)
    assert (end.how if end else None) == how
