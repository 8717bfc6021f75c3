"""What several commands are told, SWEEP, --store and --set, and what they make of it.

Nothing heavy is imported before a command needs it, so that `pinch --help` answers at once.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.console import Console

from orchestrator.saying import say
from trainables.errors import UserError

err = Console(stderr=True)

SweepArgument = Annotated[
    str, typer.Argument(metavar="SWEEP", help="A path ending in .yaml, or a shipped name, such as demo or paper.")
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="PINCH_STORE", help="Where the results are: a folder, s3://BUCKET/..., gs://BUCKET/..."
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="A.B=V", help="Override a setting of the sweep; may be repeated."),
]
DEFAULT_STORE = "./pinch-store"


def sweep_of(sweep: str, overrides: list[str]) -> Any:
    """The sweep as asked for; see :func:`orchestrator.sweep.load`."""
    from orchestrator.sweep import load

    return load(sweep, overrides)


def plan_of(sweep: str, overrides: list[str]) -> Any:
    """Its plan; see :class:`orchestrator.plan.Plan`."""
    from orchestrator.plan import Plan

    return Plan(sweep_of(sweep, overrides))


def store_at(location: str) -> Any:
    """The store there; see :class:`orchestrator.store.Store`."""
    from orchestrator.store import Store

    return Store(location)


def results_at(location: str, option: str = "--store") -> Any:
    """The store there, for a command that reads results; says so where there are none.

    Args:
        option: by which it was named, where that is another.
    """
    try:
        opened = store_at(location)
    except UserError as problem:
        raise UserError(re.sub(r"^--store\b", option, str(problem))) from None
    if not opened.exists:
        said = f"{option} {location}: there is no store here yet; pinch run makes one, or name another."
        say(err, said)
    return opened
