"""Tracking: said twice is recorded once, in one run for the sweep and one for each model."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest

from orchestrator.mlflow_ui import default_uri
from orchestrator.tracking import SweepRecord, Tracker, score_metrics, tracking_uri
from tests import report_example as example
from tests.tracking_examples import (
    CURVE,
    client_of,
    history_of,
    model_record,
    other_session,
    runs_of,
    say,
    scores_of,
    wait_until,
)


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Path:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    return tmp_path


def test_a_sweep_is_one_parent_run_with_a_child_for_each_model(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi", "pinch-4-n40")
    assert tracker.close(timeout=90)
    runs = runs_of(default_uri(store))
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
    assert history_of(default_uri(store), runs["mono-fi"], "dev_rouge_l") == [(50, 0.21), (100, 0.34)]
    assert len(history_of(default_uri(store), runs["mono-fi"], "loss")) == 100


def test_two_trackers_one_after_the_other_write_to_the_same_runs_and_double_nothing(store: Path) -> None:
    first = Tracker(store, "demo")
    say(first, "mono-fi")
    first.close("KILLED")
    before = runs_of(default_uri(store))
    assert before["demo"].info.status == "KILLED"
    second = Tracker(store, "demo")
    say(second, "mono-fi", "pinch-4-n40")
    assert second.close(timeout=90)
    after = runs_of(default_uri(store))
    assert {name: after[name].info.run_id for name in before} == {name: run.info.run_id for name, run in before.items()}
    assert after["demo"].info.status == "FINISHED"
    for metric, points in {"loss": 100, "dev_rouge_l": 2, "if_score.en": 1, "if_avg.all": 1}.items():
        assert len(history_of(default_uri(store), after["mono-fi"], metric)) == points


def test_saying_what_is_on_record_does_not_even_import_mlflow(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi")
    tracker.close()
    assert other_session(store, "mono-fi", then="assert 'mlflow' not in sys.modules").wait(100) == 0


def test_a_curve_that_grows_is_sent_on_from_where_it_was(store: Path) -> None:
    tracker = Tracker(store, "demo")
    for steps in (30, 60, 100):
        tracker.sync_model(model_record("mono-fi", state="RUNNING"), None, CURVE[:steps])
        wait_until(lambda: not tracker._queue)
    assert tracker.close("KILLED", timeout=90)
    run = runs_of(default_uri(store))["mono-fi"]
    assert run.info.status == "KILLED"
    assert [step for step, _ in history_of(default_uri(store), run, "loss")] == list(range(1, 101))


def test_a_score_that_changed_is_the_latest_one(store: Path) -> None:
    scores = scores_of("mono-fi")
    for shift in (0, 3):
        tracker = Tracker(store, "demo")
        tracker.sync_model(model_record("mono-fi"), scores.assign(if_score=scores["if_score"] + shift))
        assert tracker.close(timeout=90)
        time.sleep(0.01)
    run = runs_of(default_uri(store))["mono-fi"]
    assert run.data.metrics["if_score.fi"] == 53
    assert len(history_of(default_uri(store), run, "if_score.fi")) == 2


def test_another_judges_scores_are_another_run(store: Path) -> None:
    tracker = Tracker(store, "demo")
    tracker.sync_model(model_record("mono-fi"), scores_of("mono-fi"))
    other = dataclasses.replace(model_record("mono-fi"), name="mono-fi, smollm2", judge="local-smollm2")
    tracker.sync_model(other, scores_of("mono-fi"))
    assert tracker.close(timeout=90)
    assert {"mono-fi", "mono-fi, smollm2"} < set(runs_of(default_uri(store)))


def test_a_deleted_run_is_made_again(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi")
    tracker.close()
    gone = runs_of(default_uri(store))["mono-fi"].info.run_id
    client_of(default_uri(store)).delete_run(gone)
    again = Tracker(store, "demo")
    again.sync_model(model_record("mono-fi", studies=["pinch-4", "pairs"]), scores_of("mono-fi"), CURVE)
    assert again.close(timeout=90)
    run = runs_of(default_uri(store))["mono-fi"]
    assert run.info.run_id != gone
    assert run.data.tags["pinch.studies"] == "pinch-4, pairs"
    assert len(history_of(default_uri(store), run, "loss")) == 100


def test_a_report_is_attached_to_the_parent_and_again_when_it_changes(store: Path, tmp_path: Path) -> None:
    page = tmp_path / "demo-report.html"
    tracker = Tracker(store, "demo")
    for text in ("half", "whole"):
        page.write_text(text)
        tracker.sync_sweep(SweepRecord(base="tiny", judge="reference-chrf", description=text, files=[page]))
        wait_until(lambda: not tracker._queue)
    assert tracker.close(timeout=90)
    parent = runs_of(default_uri(store))["demo"]
    assert parent.data.tags["mlflow.note.content"] == "whole"
    kept = list((store / "mlartifacts").rglob("demo-report.html"))
    assert [path.read_text() for path in kept] == ["whole"]


def test_two_sessions_at_once_make_every_run_once(store: Path) -> None:
    names = ["mono-fi", "pinch-4-n40", "pinch-4-p10", "mono-es"]
    sessions = [other_session(store, *names) for _ in range(2)]
    assert [session.wait(100) for session in sessions] == [0, 0]
    runs = runs_of(default_uri(store))
    assert set(runs) == {"demo", *names}
    for name in names:
        assert len(history_of(default_uri(store), runs[name], "loss")) == 100
        assert len(history_of(default_uri(store), runs[name], "if_score.en")) == 1


def test_an_average_is_recorded_only_when_it_is_complete() -> None:
    rows = scores_of("pinch-4-n40").copy()
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


def test_the_default_database_lies_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")
    assert tracking_uri(tmp_path) == "http://tracker:5000"


def test_the_ledger_is_json_that_names_its_runs(store: Path) -> None:
    tracker = Tracker(store, "demo")
    say(tracker, "mono-fi")
    tracker.close()
    ledger = json.loads((store / "tracking" / "demo.json").read_text())
    runs = ledger["destinations"]["store"]["runs"]
    assert {runs[""]["run_id"], runs[f"{example.model_key('mono-fi')}@reference-chrf"]["run_id"]} == {
        run.info.run_id for run in runs_of(default_uri(store)).values()
    }
