"""The sheet that people judge responses on: one HTML file for a browser without a network, or a CSV for a spreadsheet.

It shows an instruction and two responses and asks which is better and how good each is. Whose they are is nowhere in
it. The texts are somebody else's: they get the treatment of the report page (:mod:`orchestrator.report.responses`,
:mod:`orchestrator.report.document`), and in the CSV nothing is left that a spreadsheet would take for a formula.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from orchestrator.report.document import asset, policy, templates
from orchestrator.report.responses import direction, embedded
from orchestrator.report.views import language_name
from orchestrator.saying import visible

HEADER = ("item", "language", "instruction", "response_1", "response_2", "rater", "preference", "rating_1", "rating_2")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Question(NamedTuple):
    """One instruction and two responses, in the order they are shown."""

    id: str
    language: str
    instruction: str
    response_1: str
    response_2: str


def render(sweep: str, questions: Sequence[Question]) -> str:
    """The sheet as HTML. Its answers are kept by the browser under a name of these very questions."""
    style, script = asset("page.css") + asset("sheet.css"), asset("sheet.js")
    rows = [[one.id, one.language, *map(visible, one[2:])] for one in questions]
    codes = list(dict.fromkeys(one.language for one in questions))
    block = {
        "sweep": sweep,
        "sheet": hashlib.sha256(repr(rows).encode("utf-8", "replace")).hexdigest()[:16],
        "languages": {code: [language_name(code), direction(code)] for code in codes},
        "questions": rows,
    }
    return (
        templates()
        .get_template("sheet.html.j2")
        .render(
            sweep=sweep,
            codes=codes,
            per_language=max(sum(one.language == code for one in questions) for code in codes),
            data=Markup(embedded(block)),
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script),
        )
    )


def as_csv(questions: Sequence[Question]) -> str:
    """The sheet as CSV, with empty cells for the answers and a byte order mark, without which Excel misreads UTF-8."""
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    for one in questions:
        writer.writerow((one.id, one.language, *map(_text, one[2:]), "", "", "", ""))
    return out.getvalue()


def _text(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
