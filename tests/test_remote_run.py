"""A real sweep on a store in S3 (moto, behind a proxy where things go wrong), on machines with nothing in common.

A machine is a Ray node with a cache of its own; the store is the only thing that all of them see.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.storage import Entry
from orchestrator.store import Store
from tests.conftest import Pinch
from tests.faults import Session, until
from tests.object_servers import SECRET, Proxy, free_port
from tests.store_places import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_sweep_runs_on_an_object_store_and_is_looked_at_from_elsewhere(
    small: Path,
    s3: Place,
    s3_address: str,
    pinch: Pinch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = Proxy(s3_address)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    session = Session(small, s3.location, folder=tmp_path)
    store = s3.open()
    until(_now_and_then(lambda: bool(store.entries("fine_tune"))), session, 600)
    session.kill()
    before = _published(store)
    proxy.share = 0.02
    monkeypatch.setenv("PINCH_CACHE", str(tmp_path / "driver"))
    with _machines(tmp_path) as address:
        again = Session(small, s3.location, "--address", address, folder=tmp_path)
        until(_now_and_then(lambda: bool(store.entries("selection"))), again, 600)
        proxy.down = True
        time.sleep(60)
        proxy.down = False
        assert again.wait(1200) == 0, again.text()
    assert len(proxy.met) > 20
    proxy.share = 0.0
    after = _published(s3.open())
    assert {key: after[key] for key in before} == before, "what was published is not made again"
    assert list((tmp_path / "machine-1").rglob("model.safetensors"))
    assert not list((tmp_path / "driver").rglob("model.safetensors")), "the driver has no weights"

    monkeypatch.setenv("PINCH_CACHE", str(tmp_path / "another-machine"))
    assert json.loads(pinch("status", small, "--store", s3.location, "--json").stdout)["steps"] == []
    assert "Everything is done." in pinch("status", small, "--store", s3.location).stderr
    rows = list(csv.DictReader(io.StringIO(pinch("scores", small, "--store", s3.location).stdout)))
    assert len(rows) == 6
    assert all(row["if_score"] for row in rows)
    pinch("report", small, "--store", s3.location, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "small-report.html").read_text()
    assert s3.location in page
    assert not list((tmp_path / "another-machine").rglob("model.safetensors")), "weights are not fetched"
    assert "0 did not" in pinch("verify", "--store", s3.location).stderr
    assert "nothing was missing" in pinch("run", small, "--store", s3.location).stderr
    pinch("export", small, "mono-fi", tmp_path / "model", "--store", s3.location)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert "ok  store" in pinch("doctor", "--store", s3.location, check=None).stderr
    assert store.storage.names("leases") == store.storage.names("orders") == store.storage.names("attempts") == []
    _ui(s3.location, tmp_path)
    for name in store.storage.names(""):
        assert SECRET.encode() not in (store.storage.read(name) or b""), name
    for path in [*tmp_path.rglob("*.log"), *(tmp_path / "report").rglob("*"), *(tmp_path / "cache").rglob("*")]:
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    proxy.close()


@contextmanager
def _machines(folder: Path) -> Iterator[str]:
    """A Ray cluster: a head that does no work, and two nodes."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for number in (1, 2):
            cluster.add_node(num_cpus=2, env_vars={"PINCH_CACHE": str(folder / f"machine-{number}")})
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


def _published(store: Store) -> dict[str, dict[str, object]]:
    kinds = ("base", "corpus", "fine_tune", "selection", "generation_set", "comparison")
    found: list[Entry] = [entry for kind in kinds for entry in store.entries(kind).values()]
    return {entry.key: entry.manifest for entry in found}


def _now_and_then(condition: Callable[[], bool]) -> Callable[[], bool]:
    """A condition that asks a server, asked twice a second."""

    def ask() -> bool:
        time.sleep(0.5)
        return condition()

    return ask


def _ui(location: str, folder: Path) -> None:
    """`pinch ui` makes a database of this machine say what the store holds."""
    port = free_port()
    command = [sys.executable, "-m", "orchestrator.cli", "ui", "--store", location, "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"}
    log = folder / "ui.log"
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=log.open("w"), start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                time.sleep(1)
        assert page.status == 200
        found = re.search(r"experiments/(\d+)/runs", log.read_text())
        assert found, log.read_text()
        body = json.dumps({"experiment_ids": [found[1]], "max_results": 100}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/search", body, {"Content-Type": "application/json"}
        )
        runs = json.load(urllib.request.urlopen(request, timeout=30))["runs"]
        assert len(runs) == 4, "the sweep and its three models"
        assert sum("if_score.fi" in str(run["data"].get("metrics")) for run in runs) == 3
    finally:
        family = psutil.Process(process.pid)
        for member in (*family.children(recursive=True), family):  # MLflow's server has a session of its own
            member.kill()
        process.wait()
