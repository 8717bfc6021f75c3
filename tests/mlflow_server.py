"""An MLflow server on loopback, with a database and artifacts of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.mlflow_ui import ui_command


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[None]:
    """From when it answers; its workers end with it."""
    command, more = ui_command(folder, "127.0.0.1", port)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **more}, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
