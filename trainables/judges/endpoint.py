"""An endpoint that speaks OpenAI's interface: a prompt goes in, what the model writes comes out, on whichever try.

What passes by itself (a busy or failing server, a hang, a broken connection) is tried again, later each time or when
the server says; what does not pass (a wrong key, an unknown model) is said at once, with the cure. A request that
timed out may have been paid for; nobody can know.

This module must never let the key out, neither in an error nor in what an endpoint says; and it must never know what
the answers are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import openai
from pydantic import SecretStr

from trainables.errors import EnvironmentProblem
from trainables.judges.calls import JudgeUnreachable, Usage
from trainables.judges.specs import RemoteJudge

BYTES_PER_TOKEN = 4
"""What a token is taken to hold where no tokenizer is at hand: about right for English, too few for other scripts."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a request is repeated; doubled each time."""
LONGEST_ORDERED_WAIT = 300.0
"""Seconds that a server may tell us to wait."""
_UNANSWERABLE = re.compile(r"context.(length|window)|too long|content.(filter|policy|management)", re.IGNORECASE)
"""What endpoints say, with status 400, 413 or 422, of a prompt that they will not read; there is no common code."""


@dataclass(frozen=True)
class Reply:
    """What came back, and what it took."""

    text: str
    usage: Usage


class Unanswerable(Exception):
    """The endpoint will not read this prompt, now or later. If it reads none at all, it is the settings it refuses."""


class Ended(Exception):
    """:meth:`Endpoint.end` was called, so nothing more is sent."""


class _Garbled(Exception):
    """Something came back that is not an answer."""


