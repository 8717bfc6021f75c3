"""Sentences for a reader. Nothing in them is obeyed: no markup of rich's, nothing that would steer a terminal.

Names, errors and hosts come from stores, judges and logs, which may be somebody else's.
"""

from __future__ import annotations

import re

from rich.console import Console


def say(console: Console, sentence: str) -> None:
    """One line, or several, as they are; the terminal wraps them."""
    console.print(visible(sentence), markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """A text whose control characters, surrogates and direction overrides are shown instead of obeyed."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", _shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"
