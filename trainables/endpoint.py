"""An endpoint that speaks OpenAI's interface: a prompt goes in, what the model writes comes out, on whichever try.

What passes by itself is for :class:`trainables.patience.Patience`; what does not (a wrong key, an unknown model) is
said at once, with the cure. Nothing is sent where the user did not say, and no answer is read without end.

This module must never let the key out, neither in an error nor in what an endpoint says; and it must never know what
the answers are for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
from pydantic import SecretStr

from trainables.addresses import without_password
from trainables.errors import EnvironmentProblem
from trainables.patience import Passing, Patience, Turn, retry_after

BYTES_PER_TOKEN = 4
"""What a token is taken to hold where no tokenizer is at hand: about right for English, too few for other scripts."""
LONGEST = 4 * 2**20
"""Bytes of an answer, unpacked; no text that is asked for comes near."""
_UNANSWERABLE = re.compile(r"context.(length|window)|too long|content.(filter|policy|management)", re.IGNORECASE)
"""What endpoints say, with status 400, 413 or 422, of a prompt that they will not read; there is no common code."""
_NOT_FOR_THIS = re.compile(r"scope|permission", re.IGNORECASE)
"""What endpoints say of a key that may be used for answers and not for this."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which endpoint, and what its user calls the settings that are wrong when it says no."""

    role: str
    """The section of the sweep file it is named in: ``judge``, say."""
    url: str
    key: SecretStr | None
    key_name: str
    """The environment variable that holds the key, or could."""
    settings: str
    """Where the other settings are that it may refuse."""