class Endpoint:
    """Where a remote judge's model answers. To be used inside ``async with endpoint.open()``."""

    def __init__(self, spec: RemoteJudge, key: SecretStr | None, chat: bool, max_tokens: int) -> None:
        """Args:
        chat: send prompts as a user's turn in a chat, else as text to go on with.
        max_tokens: how much may be written.
        """
        self._spec, self._key, self._chat = spec, key, chat
        self._options: dict[str, Any] = {"model": spec.model, "temperature": 0, "max_tokens": max_tokens}
        if spec.seed is not None:
            self._options["seed"] = spec.seed
        self._pace = _Pace(spec.requests_per_minute)
        self._client: Any = None
        self._ending = asyncio.Event()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connections, for the duration."""
        key = self._key.get_secret_value() if self._key else "none"
        self._ending = asyncio.Event()
        async with openai.AsyncOpenAI(
            base_url=self._spec.base_url, api_key=key, max_retries=0, timeout=None
        ) as self._client:
            yield

    def end(self) -> None:
        """Send nothing more; what is under way is still answered."""
        self._ending.set()

    async def ask(self, prompt: str) -> Reply:
        """What the endpoint answers to a prompt.

        Raises:
            Unanswerable: it will not read this one.
            EnvironmentProblem: it refuses the key, the model or the settings; with the cure.
            JudgeUnreachable: it gave no answer for longer than the retries last.
            Ended: the end came before the prompt was sent, or sent again.
        """
        started = time.monotonic()
        for retried in itertools.count():
            await self._pause(self._pace.wait())
            try:
                async with asyncio.timeout(self._spec.timeout):
                    return await self._send(prompt)
            except (openai.APIError, _Garbled, TimeoutError) as problem:
                if not _passing(problem):
                    raise self._refusal(problem) from None
                if retried >= self._spec.retries:
                    raise JudgeUnreachable(
                        f"judge: {self._spec.base_url} gave no answer in {retried + 1} tries over "
                        f"{time.monotonic() - started:.0f} s (the last: {self._words(problem)})"
                    ) from None
                wait = _wait_before(problem, retried)
            await self._pause(wait)
        raise AssertionError("the tries are counted above")

    async def _send(self, prompt: str) -> Reply:
        """One request.

        Raises:
            _Garbled: an answer that is none, or an error in an answer's clothes.
            EnvironmentProblem: what answers there is something else.
        """
        got: Any
        try:
            if self._chat:
                turn: Any = [{"role": "user", "content": prompt}]
                got = await self._client.chat.completions.create(messages=turn, **self._options)
            else:
                got = await self._client.completions.create(prompt=prompt, **self._options)
        except ValueError as problem:
            raise _Garbled(f"an answer that is not JSON ({problem})") from None
        if isinstance(got, str):
            raise EnvironmentProblem(
                f"judge: {self._spec.base_url} does not speak OpenAI's interface (it says: {self._short(got)}); mend "
                "judge.base_url, which usually ends in /v1"
            )
        choices, failure = getattr(got, "choices", None), getattr(got, "error", None)
        if failure and not choices:
            raise _Garbled(str(failure))
        first = choices[0] if isinstance(choices, list) and choices else None
        said = getattr(getattr(first, "message", None), "content", None) if self._chat else getattr(first, "text", None)
        text = self._clean(str(said or ""))
        usage = getattr(got, "usage", None)
        return Reply(
            text,
            Usage(
                _count(getattr(usage, "prompt_tokens", None), prompt),
                _count(getattr(usage, "completion_tokens", None), text),
                self._clean(str(getattr(got, "model", None) or self._spec.model)),
            ),
        )

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ending.wait()
        if self._ending.is_set():
            raise Ended

    def _refusal(self, problem: Exception) -> Exception:
        """What will not pass, in a sentence with its cure."""
        said, url = self._words(problem), self._spec.base_url
        status = getattr(problem, "status_code", None)
        if status in (400, 413, 422) and _UNANSWERABLE.search(said):
            return Unanswerable(said)
        if status in (401, 403) and self._key is None:
            return EnvironmentProblem(f"judge: {url} wants a key ({said}); put it into {self._spec.api_key_env}")
        if status in (401, 403):
            return EnvironmentProblem(
                f"judge: {url} does not take the key in {self._spec.api_key_env} ({said}); put a valid one there"
            )
        if status == 404:
            return EnvironmentProblem(
                f"judge: {url} does not know the model {self._spec.model} ({said}); name one that it serves as "
                "judge.model, or mend judge.base_url, which usually ends in /v1"
            )
        if status in (402, 429):
            return EnvironmentProblem(f"judge: the account at {url} is used up ({said}); fill it up")
        return EnvironmentProblem(
            f"judge: {url} does not take the calls ({said}); mend judge.base_url, judge.model or the settings in the "
            "prompt's judge.yaml"
        )

    def _words(self, problem: Exception) -> str:
        """What went wrong, short, on one line, without the key."""
        if isinstance(problem, TimeoutError):
            return f"no answer within {self._spec.timeout:g} s"
        if isinstance(problem, openai.APIStatusError):
            body = problem.body
            said = body.get("message") or body if isinstance(body, dict) else body or problem.response.reason_phrase
            return self._short(f"{problem.status_code}: {said}")
        return self._short(str(problem.__cause__ or problem) or type(problem).__name__)

    def _short(self, text: str) -> str:
        return " ".join(self._clean(text).split())[:300]

    def _clean(self, text: str) -> str:
        """What an endpoint said, fit to be stored: UTF-8, and without the key should it have sent that back."""
        text = text.encode(errors="replace").decode()
        return text.replace(self._key.get_secret_value(), "***") if self._key else text


class _Pace:
    """At most so many requests a minute, evenly spaced, so that no minute sees more wherever it begins."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    def wait(self) -> float:
        """Seconds until the next request may be sent; it must then be sent."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._gap
        return turn - now


def _passing(problem: Exception) -> bool:
    """Whether the same request may be answered later."""
    if isinstance(problem, openai.APIStatusError):
        used_up = problem.status_code == 429 and problem.code == "insufficient_quota"
        return (problem.status_code in (408, 409, 425, 429) or problem.status_code >= 500) and not used_up
    return True


def _wait_before(problem: Exception, retried: int) -> float:
    """Seconds to wait: what the server says, or twice as long each time, give or take a quarter."""
    if isinstance(problem, openai.APIStatusError):
        asked = _retry_after(problem.response.headers.get("retry-after", ""))
        if asked is not None and asked > 0:
            return min(asked, LONGEST_ORDERED_WAIT)
    return min(FIRST_WAIT * 2**retried, LONGEST_WAIT) * random.uniform(0.75, 1.25)


def _retry_after(header: str) -> float | None:
    """The header's seconds, also when it gives a date (RFC 9110, 10.2.3); None when it says neither."""
    with contextlib.suppress(ValueError):
        return float(header)
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(header).timestamp() - time.time()
    return None


def _count(told: Any, text: str) -> int:
    """The tokens of a text as told, or at a guess."""
    return told if isinstance(told, int) and told > 0 else -(-len(text.encode()) // BYTES_PER_TOKEN)
