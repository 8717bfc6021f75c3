"""`pinch annotate`: sheets out to people, their answers back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.options import DEFAULT_STORE, SetOption, StoreOption, SweepArgument, err, plan_of, store_at
from orchestrator.saying import say

annotate = typer.Typer(
    help="Ask people which of two responses is better, and how good each is.",
    no_args_is_help=True,
    epilog="Example: pinch annotate export demo --out sheets",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@annotate.command("export", epilog="Example: pinch annotate export demo --out sheets")
def export(
    sweep: SweepArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the sheets go.")],
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    languages: Annotated[
        list[str], typer.Option("--language", metavar="CODE", help="Ask in this one; may be repeated. Default: all.")
    ] = [],  # noqa: B006
    count: Annotated[int, typer.Option(help="Instructions in each language.", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw; the same seed asks the same.", min=0)] = 0,
) -> None:
    """Draw instructions with the responses of two monolingual models, sides hidden, as HTML and CSV to fill in."""
    from orchestrator.people.asking import export as export_sheets

    for line in export_sheets(plan_of(sweep, overrides), store_at(store), out, languages, count, seed):
        say(err, line)


@annotate.command("import", epilog="Example: pinch annotate import demo ann.csv ben.csv")
def take_in(
    sweep: SweepArgument,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What the sheets made, as CSV.")],
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    replace: Annotated[
        bool, typer.Option("--replace", help="New answers of a rater take the place of other ones.")
    ] = False,
) -> None:
    """Check people's answers and put them into the store, all or none."""
    from orchestrator.people.annotations import take_in as import_answers

    for line in import_answers(plan_of(sweep, overrides), store_at(store), files, replace):
        say(err, line)
