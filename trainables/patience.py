"""Patience with a service, and its pace: what passes by itself is tried again, later each time or when it says.

What passes (a busy or failing server, a hang, a broken connection) is for the one who sends to tell, by raising
:class:`Passing`; whatever else it raises ends the request. A request that timed out may have been paid for; nobody can
know.

This module must never know what is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import parsedate_to_datetime
from typing import TypeVar

from trainables.errors import Unreachable

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before a request is repeated; doubled each time."""
LONGEST_ORDERED_WAIT = 300.0
"""Seconds that a server may tell us to wait."""

Turn = Callable[[int], Awaitable[float]]
"""Told the characters of a request, says in how many seconds it may be sent; it must then be sent."""
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Passing(Exception):
    """Something that passes by itself went wrong. ``after``: seconds to wait, where the service says so."""

    def __init__(self, words: str, after: float | None = None) -> None:
        super().__init__(words)
        self.after = after


class Ended(Exception):
    """:meth:`Patience.end` was called, so nothing more is sent."""


class Pace:
    """At most so many requests, and characters, a minute, evenly spaced.

    No minute sees more requests wherever it begins, nor more characters but for the request that it begins with.
    """

    def __init__(self, requests_per_minute: int | None, characters_per_minute: int | None = None) -> None:
        self._per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self._per_character = 60 / characters_per_minute if characters_per_minute else 0.0
        self._next = 0.0

    def wait(self, characters: int = 0) -> float:
        """Seconds until the next request may be sent; it must then be sent."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + max(self._per_request, self._per_character * characters)
        return turn - now

    async def turn(self, characters: int) -> float:
        """The same, where others keep another pace (:data:`Turn`)."""
        return self.wait(characters)


class Patience:
    """Sends one request after another, each until it is answered."""

    def __init__(self, where: str, tries: int, timeout: float, turn: Turn) -> None:
        """Args:
        where: what an error begins with.
        tries: how often a request is sent.
        timeout: seconds one try may take.
        """
        self._where, self._tries, self._timeout, self._turn = where, tries, timeout, turn
        self._ending = asyncio.Event()

    def begin(self) -> None:
        """Send again, after an end."""
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Send nothing more; what is under way is still answered."""
        self._ending.set()

    async def get(self, send: Callable[[], Awaitable[Answer]], characters: int = 0) -> Answer:
        """What ``send`` returns, on whichever try.

        Raises:
            Unreachable: it did not for longer than the tries last.
            Ended: the end came before the request was sent, or sent again.
            Exception: what ``send``, or the turn, raises, other than :class:`Passing`.
        """
        started = time.monotonic()
        for sent in itertools.count(1):
            await self._pause(0.0)
            await self._pause(await self._turn(characters))
            try:
                async with asyncio.timeout(self._timeout):
                    return await send()
            except TimeoutError:
                problem = Passing(f"no answer within {self._timeout:g} s")
            except Passing as passing:
                problem = passing
            if sent >= self._tries:
                raise Unreachable(
                    f"{self._where} gave no answer in {sent} tries over {time.monotonic() - started:.0f} s "
                    f"(the last: {problem})"
                ) from None
            await self._pause(_wait_before(problem, sent - 1))
        raise AssertionError("the tries are counted above")

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._ending.wait()
        if self._ending.is_set():
            raise Ended


async def each(
    items: Iterable[Item], work: Callable[[Item], Awaitable[None]], parallel: int, end: Callable[[], None]
) -> None:
    """Work through the items in their order, never on more than ``parallel`` at once.

    When work on one goes wrong, ``end`` is called, nothing more is begun, what is under way is waited for, and then
    the first problem is raised. :class:`Ended` is not a problem.
    """
    left, problems = iter(items), list[Exception]()

    async def worker() -> None:
        for item in left:
            try:
                await work(item)
            except Ended:
                return
            except Exception as problem:  # noqa: BLE001  (raised below, when what is under way has been kept)
                problems.append(problem)
                end()
            if problems:
                return

    await asyncio.gather(*(worker() for _ in range(parallel)))
    if problems:
        raise problems[0]


def retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header, also when it gives a date (RFC 9110, 10.2.3); None when it says neither."""
    with contextlib.suppress(ValueError):
        return float(header or "")
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(header or "").timestamp() - time.time()
    return None


def _wait_before(problem: Passing, retried: int) -> float:
    """Seconds to wait: what the server says, or twice as long each time, give or take a quarter."""
    if problem.after is not None and problem.after > 0:
        return min(problem.after, LONGEST_ORDERED_WAIT)
    return min(FIRST_WAIT * 2**retried, LONGEST_WAIT) * random.uniform(0.75, 1.25)
