"""Tracking: said twice is recorded once, what MLflow missed is caught up, and no trouble of its own stops the work."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.mlflow_ui import VIEW, default_uri, ui_command, ui_pages
from orchestrator.tracking import (
    ModelRecord,
    SweepRecord,
    Tracker,
    score_metrics,
    tracking_uri,
)
from tests import report_example as example

ROOT = Path(__file__).parents[1]
CURVE = pd.DataFrame({"step": range(1, 101), "loss": [5 - step / 40 for step in range(100)], "seconds": range(100)})
ROUGE = {50: 0.21, 100: 0.34}


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: making one takes seconds, copying it does not."""
    store = tmp_path_factory.mktemp("empty")
    _client(default_uri(store)).search_experiments()
    return store / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, database: Path) -> Path:
    shutil.copy(database, tmp_path / "mlflow.db")
    return tmp_path


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _model(name: str, **changes: Any) -> ModelRecord:
    mixture = {"fi": 1600} if name == "mono-fi" else {"en": 1560, "es": 14, "fi": 13, "ru": 13}
    fields: dict[str, Any] = {"key": example.model_key(name), "name": name, "mixture": mixture, "base": "tiny"}
    fields |= {"judge": "reference-chrf", "studies": ["pinch-4"], "recipe": {"steps": 100, "learning_rate": 2e-3}}
    return ModelRecord(**fields | {"state": "FINISHED"} | changes)


def _scores(name: str) -> pd.DataFrame:
    table = example.score_table()
    return table[table["model"] == name]


def _say(tracker: Tracker, *names: str) -> None:
    tracker.sync_sweep(SweepRecord(base="tiny", judge="reference-chrf", counts={"comparison": (36, 36)}))
    for name in names:
        tracker.sync_model(_model(name), _scores(name), CURVE, ROUGE)


