"""What no translation may touch, and how it is kept from being touched: code, addresses, names in braces, lines.

Before a text is sent, every such part is replaced by a mark (``⟦0⟧``); a code block becomes one mark on one line.
Indentation and list markers are cut off and never sent. What comes back is believed line by line: a line holds when it
is one line, is not empty, and has the very marks that were there, each as often. Only a line that holds gets its parts
back.

This module must never know who translates.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

STYLES = ("⟦{}⟧", "<x{}/>")
"""How marks are spelled at first and, for an engine that breaks these, once more."""

_MARK = re.compile(r"⟦\s*(\d{1,6})\s*⟧|<\s*[xX]\s*(\d{1,6})\s*/\s*>")
"""A mark as engines give it back: spaces and the digits of other scripts get into it."""

_PROTECTED = re.compile(
    r"""
    ^[ \t]* (?P<fence>`{3,}|~{3,}) [^`\n]* \n (?s:.*?) (?: (?P=fence) [ \t\r]* $ | \Z )  # a fenced block, closed or not
  | (?:\A|(?<=\n\n)) [ ]{4} [^\n]* [{}()\[\];=<>\\] [^\n]* (?: \n (?=[ ]{4}) [^\n]* )*   # an indented block, if code
  | (?P<tick>`{1,3})(?!`) [^\n]+? (?<!`)(?P=tick)(?!`)                                   # code in a line
  | \$\$ [^$]+ \$\$ | \\\( [^\n]+? \\\) | \\\[ (?s:.{1,2000}?) \\\]                       # formulas
  | (?:https?://|ftp://|www\.) [^\s<>"'`\]}]* [^\s<>"'`\]}.,;:!?)]                       # an address, not its full stop
  | (?<![\w.+-]) [\w.+-]+ @ [\w-]+ (?:\.[\w-]+)+
  | \{{1,3} [ ]? [^\s{}]{1,80} [ ]? \}{1,3}                                              # {0}, {name}, {{place}}
  | ⟦\s*\d{1,6}\s*⟧ | <\s*[xX]\s*\d{1,6}\s*/\s*>                                         # what only looks like a mark
    """,
    re.VERBOSE | re.MULTILINE,
)

_LEAD = re.compile(r"\s*(?:(?:[-*+•–—>]|\#{1,6}|\(?\d{1,3}[.)]|[A-Za-z]\))\s+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?;:…])\s+")


@dataclass(frozen=True)
class Line:
    """One line of a text. ``core`` is what may be sent; a mark in it stands for a part of the text."""

    lead: str
    core: str
    trail: str

    @property
    def wordy(self) -> bool:
        """Whether there is anything to translate: a letter outside the marks."""
        return has_letters(_MARK.sub("", self.core))


@dataclass(frozen=True)
class Protected:
    """A text cut into lines, its protected parts taken out."""

    lines: tuple[Line, ...]
    parts: tuple[str, ...]
    """What the marks stand for, by their number."""

    def core(self, place: int, style: int) -> str:
        """A line to send, its marks in a style."""
        return _MARK.sub(lambda mark: STYLES[style].format(_number(mark)), self.lines[place].core)

    def fits(self, place: int, answer: str) -> str | None:
        """The translated line, whole again; None where the answer does not hold."""
        line, answer = self.lines[place], answer.strip()
        if not answer or "\n" in answer or _marks(answer) != _marks(line.core):
            return None
        return line.lead + self.restored(answer) + line.trail

    def restored(self, text: str) -> str:
        """A text in which marks are what they stand for again."""
        return _MARK.sub(lambda mark: self.parts[_number(mark)], text)

    def original(self, place: int) -> str:
        """A line as it was."""
        line = self.lines[place]
        return line.lead + self.restored(line.core) + line.trail


def protect(text: str) -> Protected:
    """Take out of a text what must not be touched; :meth:`Protected.original` of all lines is the text again."""
    parts: list[str] = []

    def take(part: re.Match[str]) -> str:
        parts.append(part[0])
        return STYLES[0].format(len(parts) - 1)

    return Protected(tuple(_line(line) for line in _PROTECTED.sub(take, text).split("\n")), tuple(parts))


def pieces(core: str, limit: int) -> Iterator[tuple[str, bool]]:
    """A line cut at its marks, and between them into at most ``limit`` characters where a sentence or word ends.

    Yields (piece, whether it is to be translated); together the pieces are the line. For engines that break every mark.
    """
    end = 0
    for mark in _MARK.finditer(core):
        yield from _chunks(core[end : mark.start()], limit)
        yield mark[0], False
        end = mark.end()
    yield from _chunks(core[end:], limit)


def prose(text: str) -> str:
    """A text without its protected parts: what a language can be told from."""
    return _PROTECTED.sub(" ", text)


def has_letters(text: str) -> bool:
    """Whether a text has a letter of any script."""
    return any(unicodedata.category(character)[0] == "L" for character in text)


def _line(text: str) -> Line:
    lead = _LEAD.match(text)
    start = lead.end() if lead else 0
    core = text[start:].rstrip()
    return Line(text[:start], core, text[start + len(core) :])


def _chunks(text: str, limit: int) -> Iterator[tuple[str, bool]]:
    """Sentences packed up to the limit; a sentence beyond it is cut between words, a word beyond it anywhere."""
    while text:
        end = len(text)
        if end > limit:
            ends = [found.end() for found in _SENTENCE_END.finditer(text, 0, limit)]
            space = max(text.rfind(" ", 1, limit), text.rfind("\t", 1, limit)) + 1
            end = ends[-1] if ends else space or limit
        head, text = text[:end], text[end:]
        body = head.strip()
        before = head[: len(head) - len(head.lstrip())] if body else head
        if before:
            yield before, False
        if body:
            yield body, has_letters(body)
            if len(before) + len(body) < len(head):
                yield head[len(before) + len(body) :], False


def _number(mark: re.Match[str]) -> int:
    return int(mark[1] or mark[2])


def _marks(text: str) -> Counter[int]:
    return Counter(_number(mark) for mark in _MARK.finditer(text))
