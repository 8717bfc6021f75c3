"""What the commands about results print. Apart from :mod:`orchestrator.show`, for what planning need not import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.plan import Plan
from orchestrator.report.tables import agreement_table
from orchestrator.saying import say
from orchestrator.scores import summaries
from orchestrator.scores.score_table import ScoreTable, as_csv, columns, write_tables
from orchestrator.scores.sentences import intervals_note
from orchestrator.show import say_json
from orchestrator.store import Store


def scores(
    plan: Plan,
    store: Store,
    path: Path | None,
    judge: str | None,
    console: Console,
    *,
    quality: bool = False,
    averages: Path | None = None,
    differences: Path | None = None,
) -> None:
    """The score table as CSV, and how much of it is there; averages and differences in files of their own."""
    table = ScoreTable(plan, store, judge)
    rows, names = table.rows(quality), columns(quality)
    files = {} if path is None else {"--csv": (path, as_csv(rows, names))}
    if averages is not None:
        files["--averages"] = (averages, summaries.as_csv(summaries.averages(table)))
    if differences is not None:
        files["--differences"] = (differences, summaries.as_csv(summaries.differences(table)))
    write_tables(files)
    if path is None:
        sys.stdout.write(as_csv(rows, names))
    have = sum(row["if_score"] is not None for row in rows)
    say(
        console,
        f"{have} of {len(rows)} rows have a score (judge {table.judge}, base {plan.base_source.label}).",
    )
    if averages is not None or differences is not None:
        say(console, intervals_note(len(plan.sweep.seeds.train)))


def agreement(found: dict[str, Any], console: Console) -> None:
    """Who agrees with whom as JSON, and the paper's table 3 for people."""
    say_json(found)
    told = agreement_table(found)
    table = Table(
        box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", title=told.title, title_justify="left"
    )
    for place, column in enumerate(told.columns):
        # a word on a line, so that nothing is cut where lines are of 80 characters
        table.add_column(column.replace(" ", "\n"), justify="right" if place else "left", no_wrap=True)
    for row in told.rows:
        table.add_row(*row)
    console.print(table)
