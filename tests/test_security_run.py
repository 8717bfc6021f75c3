"""A whole run with a secret in every variable that could hold one: none is found afterwards, and nobody could look in.

One session does it all: fine-tunes, responses, a remote judge that repeats the key it was shown, MLflow on a server
that wants a password, the report. Then every byte that was written is looked at.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import SMALL, Pinch
from tests.faults import Session
from tests.judge_server import JudgeServer, says
from tests.mlflow_server import mlflow_server
from tests.object_servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SECRETS = (
    "JUDGE_KEY",  # named by the sweep
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "GOOGLE_API_KEY",
    "AZURE_STORAGE_KEY",
    "RAY_AUTH_TOKEN",
)
"""What Pinch, or a library it hands the work to, takes from the environment and nobody else is to see."""


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    values = {name: f"planted-{secrets.token_hex(12)}" for name in (*SECRETS, "the password in MLflow's address")}
    for name in SECRETS:
        monkeypatch.setenv(name, values[name])
    return values


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where everything temporary goes, Ray's session included, whose sockets need a short path."""
    folder = Path(tempfile.mkdtemp(prefix="pk", dir="/tmp"))
    (folder / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder / "ray"))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[int]:
    """An MLflow server with a database and artifacts of its own; its port."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    port = free_port()
    with mlflow_server(folder, port):
        yield port


def listening(process: psutil.Process) -> set[tuple[str, str]]:
    """(process name, address) of every port that a process and its children listen on beyond loopback."""
    found = set()
    for member in [process, *process.children(recursive=True)]:
        try:
            ports = member.net_connections(kind="inet")
            name = member.name()
        except psutil.Error:
            continue
        for port in ports:
            address = port.laddr.ip if port.laddr else ""
            if port.status == psutil.CONN_LISTEN and not address.removeprefix("::ffff:").startswith("127."):
                found.add((name, address))
    return found


def holding(folders: list[Path], values: dict[str, str]) -> list[tuple[str, str]]:
    """(file, variable) wherever a planted value stands."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [
        (str(path), name) for path in files for name, value in values.items() if value.encode() in path.read_bytes()
    ]


def handed_out(port: int, run: str, artifact: str) -> tuple[str, str]:
    """How MLflow gives an artifact to a browser: what it is to do with it, and whether it may guess what it is."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/get-artifact?path={artifact}&run_uuid={run}") as answer:
        disposition = answer.headers["content-disposition"].partition(";")[0]
        return disposition, answer.headers["x-content-type-options"]


def test_no_secret_is_found_afterwards_and_no_port_is_open_to_others(
    tmp_path: Path, planted: dict[str, str], scratch: Path, mlflow: int, pinch: Pinch, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = planted["the password in MLflow's address"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{password}@127.0.0.1:{mlflow}")
    sweep, store = tmp_path / "small.yaml", tmp_path / "store"
    with JudgeServer() as server:
        server.behave = lambda number, asked: says(f"1 {asked.authorization}")
        sweep.write_text(
            f"{SMALL}judge: {{kind: remote, model: j, base_url: '{server.url}', api_key_env: JUDGE_KEY}}\n"
        )
        session = Session(sweep, store)
        open_to_others: set[tuple[str, str]] = set()
        while session.process.poll() is None:
            open_to_others |= listening(psutil.Process(session.process.pid))
            time.sleep(0.3)
        assert session.wait() == 0, session.text()
        assert {asked.authorization for asked in server.asked} == {f"Bearer {planted['JUDGE_KEY']}"}
    pinch("report", sweep, "--store", store, "--out", tmp_path / "page")
    for number, arguments in enumerate((["plan", "--json"], ["plan", "--settings"], ["status"], ["scores"])):
        said = pinch(arguments[0], sweep, "--store", store, *arguments[1:])
        (tmp_path / f"said-{number}").write_text(said.stdout + said.stderr)
    (page,) = (tmp_path / "mlflow").rglob("small-report.html")
    assert handed_out(mlflow, page.parent.parent.name, page.name) == ("attachment", "nosniff")
    assert '<meta http-equiv="Content-Security-Policy" content="default-src' in page.read_text()
    assert list((scratch / "ray").rglob("*.log")), "Ray's logs were looked at"
    assert holding([tmp_path, scratch], planted) == []
    assert open_to_others == set()


def test_what_a_secret_is_looked_for_in_would_show_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00planted-1\x00")
    assert holding([tmp_path], {"A": "planted-1"}) == [(str(tmp_path / "file"), "A")]
    server = [sys.executable, "-c", "import socket,time; s=socket.create_server(('0.0.0.0', 0)); time.sleep(60)"]
    process = subprocess.Popen(server)
    try:
        deadline = time.monotonic() + 20
        while not (found := listening(psutil.Process(process.pid))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert {address for _, address in found} == {"0.0.0.0"}
    finally:
        process.kill()
        process.wait()
