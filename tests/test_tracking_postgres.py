"""Tracking on a team's server: `mlflow server` on PostgreSQL, real ones, started here on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.mlflow_runs import STORE_ID
from orchestrator.tracking import Tracker
from tests.object_servers import free_port, serving
from tests.tracking_examples import environment_with, history_of, other_session, runs_of, say

pytestmark = pytest.mark.slow


class Postgres:
    """A PostgreSQL of our own. It refuses to run as root, so root runs it as ``nobody``."""

    def __init__(self, binaries: Path) -> None:
        self._binaries, self._user = binaries, {"user": "nobody"} if os.getuid() == 0 else {}
        self.folder = Path(tempfile.mkdtemp(prefix="pinch-pg-", dir="/tmp"))  # its socket's path must be short
        self.port = free_port()
        if self._user:
            shutil.chown(self.folder, "nobody")
        self._run("initdb", "-D", "data", "-U", "mlflow", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8")
        self.start()
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", "mlflow")
        self.uri = f"postgresql://mlflow@127.0.0.1:{self.port}/mlflow"

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        """As if the machine went down."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")

    def _run(self, name: str, *arguments: str) -> None:
        command: list[Any] = [self._binaries / name, *arguments]
        with (self.folder / "said").open("a") as said:
            subprocess.run(command, cwd=self.folder, check=True, stdout=said, stderr=said, timeout=120, **self._user)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = found[-1] if found else shutil.which("initdb")
    if not named:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    made = Postgres(Path(named).parent)
    yield made
    made.stop()
    shutil.rmtree(made.folder)


@pytest.fixture(scope="module")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an `mlflow server` on it."""
    port, artifacts = free_port(), tmp_path_factory.mktemp("artifacts")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", postgres.uri, "--workers", "1"]
    command += ["--artifacts-destination", str(artifacts), "--host", "127.0.0.1", "--port", str(port)]
    environment = environment_with(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with serving(command, f"http://127.0.0.1:{port}/health", environment, patience=180) as url:
        yield url.removesuffix("/health")


@pytest.fixture(autouse=True)
def _there(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def test_sessions_and_machines_of_one_store_write_to_the_same_runs(server: str, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    sessions = [other_session(here, "mono-fi", "pinch-4-n40") for _ in range(2)]
    assert [session.wait(180) for session in sessions] == [0, 0]
    (elsewhere / STORE_ID).parent.mkdir(parents=True)
    (elsewhere / STORE_ID).write_text((here / STORE_ID).read_text())
    assert other_session(elsewhere, "mono-fi", "mono-en").wait(180) == 0
    runs = runs_of(server)
    assert set(runs) == {"demo", "mono-fi", "mono-en", "pinch-4-n40"}
    assert len(history_of(server, runs["mono-fi"], "loss")) == 100
    assert runs["mono-en"].data.tags["mlflow.parentRunId"] == runs["demo"].info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_what_was_missed_while_the_database_was_down_is_there_once_it_is_back(
    postgres: Postgres, server: str, tmp_path: Path
) -> None:
    tracker = Tracker(tmp_path / "store", "outage", retry_after=0.2)
    say(tracker, "mono-fi")
    deadline = time.monotonic() + 60
    while not _made(server, "outage"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    postgres.stop()
    say(tracker, "mono-fi", "pinch-4-n40")
    time.sleep(3)
    postgres.start()
    assert tracker.close(timeout=120)
    runs = runs_of(server, "outage")
    assert set(runs) == {"outage", "mono-fi", "pinch-4-n40"}
    assert {len(history_of(server, runs[name], "loss")) for name in ("mono-fi", "pinch-4-n40")} == {100}


def _made(server: str, experiment: str) -> bool:
    from mlflow.tracking import MlflowClient

    found = MlflowClient(tracking_uri=server).get_experiment_by_name(experiment)
    return found is not None and "mono-fi" in runs_of(server, experiment)
