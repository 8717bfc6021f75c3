"""A figure on its way to the disk: PNG for screens, PDF for print, and its numbers as CSV.

Every figure and caption names the judge and the base model, because a figure travels without its page. The same
numbers are the same bytes: no date is written anywhere.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Drawing

from orchestrator.report.canvas import STYLE
from orchestrator.report.outputs import Outputs
from orchestrator.report.views import Figure, ReportContext

_SCREEN_PIXELS = 92
"""Pixels on a screen to an inch of print, for text that can be read."""


@dataclass(frozen=True)
class Print:
    """One figure before it is drawn."""

    name: str
    title: str
    text: str
    """The caption, but for what every caption says."""
    alt: str
    """What it shows, in a sentence or two with its main numbers."""
    draw: Callable[[str, str], Drawing]
    """Given the title and the line below it."""
    csv: str
    missing: int = 0
    """Values that are not there."""
    below: str = ""
    """What the line below the title adds to base and judge."""


def write(planned: Print, context: ReportContext, outputs: Outputs) -> Figure:
    """Draw a figure and write its three files, ``<sweep>-<name>.png``, ``.pdf`` and ``.csv``.

    Raises:
        trainables.errors.UserError: as :meth:`Outputs.write`.
    """
    stem = f"{context.sweep}-{planned.name}"
    subtitle = f"base model {context.base} · judge {context.judge}"
    if planned.below:
        subtitle += f" · {planned.below}"
    with matplotlib.rc_context(STYLE):
        drawn = planned.draw(planned.title, subtitle)
        png, pdf = _bytes(drawn, "png"), _bytes(drawn, "pdf")
        width = int(drawn.get_figwidth() * _SCREEN_PIXELS)
    many = planned.missing
    note = f" {many} {'value is' if many == 1 else 'values are'} missing." if many else ""
    return Figure(
        name=planned.name,
        title=planned.title,
        caption=f"{planned.text}{note} Base model: {context.base}. Judge: {context.judge}.",
        png=outputs.write(f"{stem}.png", png),
        pdf=outputs.write(f"{stem}.pdf", pdf),
        csv=outputs.write(f"{stem}.csv", planned.csv),
        alt=f"{planned.title}. {planned.alt}{note} All numbers are in {stem}.csv.",
        width=width,
        missing=many,
    )


def csv(numbers: pd.DataFrame) -> str:
    """Rows as CSV with a header, two digits; what is missing is empty."""
    text = io.StringIO()
    numbers.to_csv(text, index=False, float_format="%.2f", lineterminator="\n")
    return text.getvalue()


def _bytes(drawn: Drawing, kind: str) -> bytes:
    metadata = {"Software": "Pinch"} if kind == "png" else {"Creator": "Pinch", "CreationDate": None}
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=kind, metadata=metadata, dpi=200)
    return buffer.getvalue()
