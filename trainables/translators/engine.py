"""What an engine is: strings go in, the same strings in another language come out, each handed over once it is there.

An engine knows nothing of texts, marks or lines, and nothing of what was asked before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

SOURCE = "en"
"""The language everything is translated from."""


@dataclass(frozen=True)
class Target:
    """A language to translate into: its code (ISO 639-1) and its English name."""

    code: str
    name: str


@dataclass(frozen=True)
class Answer:
    """What came back for one string, and what it took. An empty text is none that could be used.

    ``refused``: why the service will not read the string at all; that costs nothing.
    """

    text: str
    characters: int
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model: str = ""
    refused: str | None = None


Keep = Callable[[Mapping[str, Answer]], None]
"""Given the answers to some of the strings, by the string."""


class Engine(Protocol):
    """An open translator; it may hold a model or connections, so close it. How long a string may be, its spec says."""

    def translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        """Translate distinct strings from English.

        Args:
            keep: given every answer once, the moment it is there, for it may have been paid for. What it raises ends
                the work; requests under way by then are still answered and kept.

        Raises:
            EnvironmentProblem: the service refuses the key, the model or the settings, or the model cannot run here.
            Unreachable: the service did not answer for longer than the tries last.
            BudgetReached: whatever the turns given to the engine raise.
        """

    def close(self) -> None:
        """Let go of what it holds."""


def packed(strings: Sequence[str], most: int, characters: int) -> Iterator[list[str]]:
    """The strings in their order, in packs of at most so many, and so many characters (or one string)."""
    pack: list[str] = []
    size = 0
    for string in strings:
        if pack and (len(pack) == most or size + len(string) > characters):
            yield pack
            pack, size = [], 0
        pack.append(string)
        size += len(string)
    if pack:
        yield pack
