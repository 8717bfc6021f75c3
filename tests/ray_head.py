"""A real head of a Ray cluster on loopback, with ports, a folder and a token of its own, for tests that submit."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import requests

ROOT = Path(__file__).parent.parent
_PORTS = (
    "port",
    "dashboard-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "runtime-env-agent-port",
)

_MARK = "PINCH_TEST_CLUSTER"

PINCH = """#!/bin/sh
# The cluster's pinch: does as it is told in the file, or does its work.
[ -e {orders} ] && . {orders}
exec {python} -m orchestrator.cli "$@"
"""


class RayHead:
    """`ray start --head` as a process of its own; what it starts ends with it."""

    def __init__(self, more: dict[str, str] | None = None) -> None:
        """Args:
        more: of its environment.
        """
        # Ray's sockets lie in here, and the path of a socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self.ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self.orders = self.folder / "orders"
        token = self.folder / "token"
        token.write_text("a-token-of-this-test\n")
        token.chmod(0o600)
        programs = self.folder / "bin"
        programs.mkdir()
        (programs / "pinch").write_text(PINCH.format(orders=self.orders, python=sys.executable))
        (programs / "pinch").chmod(0o755)
        self.client_environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        self.environment = {
            **self.client_environment,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "HF_HUB_OFFLINE": "1",
            _MARK: str(self.folder),
            **(more or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._life = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard-port']}"

    def start(self, *more: str, timeout: float = 120.0) -> None:
        """Start it and wait until its jobs can be asked for; the second time, a new cluster at the same address.

        Args:
            more: arguments of `ray start`.
        """
        self._life += 1
        arguments = [f"--{name}={port}" for name, port in self.ports.items()]
        with (self.folder / f"head-{self._life}.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
                    *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2", "--num-gpus=0"),
                    *(f"--temp-dir={self.folder}", "--object-store-memory=200000000", "--disable-usage-stats"),
                    *(*arguments, *more),
                ],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log()
            with contextlib.suppress(requests.RequestException):
                # asked without a token: 401 is the dashboard's, and that it wants one
                if requests.get(f"{self.address}/api/jobs/", timeout=5).status_code == 401:
                    return
            time.sleep(0.5)
        raise AssertionError(f"the head did not come up\n{self.log()}")

    def kill(self) -> None:
        """End it and everything it started, as a power cut would; the jobs' drivers are among that."""
        if self._process is None:
            return
        # Until nobody is left: what is started while the others are looked for would hold on to the ports it inherited.
        while everybody := [process for process in psutil.process_iter(["environ"]) if self._owns(process)]:
            for process in everybody:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(everybody, timeout=30)
        self._process.wait(30)
        self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _owns(self, process: psutil.Process) -> bool:
        """Ray's processes leave the family they were started in; what they all have is their environment."""
        return (process.info["environ"] or {}).get(_MARK) == str(self.folder)  # type: ignore[attr-defined]

    def log(self) -> str:
        """The ends of what it and its node's processes printed."""
        logs = [self.folder / f"head-{self._life}.log", *self.folder.glob("session_latest/logs/dashboard_agent*.log")]
        logs += self.folder.glob("session_latest/logs/raylet*.out")
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in logs)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
