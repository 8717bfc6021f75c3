"""`pinch doctor --address` on a real cluster of two nodes, each fault really there."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.conftest import SMALL, Pinch
from tests.store_places import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL_CACHE = {"PINCH_CACHE_GB": "1"}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head, on loopback, whose cache fits on any disk."""
    from ray.cluster_utils import Cluster

    from orchestrator.run.loopback import on_loopback

    with on_loopback():
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "env_vars": SMALL_CACHE})
        yield made
        made.shutdown()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three models on a base in a folder, which is there in the beginning."""
    from tests.tiny_models import random_model

    random_model(tmp_path / "model", 1)
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(SMALL) | {"base": str(tmp_path / "model")}))
    return path


def shadowed(folder: Path, package: str, version: str) -> dict[str, str]:
    """The environment of a node on which a package has another version."""
    about = folder / f"{package}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parent.parent}"}


def test_a_cluster_that_is_well_says_so_and_leaves_nothing_behind(
    cluster: Any, sweep: Path, tmp_path: Path, pinch: Pinch
) -> None:
    cluster.add_node(num_cpus=1)
    said = pinch("doctor", sweep, "--address", cluster.address, "--store", tmp_path / "store", check=None)
    assert said.returncode == 0, said.stderr
    assert "This sweep can run here." in said.stderr
    assert said.stderr.count(socket.gethostname()) == 2, "a row for each node"
    assert "NO" not in said.stderr
    assert not (tmp_path / "store").exists()


def test_a_folder_that_is_no_store_is_looked_at_and_left_as_it_was(
    cluster: Any, sweep: Path, tmp_path: Path, pinch: Pinch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    pinch("doctor", sweep, "--address", cluster.address, "--store", mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    pinch("doctor", "--address", cluster.address, "--store", tmp_path / "deep" / "er" / "store")
    assert not (tmp_path / "deep").exists()


def test_an_object_store_is_written_and_read_from_every_node(
    s3: Place, cluster: Any, tmp_path: Path, pinch: Pinch
) -> None:
    cluster.add_node(num_cpus=1, env_vars=SMALL_CACHE)
    said = pinch("doctor", "--address", cluster.address, "--store", s3.location).stderr
    assert f"{s3.location} can be written from here" in said
    assert "NO" not in said
    assert s3.open().storage.names("") == []
    cluster.add_node(num_cpus=1, env_vars={"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "PINCH_CACHE_GB": "1e6"})
    said = pinch("doctor", "--address", cluster.address, "--store", s3.location, check=3).stderr
    away, large = [line for line in said.splitlines() if line.strip().startswith("NO")]
    assert f"{s3.location}: no answer" in away and "give every node the same access" in away
    assert "its cache may grow by" in large and "a smaller bound in PINCH_CACHE_GB" in large


def test_what_is_wrong_is_named_with_its_node_and_its_cure(
    cluster: Any, sweep: Path, tmp_path: Path, pinch: Pinch, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.add_node(num_cpus=1, num_gpus=2, env_vars=shadowed(tmp_path / "other", "transformers", "9.9.9"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:planted-1@127.0.0.1:9")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"llama"', '"no-such-architecture"'))
    said = pinch("doctor", sweep, "--address", cluster.address, "--store", "/proc/pinch", check=3).stderr
    lines = [line for line in said.splitlines() if line.strip().startswith("NO")]
    assert len([line for line in lines if "transformers 9.9.9 (here " in line]) == 1, said
    assert len([line for line in lines if "Ray counts 2 GPUs and PyTorch sees 0" in line]) == 1, said
    assert len([line for line in lines if "/proc/pinch" in line]) == 3, "from here and from both nodes"
    assert len([line for line in lines if "base: " in line and "cannot be loaded" in line]) == 2, said
    assert len([line for line in lines if "http://127.0.0.1:9 does not answer" in line]) == 1, said
    assert "planted-1" not in said
    assert "Mend what says NO" in said


def test_a_judge_that_cannot_be_asked_is_named(cluster: Any, sweep: Path, tmp_path: Path, pinch: Pinch) -> None:
    judge = "{kind: remote, model: j, base_url: http://127.0.0.1:9/v1, api_key_env: MY_JUDGE_KEY}"
    asked = ("doctor", sweep, "--address", cluster.address, "--store", tmp_path / "store", "--set", f"judge={judge}")
    said = pinch(*asked, check=3).stderr
    lines = [line for line in said.splitlines() if line.strip().startswith("NO")]
    assert len(lines) == 2, said
    assert "http://127.0.0.1:9/v1 gave no answer" in lines[0]
    assert "MY_JUDGE_KEY is not set" in lines[1]


NODE = """
import sys, time
from ray._private import node, parameter
about = dict(gcs_address=sys.argv[1], num_cpus=1, num_gpus=0, object_store_memory=150 * 2**20)
node.Node(parameter.RayParams(min_worker_port=0, max_worker_port=0, **about), head=False, shutdown_at_exit=True)
time.sleep(900)
"""


@pytest.mark.parametrize(
    ("mounted", "said"),
    [
        ("mount --bind {other} {store}", "is there, but is another folder"),
        (
            "mount --bind {store} {store} && mount -o remount,bind,ro {store}",
            "cannot be written (Read-only file system)",
        ),
    ],
    ids=["another folder", "read-only"],
)
def test_a_node_on_which_the_store_is_not_the_store_is_found(
    mounted: str, said: str, cluster: Any, sweep: Path, tmp_path: Path, pinch: Pinch
) -> None:
    """A node with its own view of the file system, as where a shared folder is not mounted, or not for writing."""
    store, other = tmp_path / "store", tmp_path / "other"
    store.mkdir()
    other.mkdir()
    inside = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    if subprocess.run([*inside, mounted.format(store=store, other=other)], check=False).returncode:
        pytest.skip("this process may not mount anything")
    run = f"{mounted.format(store=store, other=other)} && exec {sys.executable} -c '{NODE}' {cluster.address}"
    with (tmp_path / "node.log").open("wb") as log:
        node = subprocess.Popen([*inside, run], stdout=log, stderr=log, start_new_session=True)
    family = psutil.Process(node.pid)
    try:
        deadline = time.monotonic() + 120
        while sum(one["Alive"] for one in cluster.global_state.node_table()) < 2:
            assert node.poll() is None and time.monotonic() < deadline, (tmp_path / "node.log").read_text()
            time.sleep(0.5)
        told = pinch("doctor", sweep, "--address", cluster.address, "--store", store, check=3).stderr
    finally:
        for process in [*family.children(recursive=True), family]:
            process.kill()
        node.wait(30)
    lines = [line for line in told.splitlines() if line.strip().startswith("NO")]
    assert len(lines) == 1, told
    assert said in lines[0]
    assert "mount the same store on every node" in lines[0]
