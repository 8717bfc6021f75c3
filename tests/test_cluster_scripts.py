"""What the cluster files run on a node, run here: its environment, MLflow's server, the package made of the mounts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.cluster_files import ROOT, load

SCRIPTS = ROOT / "clusters"


def _environment(home: Path, **more: str) -> dict[str, str]:
    """A login's environment: nothing of the test's own but where programs are."""
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", **more}


def _sourced(home: Path) -> dict[str, str]:
    command = f"set -eu; source {SCRIPTS}/env.sh; env -0"
    printed = subprocess.run(["bash", "-c", command], env=_environment(home), check=True, capture_output=True).stdout
    return dict(entry.split("=", 1) for entry in printed.decode().split("\0") if entry)


def test_every_node_asks_for_the_token_and_tells_nobody_anything(tmp_path: Path) -> None:
    found = _sourced(tmp_path)
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found["PATH"].split(":")[0] == str(ROOT / ".venv/bin")
    assert "RAY_AUTH_TOKEN" not in found


def test_keys_come_from_the_users_own_file_and_cannot_turn_the_token_off(tmp_path: Path) -> None:
    (tmp_path / ".pinch.env").write_text("HF_TOKEN=a-key\nRAY_AUTH_MODE=disabled\n")
    found = _sourced(tmp_path)
    assert found["HF_TOKEN"] == "a-key"
    assert found["RAY_AUTH_MODE"] == "token"


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.sh")), ids=lambda script: script.name)
def test_the_scripts_are_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """MLflow's server as the head starts it, on a port of its own; ended by its process ids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = _environment(tmp_path, PINCH_MLFLOW_PORT=str(port))
    before = set(_servers(port))
    try:
        subprocess.run(["bash", str(SCRIPTS / "mlflow.sh")], env=environment, check=True, timeout=90)
        yield port, environment
    finally:
        for process in set(_servers(port)) - before:
            process.send_signal(signal.SIGKILL)


def _servers(port: int) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(port) in (process.info["cmdline"] or []) and "mlflow" in " ".join(process.info["cmdline"])
    ]


def test_mlflow_on_the_head_answers_on_loopback_only_and_to_its_own_name(server: tuple[int, dict[str, str]]) -> None:
    port, environment = server
    assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).ok
    stranger = requests.get(
        f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/get", headers={"Host": "evil"}, timeout=10
    )
    assert stranger.status_code == 403
    listening = {
        each.laddr.ip
        for process in _servers(port)
        for each in process.net_connections()
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }
    assert listening <= {"127.0.0.1"}
    assert (Path(environment["HOME"]) / "mlflow/mlflow.db").is_file()

    first = {process.pid for process in _servers(port)}
    subprocess.run(["bash", str(SCRIPTS / "mlflow.sh")], env=environment, check=True, timeout=30)
    assert {process.pid for process in _servers(port)} == first
    leaders = {process.pid for process in _servers(port) if os.getsid(process.pid) == process.pid}
    assert leaders  # of a session of their own, so the connection that started them may end


@pytest.mark.slow
def test_mlflow_that_cannot_start_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        environment = _environment(tmp_path, PINCH_MLFLOW_PORT=str(port))
        command = ["bash", str(SCRIPTS / "mlflow.sh")]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert ran.returncode == 1
    assert "MLflow did not start" in ran.stderr
    assert "address already in use" in ran.stderr
    assert _servers(port) == []


def test_a_node_gets_the_whole_package(tmp_path: Path) -> None:
    """Built from what the file mounts bring, and nothing else, the package has every file that the checkout's has."""
    node, out = tmp_path / "pinch", tmp_path / "out"
    for local in load("cluster.yaml")["file_mounts"].values():
        source = ROOT / local
        if local.startswith("~"):
            continue
        if source.is_dir():
            shutil.copytree(source, node / local, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            node.mkdir(exist_ok=True)
            shutil.copy(source, node / local)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
    ]
    subprocess.run([*build, str(node)], check=True, timeout=120)
    (wheel,) = out.glob("pinch_sweeps-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(ROOT))
        for package in ("orchestrator", "trainables", "sweeps")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == ours
