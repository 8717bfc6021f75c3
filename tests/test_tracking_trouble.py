"""Tracking that goes wrong: no trouble of its own stops the work, and what MLflow missed is caught up."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.mlflow_ui import default_uri, ui_command
from orchestrator.tracking import Tracker
from tests.tracking_examples import (
    environment_with,
    history_of,
    model_record,
    other_session,
    runs_of,
    say,
    scores_of,
    started_at,
    wait_until,
)


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Path:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def server(tmp_path: Path, mlflow_database: Path, port: int) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(mlflow_database, folder / "mlflow.db")

    def start() -> subprocess.Popen[bytes]:
        command, environment = ui_command(folder, "127.0.0.1", port)
        started.append(started_at(command, environment_with(**environment), folder / "server.log", port))
        return started[0]

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_what_an_unreachable_server_missed_is_there_once_it_answers(
    tmp_path: Path,
    port: int,
    server: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = tmp_path / "store"
    lost = Tracker(store, "demo", retry_after=0.1)
    with caplog.at_level(logging.WARNING, "orchestrator.tracking"):
        say(lost, "mono-fi")
        time.sleep(1)
        assert not lost.close("KILLED", timeout=10)
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "does not answer as it should" in text]) == 1
    assert "2 runs are behind" in messages[-1]

    server()  # a later session, that begins before the server has recovered
    found = Tracker(store, "demo", retry_after=0.1)
    say(found, "mono-fi", "pinch-4-n40")
    assert found.close(timeout=90)
    runs = runs_of(uri)
    assert set(runs) == {"demo", "mono-fi", "pinch-4-n40"}
    assert len(history_of(uri, runs["mono-fi"], "loss")) == 100
    assert not (store / "mlflow.db").exists()


def test_a_server_that_never_answers_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        began = time.monotonic()
        tracker = Tracker(tmp_path, "demo", uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        say(tracker, "mono-fi")
        assert time.monotonic() - began < 1
        assert not tracker.close(timeout=0.5)
        assert time.monotonic() - began < 3


def test_mlflow_that_recovers_is_told_without_a_new_session(store: Path) -> None:
    whole = (store / "mlflow.db").read_bytes()
    (store / "mlflow.db").write_bytes(b"not a database, but long enough to be one" * 100)
    tracker = Tracker(store, "demo", retry_after=0.1)
    say(tracker, "mono-fi")
    wait_until(lambda: tracker._warned)
    (store / "mlflow.db").write_bytes(whole)
    wait_until(lambda: not tracker._queue)
    assert tracker.close(timeout=90)
    assert set(runs_of(default_uri(store))) == {"demo", "mono-fi"}


def test_a_run_that_cannot_be_written_does_not_hold_up_the_others(store: Path) -> None:
    tracker = Tracker(store, "demo", retry_after=0.1)
    tracker.sync_model(model_record("mono-fi", recipe={"no such ? name": 1}))
    tracker.sync_model(model_record("pinch-4-n40"), scores_of("pinch-4-n40"))
    assert not tracker.close()
    assert runs_of(default_uri(store))["pinch-4-n40"].data.metrics["if_score.en"] > 0


def test_a_password_in_the_address_is_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(tmp_path, "demo", uri="http://me:secret@127.0.0.1:1/x")
    say(tracker, "mono-fi")
    wait_until(lambda: tracker._warned)
    tracker.close(timeout=5)
    assert "does not answer" in caplog.text
    assert "secret" not in caplog.text
    assert tracker._runs.place == "http://127.0.0.1:1/x"


def test_an_emptied_database_is_filled_again(store: Path, mlflow_database: Path) -> None:
    first = Tracker(store, "demo")
    say(first, "mono-fi")
    first.close()
    shutil.copy(mlflow_database, store / "mlflow.db")
    second = Tracker(store, "demo")
    say(second, "pinch-4-n40", "mono-fi")
    assert second.close(timeout=90)
    runs = runs_of(default_uri(store))
    assert set(runs) == {"demo", "mono-fi", "pinch-4-n40"}
    assert len(history_of(default_uri(store), runs["mono-fi"], "loss")) == 100


def test_a_deleted_database_is_made_and_filled_again(store: Path) -> None:
    first = Tracker(store, "demo")
    say(first, "mono-fi")
    first.close()
    (store / "mlflow.db").unlink()
    other_session(store, "mono-fi").wait(
        100
    )  # in another process: MLflow keeps a database open for as long as one lives
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (2,)


def test_a_lost_ledger_is_made_again_from_the_runs_tags(store: Path) -> None:
    first = Tracker(store, "demo")
    say(first, "mono-fi")
    first.close()
    (store / "tracking" / "demo.json").write_text("{ half a ledg")
    second = Tracker(store, "demo")
    say(second, "mono-fi")
    assert second.close(timeout=90)
    runs = runs_of(default_uri(store))
    assert len(history_of(default_uri(store), runs["mono-fi"], "loss")) == 100
    assert len(history_of(default_uri(store), runs["mono-fi"], "if_score.en")) == 1
