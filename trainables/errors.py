"""The ways in which work can end badly, told apart because each asks something else of the reader."""

from __future__ import annotations

import reprlib
from typing import Any


class UserError(Exception):
    """Bad input: the message names the file, the key, what was found, and the cure. The command exits 2."""


class EnvironmentProblem(Exception):
    """This machine or a service cannot do what was asked: something is missing, full or unreachable. Exit 3."""


class StepFailed(Exception):
    """A step that would fail again on the same input (a loss that is not a number, say); recorded, not retried."""


class BudgetReached(Exception):
    """Paid work has cost what it may; what was paid for is kept, and a higher limit goes on from there."""


class Unreachable(Exception):
    """A service gave no answer for longer than the patience with it lasts; later it may."""


class LaneDied(Exception):
    """The lane's workers are gone or do not answer; the job may be run again in another lane."""


_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 80


def shown(value: Any) -> str:
    """A value as an error shows it: as Python writes it, its middle left out where it is long."""
    return _brief.repr(value)


def cut(text: str, most: int) -> str:
    """A text of ``most`` characters or so, its middle left out where it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"
