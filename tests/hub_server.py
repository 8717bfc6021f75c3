"""A hub of data sets on this machine: as much of its protocol as a client needs to fetch the files of a commit."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import unquote


class Hub:
    """Serves ``files`` (repository -> path -> content) at any commit; use it as a context manager.

    Args:
        gated: repositories whose files are kept back.
        missing: repositories that do not have the commit asked for.
    """

    def __init__(
        self,
        files: Mapping[str, Mapping[str, bytes]],
        gated: tuple[str, ...] = (),
        missing: tuple[str, ...] = (),
    ) -> None:
        self.asked: list[str] = []
        """Paths, in order."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self, files, gated, missing)

            do_HEAD = do_GET  # noqa: N815 (the library's name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        files: Mapping[str, Mapping[str, bytes]],
        gated: tuple[str, ...],
        missing: tuple[str, ...],
    ) -> None:
        path = unquote(request.path.partition("?")[0])
        self.asked.append(path)
        api = path.startswith("/api/datasets/")
        repository = "/".join(path.removeprefix("/api").removeprefix("/datasets/").split("/")[:2])
        commit, _, name = path.partition("/tree/" if api else "/resolve/")[2].partition("/")
        about = {"X-Repo-Commit": commit}
        if repository not in files:
            self._send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif repository in missing:
            self._send(request, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif api:
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files[repository].items()
            ]
            self._send(request, 200, json.dumps(listed).encode(), about)
        elif repository in gated:
            self._send(request, 401, b"", {"X-Error-Code": "GatedRepo"})
        else:
            content = files[repository][name]
            self._send(request, 200, content, {**about, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
