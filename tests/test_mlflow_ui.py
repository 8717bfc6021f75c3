"""The MLflow pages on a store: whom they answer, what they show, and that they end."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from orchestrator.mlflow_place import settle
from orchestrator.mlflow_ui import VIEW, default_uri, ui_command, ui_pages
from orchestrator.tracking import Tracker
from tests import report_example as example
from tests.tracking_examples import (
    client_of,
    environment_with,
    runs_of,
    say,
    something_answers,
    started_at,
    wait_until,
)
from trainables.errors import EnvironmentProblem


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Path:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    return tmp_path


def test_the_ui_answers_on_loopback_to_its_own_names_only(tmp_path: Path) -> None:
    command, environment = ui_command(tmp_path, "127.0.0.1", 5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:5001,localhost:5001"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_ui_that_is_ended_leaves_no_server(
    tmp_path: Path, mlflow_database: Path, port: int, end: signal.Signals
) -> None:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    command = [sys.executable, "-m", "orchestrator.cli", "ui", "--store", str(tmp_path), "--port", str(port)]
    ui = started_at(command, environment_with(), tmp_path / "log", port)
    ui.send_signal(end)
    assert ui.wait(30) == 0
    wait_until(lambda: not something_answers(port), 30)


def test_the_runs_page_shows_scores_in_every_language_there_is(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi")
    assert tracker.close(timeout=90)
    experiment = client_of(default_uri(store)).get_experiment_by_name("demo")
    state = json.loads(json.loads(experiment.tags[f"mlflow.sharedViewState.{VIEW}"])["state"])
    columns = {f"metrics.`if_score.{language}`" for language in example.LANGUAGES} | {"metrics.`if_avg.non_english`"}
    assert columns < set(state["selectedColumns"])
    address = f"http://127.0.0.1:5001/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={VIEW}"
    assert ui_pages(store, port=5001) == {"demo": address}


def test_a_store_that_was_moved_shows_its_artifacts_and_is_written_on(
    tmp_path: Path, mlflow_database: Path, port: int
) -> None:
    first, second, third = (tmp_path / name / "the store" for name in ("a", "b", "c"))
    first.mkdir(parents=True)
    shutil.copy(mlflow_database, first)
    page = tmp_path / "demo-report.html"
    _attach(first, page, "before")
    shutil.move(first, second)
    command = [sys.executable, "-m", "orchestrator.cli", "ui", "--store", str(second), "--port", str(port)]
    ui = started_at(command, environment_with(), tmp_path / "log", port)
    try:
        run = runs_of(f"http://127.0.0.1:{port}")["demo"].info.run_id
        with urlopen(f"http://127.0.0.1:{port}/get-artifact?path={page.name}&run_uuid={run}", timeout=30) as answer:
            assert answer.read() == b"before"
    finally:
        ui.terminate()
        ui.wait(30)
    shutil.move(second, third)
    _attach(third, page, "after")
    assert [path.read_text() for path in (third / "mlartifacts").rglob(page.name)] == ["after"]
    assert not first.exists() and not second.exists()


def _attach(store: Path, page: Path, text: str) -> None:
    """As a run does, in a process of its own: MLflow keeps in mind where runs are for as long as one lives."""
    page.write_text(text)
    code = (
        "from pathlib import Path; from orchestrator.tracking import SweepRecord, Tracker\n"
        f"tracker = Tracker(Path({str(store)!r}), 'demo')\n"
        f"tracker.sync_sweep(SweepRecord(base='tiny', judge='reference-chrf', files=[Path({str(page)!r})]))\n"
        "assert tracker.close(timeout=90)"
    )
    subprocess.run([sys.executable, "-c", code], env=environment_with(), check=True, timeout=120)


def test_a_database_that_names_artifacts_elsewhere_is_not_shown(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi")
    tracker.close("FINISHED")
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database, database:
            before = database.execute(f"SELECT rowid, {column} FROM {table} ORDER BY rowid DESC").fetchone()
            database.execute(f"UPDATE {table} SET {column} = 'file:///home/me' WHERE rowid = ?", before[:1])
        with pytest.raises(EnvironmentProblem, match="artifacts outside of the store"):
            settle(store)
        with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database, database:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (before[1], before[0]))
    settle(store)


def test_an_experiment_that_was_made_on_the_page_is_no_reason_to_refuse_it(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi")
    tracker.close("FINISHED")
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        add = "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES (?, ?, 'active')"
        database.execute(add, ("mine", "mlflow-artifacts:/7"))
    settle(store)
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database, database:
        database.execute(add, ("not mine", "mlflow-artifacts:/../7"))
    with pytest.raises(EnvironmentProblem, match="artifacts outside of the store"):
        settle(store)
