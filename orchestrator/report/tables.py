"""The paper's tables: 1, the Slavic languages; 3, how far the judge agrees with people; 4, the orders of languages; and
all the languages of a sweep.

A table is text in cells, for a page to show as it likes; :func:`write_tables` sets it for print as well. Published
values stand in columns of their own. This module must never know where an agreement comes from, only its form.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing

from orchestrator.languages import MAIN12, SLAVIC, any_language
from orchestrator.report import published
from orchestrator.report.canvas import INK, QUIET, RULE, drawing
from orchestrator.report.cells import mean
from orchestrator.report.outputs import Outputs
from orchestrator.report.prints import Print, write
from orchestrator.report.ratings import wilson
from orchestrator.report.views import Figure, ReportContext, StudyView, clean, language_name, study_rows

JUDGE = "judge"
"""The judge's name among raters."""


@dataclass(frozen=True)
class Table:
    """A table as text; an empty cell is missing, or does not apply."""

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    fields: tuple[str, ...] = ()
    """The CSV's header, where the columns' headings would not do."""

    def csv(self) -> str:
        """The table as CSV with a header."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([self.fields or self.columns, *self.rows])
        return out.getvalue()


def tables(
    table: pd.DataFrame,
    studies: Sequence[StudyView],
    *,
    agreement: Mapping[str, Any] | None = None,
    pretraining: Mapping[str, float] | None = None,
) -> list[Table]:
    """The tables that a sweep has something for.

    Args:
        table: the score table; its rows, with scores or without, tell the orders of a permutations study.
        agreement: as ``pinch agreement`` prints it; without it there is no table 3.
        pretraining: percent of the base's pre-training documents in each language, for a column of the languages'.
    """
    used = dict.fromkeys(code for study in studies for code in (*study.languages, *study.evaluate_in))
    slavic = [
        study for study in studies if study.kind in ("slavic", "monolingual") and set(study.languages) <= {*SLAVIC}
    ]
    found: list[Table] = []
    if slavic:
        found.append(_slavic(slavic[0].languages))
    found.append(_languages(list(used), pretraining or {}))
    if agreement is not None:
        found.append(agreement_table(agreement))
    scores = clean(table)
    for study in studies:
        if study.kind == "permutations":
            found += _orders(study_rows(scores, study), study)
    return found


def write_tables(found: Sequence[Table], context: ReportContext, out: Path) -> list[Figure]:
    """Write tables into a folder, as ``<sweep>-<table>.png``, ``.pdf`` and ``.csv``.

    Raises:
        trainables.errors.UserError: when the folder cannot be written to, or somebody's own file has a table's name.
    """
    outputs = Outputs(out)
    return [write(_print(one), context, outputs) for one in found]


def _print(table: Table) -> Print:
    return Print(
        name=table.name,
        title=table.title,
        text=table.caption,
        alt=f"A table of {len(table.rows)} rows.",
        draw=lambda title, subtitle: _draw(table, title, subtitle),
        csv=table.csv(),
    )


# What each table holds


def _slavic(codes: Sequence[str]) -> Table:
    rows = []
    for code in codes:
        entry = any_language(code)
        branch = entry.family.partition("(")[2].rstrip(")") or entry.family
        other = entry.mutually_intelligible
        understood = any_language(other).name if other in codes and other else ""
        rows.append((entry.name, code, branch, entry.script, understood))
    columns = ("Language", "Code", "Branch", "Script", "Mutually intelligible with")
    caption = "As table 1 of the paper: the Slavic languages, and which are understood without being learnt."
    return Table("table-slavic", "The Slavic languages", caption, columns, tuple(rows))


def _languages(codes: Sequence[str], pretraining: Mapping[str, float]) -> Table:
    ordered = [code for code in MAIN12 if code in codes] + [code for code in codes if code not in MAIN12]
    rows = []
    for code in ordered:
        entry = any_language(code)
        row = (entry.name, code, entry.family, entry.script)
        rows.append((*row, f"{pretraining[code]:g}" if code in pretraining else "") if pretraining else row)
    columns = ("Language", "Code", "Family", "Script", *(("Pre-training, %",) if pretraining else ()))
    return Table(
        "table-languages", "The languages of this sweep", "What is tuned on and evaluated in.", columns, tuple(rows)
    )


def agreement_table(found: Mapping[str, Any]) -> Table:
    """Table 3, from what :func:`orchestrator.scores.agreement.agreement` finds."""
    theirs = published.agreement().set_index("language")
    parts: dict[str, list[Mapping[str, Any]]] = dict(found["languages"]) or {"all": list(found["overall"])}
    rows = []
    for code in [*(one for one in theirs.index if one in parts), *(one for one in parts if one not in theirs.index)]:
        judge = [entry for entry in parts[code] if JUDGE in entry["raters"]]
        people = [entry for entry in parts[code] if JUDGE not in entry["raters"]]
        known = [f"{value:.1f}" for value in theirs.loc[code]] if code in theirs.index else ["", ""]
        rows.append((language_name(code), *_percent(judge), known[0], *_percent(people), known[1]))
    columns = ("Language", "Judge–people", "95% interval", "Published", "People–people", "95% interval", "Published")
    return Table(
        "table-agreement",
        "How far the judge agrees with people, in percent",
        "As table 3 of the paper. Agreement is 1, or 0.5 where one of two says tie; means over pairs of raters. "
        "Intervals (Wilson) are over instructions, and at their widest: ties only narrow them. Published: other "
        "responses, raters and judge.",
        columns,
        tuple(rows),
        (
            "language",
            *(f"{pair}{part}" for pair in ("judge_people", "people_people") for part in ("", "_95", "_published")),
        ),
    )


def _percent(entries: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    if not entries:
        return "", ""
    value = mean(float(entry["agreement"]) for entry in entries)
    low, high = wilson(value, max(int(entry["n"]) for entry in entries))
    return f"{value:.1f}", f"{low:.0f}–{high:.0f}"


def _orders(rows: pd.DataFrame, study: StudyView) -> Iterator[Table]:
    found = orders(rows)
    if not found:
        return
    longest = max(map(len, found))
    lines = tuple(
        (str(number), *map(language_name, order), *[""] * (longest - len(order)))
        for number, order in enumerate(found, 1)
    )
    columns = ("Order", *map(str, range(1, longest + 1)))
    caption = "As table 4 of the paper: a model is tuned on the first one, two, three and more languages of an order."
    yield Table(f"table-{study.label}", "The orders in which languages are added", caption, columns, lines)


def orders(rows: pd.DataFrame) -> list[list[str]]:
    """The orders of a permutations study, from the sequence of its rows: each order begins with one language, and the
    next mixture has one more. Empty where rows are missing, so that it cannot be told."""
    found: list[list[str]] = []
    before: set[str] = set()
    for joined in rows.loc[rows["seed"] == rows["seed"].min(), "train_languages"] if len(rows) else []:
        now = set(str(joined).split("+"))
        if now == before and len(now) > 1:
            continue
        if len(now) == 1:
            if now != before or len(found[-1]) > 1:
                found.append(sorted(now))
        elif len(now - before) == 1 and before < now:
            found[-1] += now - before
        else:
            return []
        before = now
    return found


# Print


def _draw(table: Table, title: str, subtitle: str) -> Drawing:
    """The table set in columns as wide as what they hold, rules above and below as in print."""
    cells = [table.columns, *table.rows]
    widths = [0.22 + 0.066 * max(len(row[place]) for row in cells) for place in range(len(table.columns))]
    line, head = 0.2, 0.62
    width = max(sum(widths) + 0.16, 4.2)
    height = head + line * (len(cells) + 0.5) + 0.1
    figure = drawing(width, height, title, subtitle)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    right = 0.08 + sum(widths)
    for y, colour, thick in ((head, INK, 1.0), (head + line * 1.1, QUIET, 0.6), (height - 0.1, INK, 1.0)):
        axes.plot([0.08, right], [y, y], color=colour, linewidth=thick)
    for number, row in enumerate(cells):
        y = head + line * (number + (0.55 if not number else 0.75))
        if number > 1:
            axes.plot([0.08, right], [y - line / 2] * 2, color=RULE, linewidth=0.4)
        left = 0.12
        for place, text in enumerate(row):
            weight = "bold" if not number or not place else "normal"
            axes.text(left, y, text, fontsize=7.5, fontweight=weight, va="center_baseline", color=INK)
            left += widths[place]
    return figure
