"""The MLflow pages on a store: whom they answer, what they show, and that they end."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from orchestrator.mlflow_ui import VIEW, default_uri, ui_command, ui_pages
from orchestrator.tracking import Tracker
from tests import report_example as example
from tests.tracking_examples import (
    client_of,
    environment_with,
    say,
    something_answers,
    started_at,
    wait_until,
)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


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
