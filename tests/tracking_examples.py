"""What the tests of tracking say of a sweep, and how they read what MLflow has of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.tracking import ModelRecord, SweepRecord, Tracker
from tests import report_example as example

ROOT = Path(__file__).parents[1]
CURVE = pd.DataFrame({"step": range(1, 101), "loss": [5 - step / 40 for step in range(100)], "seconds": range(100)})

ROUGE = {50: 0.21, 100: 0.34}


def client_of(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def model_record(name: str, **changes: Any) -> ModelRecord:
    mixture = {"fi": 1600} if name == "mono-fi" else {"en": 1560, "es": 14, "fi": 13, "ru": 13}
    fields: dict[str, Any] = {"key": example.model_key(name), "name": name, "mixture": mixture, "base": "tiny"}
    fields |= {"judge": "reference-chrf", "studies": ["pinch-4"], "recipe": {"steps": 100, "learning_rate": 2e-3}}
    return ModelRecord(**fields | {"state": "FINISHED"} | changes)


def scores_of(name: str) -> pd.DataFrame:
    table = example.score_table()
    return table[table["model"] == name]


def say(tracker: Tracker, *names: str) -> None:
    tracker.sync_sweep(SweepRecord(base="tiny", judge="reference-chrf", counts={"comparison": (36, 36)}))
    for name in names:
        tracker.sync_model(model_record(name), scores_of(name), CURVE, ROUGE)


def runs_of(uri: str, experiment: str = "demo") -> dict[str, Any]:
    """Run name -> run, of all runs there are."""
    client = client_of(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found), "a run was made twice"
    return {run.info.run_name: run for run in found}


def history_of(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client_of(uri).get_metric_history(run.info.run_id, metric)]


def other_session(store: Path, *names: str, then: str = "") -> subprocess.Popen[bytes]:
    """Another process that says the same."""
    code = (
        "import sys; from pathlib import Path; from orchestrator.tracking import Tracker\n"
        "from tests import tracking_examples as t\n"
        f"tracker = Tracker(Path({str(store)!r}), 'demo', retry_after=0.1)\n"
        f"t.say(tracker, *{names!r}); assert tracker.close(timeout=90)\n{then}"
    )
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment_with())


def wait_until(until: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def environment_with(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **more}


def started_at(command: list[str], environment: dict[str, str], log: Path, port: int) -> subprocess.Popen[bytes]:
    """A process that answers at a port."""
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def answers() -> bool:
        assert server.poll() is None, log.read_text()
        return something_answers(port)

    wait_until(answers, 60)
    return server


def something_answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
