"""An endpoint that speaks OpenAI's interface, on loopback, and behaves as badly as a test asks it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainables.judges import Call, calls_for


@dataclass
class Answer:
    """What goes back for one request: JSON, or ``raw`` bytes; ``status`` 0 breaks the connection off."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay: float = 0.0


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    path: str
    body: dict[str, Any]
    authorization: str
    at: float

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"] if "messages" in self.body else self.body["prompt"]


Behaviour = Callable[[int, Asked], Answer]


def says(text: str | None, prompt_tokens: int = 100, completion_tokens: int = 1, delay: float = 0.0) -> Answer:
    """A chat completion."""
    return Answer(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "judge-2026",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        },
        delay=delay,
    )


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """An error as OpenAI words it."""
    return Answer({"error": {"message": message, "type": "error", "code": code}}, status, headers)


def calls(count: int) -> list[Call]:
    """Questions about so many instructions, in both orders."""
    return [call for number in range(count) for call in calls_for(f"i{number}", f"Question {number}?", "yes", "no")]


class JudgeServer:
    """Answers in threads of this process; ``asked`` is every request in the order of arrival."""

    def __init__(self, behave: Behaviour | None = None, port: int = 0) -> None:
        self.behave: Behaviour = behave or (lambda number, asked: says("1"))
        self.greet = Answer({"object": "list", "data": []})
        """What is said of which models there are."""
        self.asked: list[Asked] = []
        self.answered: list[Asked] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._answer(self)

            def do_GET(self) -> None:
                outer._send(self, outer.greet)

            def log_message(self, *arguments: Any) -> None:
                """Nothing: the test looks at ``asked``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> JudgeServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def prompts(self) -> list[str]:
        return [asked.prompt for asked in self.asked]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        asked = Asked(request.path, body, request.headers.get("authorization", ""), time.monotonic())
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            answer = self.behave(number, asked)
            time.sleep(answer.delay)
        finally:
            with self._lock:
                self._at_once -= 1
        try:
            self._send(request, answer)
            self.answered.append(asked)
        except OSError:
            request.close_connection = True  # the other side is gone

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.status == 0:
            request.close_connection = True
            request.connection.close()
            return
        content = answer.raw if answer.raw is not None else json.dumps(answer.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content)), **answer.headers}
        request.send_response(answer.status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)
