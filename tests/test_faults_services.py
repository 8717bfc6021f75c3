"""Services that are away: MLflow for a whole run."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from tests.conftest import Pinch
from tests.faults import Session, complete, digests
from tests.mlflow_server import mlflow_server
from tests.object_servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_mlflow_may_be_down_for_a_whole_run_and_is_told_everything_by_the_next(
    small: Path, undisturbed: Path, tmp_path: Path, pinch: Pinch, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, port = tmp_path / "store", free_port()
    for kind in ("base", "corpus", "fine_tune", "selection", "generation_set"):
        shutil.copytree(undisturbed / kind, store / kind)
    before = digests(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    down = Session(small, store)
    assert down.wait() == 0, down.text()
    assert "MLflow" in down.text(), "it is said that nothing was recorded"
    complete(store, small, undisturbed, pinch)
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server", port):
        again = Session(small, store)
        assert again.wait() == 0, again.text()
        assert "nothing was missing" in again.text()
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name("small")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert sum("if_score.fi" in str(run.data.metrics) for run in runs) == 3
    assert {path: digests(store).get(path) for path in before} == before