@dataclass(frozen=True)
class Reply:
    """What came back, and what it took. ``cut``: the model had more to say than it was allowed."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    model: str
    cut: bool


class Unanswerable(Exception):
    """The endpoint will not read this prompt, now or later. If it reads none at all, it is the settings it refuses."""


class _Client(openai.DefaultAsyncHttpxClient):
    """Follows no redirect, and reads an answer only so far."""

    def __init__(self) -> None:
        super().__init__(follow_redirects=False, headers={"accept-encoding": "gzip, deflate"})

    async def send(self, request: Any, **options: Any) -> Any:
        answer = await super().send(request, **options | {"stream": True})
        body = bytearray()
        try:
            if answer.headers.get("content-encoding", "identity").lower() not in ("identity", "gzip", "deflate"):
                raise openai.APIConnectionError(message="an answer packed as nobody asked for", request=request)
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LONGEST:
                    raise openai.APIConnectionError(message=f"an answer of over {LONGEST:,} bytes", request=request)
        finally:
            await answer.aclose()
        on_the_way = ("content-encoding", "content-length", "transfer-encoding")
        headers = [(name, value) for name, value in answer.headers.multi_items() if name not in on_the_way]
        return type(answer)(answer.status_code, headers=headers, content=bytes(body), request=request)


class Endpoint:
    """A model that answers behind an address. To be used inside ``async with endpoint.open()``."""

    def __init__(
        self, where: Where, model: str, chat: bool, options: dict[str, Any], tries: int, timeout: float, turn: Turn
    ) -> None:
        """Args:
        chat: send prompts as a user's turn in a chat, else as text to go on with.
        options: sent with every prompt (temperature, say).
        tries, timeout, turn: see :class:`trainables.patience.Patience`.
        """
        self._where, self._model, self._chat = where, model, chat
        self._options = {"model": model, **options}
        self._patience = Patience(f"{where.role}: {where.url}", tries, timeout, turn)
        self._client: Any = None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connections, for the duration."""
        key = self._where.key.get_secret_value() if self._where.key else "none"
        self._patience.begin()
        async with openai.AsyncOpenAI(
            base_url=self._where.url, api_key=key, max_retries=0, timeout=None, http_client=_Client()
        ) as self._client:
            yield

    def end(self) -> None:
        """Send nothing more; what is under way is still answered."""
        self._patience.end()

    async def ask(self, prompt: str, max_tokens: int, characters: int = 0) -> Reply:
        """What the endpoint answers to a prompt.

        Args:
            max_tokens: how much may be written.
            characters: what the prompt counts for in the pace.

        Raises:
            Unanswerable: it will not read this one.
            EnvironmentProblem: it refuses the key, the model or the settings; with the cure.
            Unreachable: it gave no answer for longer than the tries last.
            Ended: the end came before the prompt was sent, or sent again.
        """
        return await self._patience.get(lambda: self._send(prompt, max_tokens), characters)

    async def reach(self) -> None:
        """See that somebody is there, for nothing: it is asked for its models, which it need not know to name.

        Raises:
            EnvironmentProblem: it does not take the key, or wants one.
            Unreachable: it gave no answer for longer than the tries last.
            Ended: as :meth:`ask`.
        """
        await self._patience.get(self._greet)

    async def _greet(self) -> None:
        try:
            await self._client.models.with_raw_response.list()
        except openai.APIStatusError as problem:
            away = problem.status_code in (502, 503, 504)  # a gateway speaks; the model is not there
            wants_key = problem.status_code == 401 and not _NOT_FOR_THIS.search(str(problem.body))
            if away or wants_key or problem.status_code < 400:
                raise self._meant(problem) from None
        except openai.APIError as problem:
            raise self._meant(problem) from None

    async def _send(self, prompt: str, max_tokens: int) -> Reply:
        got: Any
        try:
            if self._chat:
                turn: Any = [{"role": "user", "content": prompt}]
                got = await self._client.chat.completions.create(messages=turn, max_tokens=max_tokens, **self._options)
            else:
                got = await self._client.completions.create(prompt=prompt, max_tokens=max_tokens, **self._options)
        except openai.APIError as problem:
            raise self._meant(problem) from None
        except (ValueError, RecursionError) as problem:
            raise Passing(self._short(f"an answer that is not JSON ({problem})")) from None
        if isinstance(got, str):
            role, url = self._where.role, self._where.url
            raise EnvironmentProblem(
                f"{role}: {url} does not speak OpenAI's interface (it says: {self._short(got)}); mend {role}.base_url, "
                "which usually ends in /v1"
            )
        choices, failure = getattr(got, "choices", None), getattr(got, "error", None)
        if failure and not choices:
            raise Passing(self._short(str(failure)))
        first = choices[0] if isinstance(choices, list) and choices else None
        said = getattr(getattr(first, "message", None), "content", None) if self._chat else getattr(first, "text", None)
        text = self._clean(str(said or ""))
        usage = getattr(got, "usage", None)
        return Reply(
            text,
            _count(getattr(usage, "prompt_tokens", None), prompt),
            _count(getattr(usage, "completion_tokens", None), text),
            self._clean(str(getattr(got, "model", None) or self._model))[:200],
            getattr(first, "finish_reason", None) == "length",
        )

    def _meant(self, problem: openai.APIError) -> Exception:
        """What an error means: that it passes, or in a sentence with its cure that it will not."""
        if not isinstance(problem, openai.APIStatusError):
            return Passing(self._short(str(problem.__cause__ or problem) or type(problem).__name__))
        body, status = problem.body, problem.status_code
        told = body.get("message") or body if isinstance(body, dict) else body or problem.response.reason_phrase
        said = self._short(f"{status}: {told}")
        used_up = status == 429 and problem.code == "insufficient_quota"
        if (status in (408, 409, 425, 429) or status >= 500) and not used_up:
            return Passing(said, retry_after(problem.response.headers.get("retry-after")))
        role, url, name = self._where.role, self._where.url, self._where.key_name
        if status < 400:
            told = without_password(problem.response.headers.get("location", "another address"))
            there = re.sub(r"/(chat/)?(completions|models)$", "", self._short(told))
            return EnvironmentProblem(
                f"{role}: {url} sends the calls on to {there}, where nothing is sent unasked; if it is meant, name it "
                f"as {role}.base_url"
            )
        if status in (400, 413, 422) and _UNANSWERABLE.search(said):
            return Unanswerable(said)
        if status in (401, 403) and self._where.key is None:
            return EnvironmentProblem(f"{role}: {url} wants a key ({said}); put it into {name}")
        if status in (401, 403):
            return EnvironmentProblem(f"{role}: {url} does not take the key in {name} ({said}); put a valid one there")
        if status == 404:
            return EnvironmentProblem(
                f"{role}: {url} does not know the model {self._model} ({said}); name one that it serves as "
                f"{role}.model, or mend {role}.base_url, which usually ends in /v1"
            )
        if status in (402, 429):
            return EnvironmentProblem(f"{role}: the account at {url} is used up ({said}); fill it up")
        return EnvironmentProblem(
            f"{role}: {url} does not take the calls ({said}); mend {role}.base_url, {role}.model or "
            f"{self._where.settings}"
        )

    def _short(self, text: str) -> str:
        """What went wrong, short, on one line, without the key."""
        return " ".join(self._clean(text).split())[:300]

    def _clean(self, text: str) -> str:
        """What an endpoint said, fit to be stored: UTF-8, and without the key should it have sent that back."""
        text = text.encode(errors="replace").decode()
        return text.replace(self._where.key.get_secret_value(), "***") if self._where.key else text


def _count(told: Any, text: str) -> int:
    """The tokens of a text as told, or at a guess."""
    return told if isinstance(told, int) and 0 < told < 10**9 else -(-len(text.encode()) // BYTES_PER_TOKEN)
