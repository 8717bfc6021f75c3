"""How a text becomes requests, and answers a text again.

At first the whole text is asked for, so that the engine sees what a line is about (an engine that would lose the lines
is asked line by line at once). Lines that do not hold are asked for again, alone and with other marks; lines that then
still do not hold are cut at their marks, and the pieces between them translated. A piece without an answer stays as it
was, and the text says so.

A text's course depends on nothing but the answers it got. So answers are kept as they arrive, under the digest of the
very string that was sent, and a course is replayed from them: after a kill nothing that was answered is asked again,
and a line that two texts share is paid for once.

This module must never know where answers are kept or who gives them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass

from trainables.translators.protect import Protected, has_letters, pieces, protect

_ONE_LINE = re.compile(r"\s*\n\s*")

Asking = Generator[list[str], list[str], "Translation"]
"""Yields strings to be translated, is sent their answers (empty where there is none), returns the text."""


@dataclass(frozen=True)
class Translation:
    """A text in the other language. ``left``: pieces that stayed as they were because they got no answer."""

    text: str
    left: int = 0


def digest(text: str) -> str:
    """The key of a string: its sha256 (64 hex digits)."""
    return hashlib.sha256(text.encode()).hexdigest()


def course(text: str, whole: bool, limit: int) -> Asking:
    """One text's way. ``whole``: the engine keeps lines; ``limit``: characters one string may have."""
    shape = protect(text)
    wordy = [place for place, line in enumerate(shape.lines) if line.wordy]
    made: dict[int, str] = {}
    styles: tuple[int, ...] = (0, 1)
    sent = _whole(shape, wordy) if whole and len(wordy) > 1 else None
    if sent is not None and len(sent) <= limit:
        (answer,) = yield [sent]
        made, styles = _lines_that_hold(shape, wordy, answer), (1,)
    for style in styles:
        wanted = [place for place in wordy if place not in made and len(shape.core(place, style)) <= limit]
        answers = (yield [shape.core(place, style) for place in wanted]) if wanted else []
        for place, answer in zip(wanted, answers, strict=True):
            if (line := shape.fits(place, answer)) is not None:
                made[place] = line
    left = 0
    for place in wordy:
        if place not in made:
            made[place], missed = yield from _in_pieces(shape, place, limit)
            left += missed
    lines = (made[place] if place in made else shape.original(place) for place in range(len(shape.lines)))
    return Translation("\n".join(lines), left)


def _whole(shape: Protected, wordy: list[int]) -> str:
    """All lines from the first to the last that has words, in one string."""
    return "\n".join(shape.core(place, 0) for place in range(wordy[0], wordy[-1] + 1))


def _lines_that_hold(shape: Protected, wordy: list[int], answer: str) -> dict[int, str]:
    """Of an answer to the whole text the lines that hold; none where the lines are not the same ones any more."""
    lines = dict(enumerate(answer.strip().split("\n"), wordy[0]))
    if len(lines) != wordy[-1] + 1 - wordy[0]:
        return {}
    found = {place: shape.fits(place, line) for place, line in lines.items()}
    for place, line in lines.items():
        core = shape.lines[place].core
        if bool(core) != bool(line.strip()) or (core and place not in wordy and found[place] is None):
            return {}
    return {place: held for place in wordy if (held := found[place]) is not None}


def _in_pieces(shape: Protected, place: int, limit: int) -> Generator[list[str], list[str], tuple[str, int]]:
    parts = list(pieces(shape.core(place, 0), limit))
    answers = iter((yield [piece for piece, asked in parts if asked]))
    said, left = [], 0
    for piece, asked in parts:
        answer = _ONE_LINE.sub(" ", next(answers).strip()) if asked else ""
        if asked and not has_letters(answer):
            left += 1
        said.append(answer if has_letters(answer) else shape.restored(piece))
    line = shape.lines[place]
    return line.lead + "".join(said) + line.trail, left


class Courses:
    """Many texts on their way at once."""

    def __init__(self, texts: Iterable[str], whole: bool, limit: int) -> None:
        self.done: dict[str, Translation] = {}
        """Text -> its translation, as far as they are through."""
        self.used: dict[str, None] = {}
        """Digests of the strings whose answers were needed so far."""
        self._waiting: dict[str, tuple[Asking, list[str]]] = {}
        for text in dict.fromkeys(texts):
            asking = course(text, whole, limit)
            self._move(text, asking, None)

    def wanted(self, known: Mapping[str, str]) -> list[str]:
        """Go as far as the known answers (digest of the string -> answer) lead; returns the strings missing then.

        Each string once, in the order of the texts. Nothing is wanted when all texts are through.
        """
        missing: dict[str, None] = {}
        for text in list(self._waiting):
            while text in self._waiting:
                asking, strings = self._waiting[text]
                lacking = [string for string in strings if digest(string) not in known]
                if lacking:
                    missing |= dict.fromkeys(lacking)
                    break
                keys = [digest(string) for string in strings]
                self.used |= dict.fromkeys(keys)
                self._move(text, asking, [known[key] for key in keys])
        return list(missing)

    def _move(self, text: str, asking: Asking, answers: list[str] | None) -> None:
        try:
            self._waiting[text] = (asking, asking.send(answers) if answers is not None else next(asking))
        except StopIteration as end:
            self._waiting.pop(text, None)
            self.done[text] = end.value