def _runs(uri: str, experiment: str = "demo") -> dict[str, Any]:
    """Run name -> run, of all runs there are."""
    client = _client(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "a run was made twice"
    return {run.info.run_name: run for run in found}


def _history(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in _client(uri).get_metric_history(run.info.run_id, metric)]


def _session(store: Path, *names: str, then: str = "") -> subprocess.Popen[bytes]:
    """Another process that says the same."""
    code = (
        "import sys; from pathlib import Path; from orchestrator.tracking import Tracker\n"
        "from tests import test_tracking as t\n"
        f"tracker = Tracker(Path({str(store)!r}), 'demo', retry_after=0.1)\n"
        f"t._say(tracker, *{names!r}); assert tracker.close(timeout=90)\n{then}"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=_environment())


def _wait(until: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_a_sweep_is_one_parent_run_with_a_child_for_each_model(store: Path) -> None:
    tracker = Tracker(store, "demo")
    _say(tracker, "mono-fi", "pinch-4-n40")
    assert tracker.close(timeout=90)
    runs = _runs(default_uri(store))
    assert set(runs) == {"demo", "mono-fi", "pinch-4-n40"}
    parent = runs["demo"].info.run_id
    assert runs["mono-fi"].data.tags["mlflow.parentRunId"] == parent
    assert runs["demo"].data.metrics == {"comparison.done": 36, "comparison.total": 36}
    child = runs["mono-fi"].data
    assert child.params["mixture"] == "fi:1600"
    assert child.params["recipe.learning_rate"] == "0.002"
    assert child.metrics["if_score.fi"] == 50
    assert child.metrics["ci_low.en"] < child.metrics["if_score.en"] < child.metrics["ci_high.en"]
    assert "ci_low.fi" not in child.metrics
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert _history(default_uri(store), runs["mono-fi"], "dev_rouge_l") == [(50, 0.21), (100, 0.34)]
    assert len(_history(default_uri(store), runs["mono-fi"], "loss")) == 100


def test_two_trackers_one_after_the_other_write_to_the_same_runs_and_double_nothing(store: Path) -> None:
    first = Tracker(store, "demo")
    _say(first, "mono-fi")
    first.close("KILLED")
    before = _runs(default_uri(store))
    assert before["demo"].info.status == "KILLED"
    second = Tracker(store, "demo")
    _say(second, "mono-fi", "pinch-4-n40")
    assert second.close(timeout=90)
    after = _runs(default_uri(store))
    assert {name: after[name].info.run_id for name in before} == {name: run.info.run_id for name, run in before.items()}
    assert after["demo"].info.status == "FINISHED"
    for metric, points in {"loss": 100, "dev_rouge_l": 2, "if_score.en": 1, "if_avg.all": 1}.items():
        assert len(_history(default_uri(store), after["mono-fi"], metric)) == points


def test_saying_what_is_on_record_does_not_even_import_mlflow(store: Path) -> None:
    tracker = Tracker(store, "demo")
    _say(tracker, "mono-fi")
    tracker.close()
    assert _session(store, "mono-fi", then="assert 'mlflow' not in sys.modules").wait(100) == 0


def test_a_lost_ledger_is_made_again_from_the_runs_tags(store: Path) -> None:
    first = Tracker(store, "demo")
    _say(first, "mono-fi")
    first.close()
    (store / "tracking" / "demo.json").write_text("{ half a ledg")
    second = Tracker(store, "demo")
    _say(second, "mono-fi")
    assert second.close(timeout=90)
    runs = _runs(default_uri(store))
    assert len(_history(default_uri(store), runs["mono-fi"], "loss")) == 100
    assert len(_history(default_uri(store), runs["mono-fi"], "if_score.en")) == 1


def test_an_emptied_database_is_filled_again(store: Path, database: Path) -> None:
    first = Tracker(store, "demo")
    _say(first, "mono-fi")
    first.close()
    shutil.copy(database, store / "mlflow.db")
    second = Tracker(store, "demo")
    _say(second, "pinch-4-n40", "mono-fi")
    assert second.close(timeout=90)
    runs = _runs(default_uri(store))
    assert set(runs) == {"demo", "mono-fi", "pinch-4-n40"}
    assert len(_history(default_uri(store), runs["mono-fi"], "loss")) == 100


def test_a_deleted_database_is_made_and_filled_again(store: Path) -> None:
    first = Tracker(store, "demo")
    _say(first, "mono-fi")
    first.close()
    (store / "mlflow.db").unlink()
    _session(store, "mono-fi").wait(100)  # in another process: MLflow keeps a database open for as long as one lives
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (2,)


def test_a_curve_that_grows_is_sent_on_from_where_it_was(store: Path) -> None:
    tracker = Tracker(store, "demo")
    for steps in (30, 60, 100):
        tracker.sync_model(_model("mono-fi", state="RUNNING"), None, CURVE[:steps])
        _wait(lambda: not tracker._queue)
    assert tracker.close("KILLED", timeout=90)
    run = _runs(default_uri(store))["mono-fi"]
    assert run.info.status == "KILLED"
    assert [step for step, _ in _history(default_uri(store), run, "loss")] == list(range(1, 101))


def test_a_score_that_changed_is_the_latest_one(store: Path) -> None:
    scores = _scores("mono-fi")
    for shift in (0, 3):
        tracker = Tracker(store, "demo")
        tracker.sync_model(_model("mono-fi"), scores.assign(if_score=scores["if_score"] + shift))
        assert tracker.close(timeout=90)
        time.sleep(0.01)
    run = _runs(default_uri(store))["mono-fi"]
    assert run.data.metrics["if_score.fi"] == 53
    assert len(_history(default_uri(store), run, "if_score.fi")) == 2


def test_another_judges_scores_are_another_run(store: Path) -> None:
    tracker = Tracker(store, "demo")
    tracker.sync_model(_model("mono-fi"), _scores("mono-fi"))
    other = dataclasses.replace(_model("mono-fi"), name="mono-fi, smollm2", judge="local-smollm2")
    tracker.sync_model(other, _scores("mono-fi"))
    assert tracker.close(timeout=90)
    assert {"mono-fi", "mono-fi, smollm2"} < set(_runs(default_uri(store)))


def test_a_deleted_run_is_made_again(store: Path) -> None:
    tracker = Tracker(store, "demo")
    _say(tracker, "mono-fi")
    tracker.close()
    gone = _runs(default_uri(store))["mono-fi"].info.run_id
    _client(default_uri(store)).delete_run(gone)
    again = Tracker(store, "demo")
    again.sync_model(_model("mono-fi", studies=["pinch-4", "pairs"]), _scores("mono-fi"), CURVE)
    assert again.close(timeout=90)
    run = _runs(default_uri(store))["mono-fi"]
    assert run.info.run_id != gone
    assert run.data.tags["pinch.studies"] == "pinch-4, pairs"
    assert len(_history(default_uri(store), run, "loss")) == 100


def test_a_report_is_attached_to_the_parent_and_again_when_it_changes(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "demo-report.html"
    tracker = Tracker(store, "demo")
    for text in ("half", "whole"):
        page.write_text(text)
        tracker.sync_sweep(SweepRecord(base="tiny", judge="reference-chrf", description=text, files=[page]))
        _wait(lambda: not tracker._queue)
    assert tracker.close(timeout=90)
    parent = _runs(default_uri(store))["demo"]
    assert parent.data.tags["mlflow.note.content"] == "whole"
    kept = list((store / "mlartifacts").rglob("demo-report.html"))
    assert [path.read_text() for path in kept] == ["whole"]


# Trouble


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **more}


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command, environment = ui_command(folder, "127.0.0.1", port)
    return _started(command, _environment(**environment), folder / "server.log", port)


def _started(command: list[str], environment: dict[str, str], log: Path, port: int) -> subprocess.Popen[bytes]:
    """A process that answers at a port."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        return _answers(port)

    _wait(answers, 60)
    return server


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def server(tmp_path: Path, database: Path, port: int) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(database, folder / "mlflow.db")

    def start() -> subprocess.Popen[bytes]:
        started.append(_serve(folder, port))
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
        _say(lost, "mono-fi")
        time.sleep(1)
        assert not lost.close("KILLED", timeout=10)
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "does not answer as it should" in text]) == 1
    assert "2 runs are behind" in messages[-1]

    server()  # a later session, that begins before the server has recovered
    found = Tracker(store, "demo", retry_after=0.1)
    _say(found, "mono-fi", "pinch-4-n40")
    assert found.close(timeout=90)
    runs = _runs(uri)
    assert set(runs) == {"demo", "mono-fi", "pinch-4-n40"}
    assert len(_history(uri, runs["mono-fi"], "loss")) == 100
    assert not (store / "mlflow.db").exists()


def test_a_server_that_never_answers_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        began = time.monotonic()
        tracker = Tracker(tmp_path, "demo", uri=f"http://127.0.0.1:{silent.getsockname()[1]}")
        _say(tracker, "mono-fi")
        assert time.monotonic() - began < 1
        assert not tracker.close(timeout=0.5)
        assert time.monotonic() - began < 3


def test_mlflow_that_recovers_is_told_without_a_new_session(store: Path) -> None:
    whole = (store / "mlflow.db").read_bytes()
    (store / "mlflow.db").write_bytes(b"not a database, but long enough to be one" * 100)
    tracker = Tracker(store, "demo", retry_after=0.1)
    _say(tracker, "mono-fi")
    _wait(lambda: tracker._warned)
    (store / "mlflow.db").write_bytes(whole)
    _wait(lambda: not tracker._queue)
    assert tracker.close(timeout=90)
    assert set(_runs(default_uri(store))) == {"demo", "mono-fi"}


def test_a_run_that_cannot_be_written_does_not_hold_up_the_others(store: Path) -> None:
    tracker = Tracker(store, "demo", retry_after=0.1)
    tracker.sync_model(_model("mono-fi", recipe={"no such ? name": 1}))
    tracker.sync_model(_model("pinch-4-n40"), _scores("pinch-4-n40"))
    assert not tracker.close()
    assert _runs(default_uri(store))["pinch-4-n40"].data.metrics["if_score.en"] > 0


def test_two_sessions_at_once_make_every_run_once(store: Path) -> None:
    names = ["mono-fi", "pinch-4-n40", "pinch-4-p10", "mono-es"]
    sessions = [_session(store, *names) for _ in range(2)]
    assert [session.wait(100) for session in sessions] == [0, 0]
    runs = _runs(default_uri(store))
    assert set(runs) == {"demo", *names}
    for name in names:
        assert len(_history(default_uri(store), runs[name], "loss")) == 100
        assert len(_history(default_uri(store), runs[name], "if_score.en")) == 1


# What is recorded


def test_an_average_is_recorded_only_when_it_is_complete() -> None:
    rows = _scores("pinch-4-n40").copy()
    rows.loc[rows["eval_language"] == "ru", "if_score"] = None
    metrics = score_metrics(rows)
    assert "if_score.ru" not in metrics
    assert not [name for name in metrics if name.startswith("if_avg")]


def test_seen_and_unseen_are_those_of_the_pinch_study_and_leave_english_out() -> None:
    table = example.score_table()
    rows = table[table["model"] == "mono-en"]
    metrics = score_metrics(rows, ["monolingual", "pinch-4"])
    others = rows[(rows["study"] == "pinch-4") & (rows["eval_language"] != "en")]["if_score"].mean()
    assert metrics["if_avg.seen"] == pytest.approx(others, abs=1e-3)
    assert metrics["if_avg.non_english"] == pytest.approx(others, abs=1e-3)
    assert "if_avg.unseen" not in metrics
    alone = score_metrics(rows[rows["study"] == "monolingual"], ["monolingual"])
    assert "if_avg.seen" not in alone
    assert alone["if_avg.unseen"] == pytest.approx(others, abs=1e-3)


def test_a_password_in_the_address_is_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(tmp_path, "demo", uri="http://me:secret@127.0.0.1:1/x")
    _say(tracker, "mono-fi")
    _wait(lambda: tracker._warned)
    tracker.close(timeout=5)
    assert "does not answer" in caplog.text
    assert "secret" not in caplog.text
    assert tracker._runs.place == "http://127.0.0.1:1/x"


def test_the_default_database_lies_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking_uri(tmp_path) == "http://tracker:5000"


def test_the_ui_answers_on_loopback_to_its_own_names_only(tmp_path: Path) -> None:
    command, environment = ui_command(tmp_path, "127.0.0.1", 5001)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "127.0.0.1:5001,localhost:5001"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_ui_that_is_ended_leaves_no_server(tmp_path: Path, database: Path, port: int, end: signal.Signals) -> None:
    shutil.copy(database, tmp_path / "mlflow.db")
    command = [sys.executable, "-m", "orchestrator.cli", "ui", "--store", str(tmp_path), "--port", str(port)]
    ui = _started(command, _environment(), tmp_path / "log", port)
    ui.send_signal(end)
    assert ui.wait(30) == 0
    _wait(lambda: not _answers(port), 30)


def test_the_runs_page_shows_scores_in_every_language_there_is(store: Path) -> None:
    tracker = Tracker(store, "demo")
    _say(tracker, "mono-fi")
    assert tracker.close(timeout=90)
    experiment = _client(default_uri(store)).get_experiment_by_name("demo")
    state = json.loads(json.loads(experiment.tags[f"mlflow.sharedViewState.{VIEW}"])["state"])
    columns = {f"metrics.`if_score.{language}`" for language in example.LANGUAGES} | {"metrics.`if_avg.non_english`"}
    assert columns < set(state["selectedColumns"])
    address = f"http://127.0.0.1:5001/#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={VIEW}"
    assert ui_pages(store, port=5001) == {"demo": address}


def test_the_ledger_is_json_that_names_its_runs(store: Path) -> None:
    tracker = Tracker(store, "demo")
    _say(tracker, "mono-fi")
    tracker.close()
    ledger = json.loads((store / "tracking" / "demo.json").read_text())
    runs = ledger["destinations"]["store"]["runs"]
    assert {runs[""]["run_id"], runs[f"{example.model_key('mono-fi')}@reference-chrf"]["run_id"]} == {
        run.info.run_id for run in _runs(default_uri(store)).values()
    }
