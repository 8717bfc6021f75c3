"""The `pinch` command: parse, call, print. What is for a program goes to stdout, what is for a person to stderr.

The exit status is one of :class:`orchestrator.exit_status.ExitStatus`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.annotate_cli import annotate
from orchestrator.exit_status import ExitStatus
from orchestrator.options import (
    DEFAULT_STORE,
    SetOption,
    StoreOption,
    SweepArgument,
    err,
    plan_of,
    results_at,
    store_at,
    sweep_of,
)
from orchestrator.saying import say
from trainables.errors import EnvironmentProblem, UserError

app = typer.Typer(
    name="pinch",
    help="How much multilingual data does an instruction-tuning set need? Sweeps of fine-tunes, judged side by side.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
app.add_typer(annotate, name="annotate", short_help="Ask people which response is better.")


@app.command(epilog="Example: pinch plan paper --json")
def plan(
    sweep: SweepArgument,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006  (typer copies it)
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: counts, models and steps, or the settings.")
    ] = False,
    settings: Annotated[
        bool, typer.Option("--settings", help="Every resolved setting and where it came from.")
    ] = False,
) -> None:
    """What would run, be reused, wait or is blocked, and why. Starts nothing; needs no data and no network."""
    from orchestrator import show

    if settings:
        asked = sweep_of(sweep, overrides)
        show.settings_json(asked) if as_json else show.settings(asked)
        return
    made = plan_of(sweep, overrides)
    opened = store_at(store)
    show.plan_json(made, opened) if as_json else show.plan(made, opened, err)


@app.command(epilog="Example: pinch run demo --set recipe.steps=50")
def run(
    sweep: SweepArgument,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    address: Annotated[str | None, typer.Option(metavar="RAY", help="A Ray cluster; default: this machine.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try again what failed for good.")] = False,
    session: Annotated[str | None, typer.Option(hidden=True)] = None,
    expect: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Do what is missing of a sweep. Also how an interrupted one goes on."""
    from orchestrator.run.session import run as run_session

    loaded = sweep_of(sweep, overrides)
    raise typer.Exit(run_session(loaded, store, err, address, retry_failed, session=session, expect=expect))


@app.command(epilog="Example: pinch submit demo --address http://127.0.0.1:8265 --store s3://bucket/sweeps")
def submit(
    sweep: SweepArgument,
    address: Annotated[
        str,
        typer.Option(
            metavar="DASHBOARD",
            envvar="RAY_API_SERVER_ADDRESS",
            help="The dashboard of a Ray cluster, such as http://127.0.0.1:8265.",
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    retry_failed: Annotated[bool, typer.Option(help="Try again what failed for good.")] = False,
) -> None:
    """Run a sweep as a job on a cluster and follow it; Ctrl-C leaves it running, the same command follows it again."""
    from orchestrator.submit.following import Following
    from orchestrator.submit.head import Head

    head = Head(address)
    following = Following(sweep_of(sweep, overrides), store, head, err, retry_failed=retry_failed)
    raise typer.Exit(following.run())


@app.command(
    short_help="Do the translations alone.", epilog="Example: pinch translate paper --set runtime.max_cost=100"
)
def translate(
    sweep: SweepArgument,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    address: Annotated[str | None, typer.Option(metavar="RAY", help="A Ray cluster; default: this machine.")] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try again what failed for good.")] = False,
) -> None:
    """Do the translations that a sweep's corpora lack, and nothing else. Also how interrupted ones go on."""
    from orchestrator.run.session import run as run_session

    raise typer.Exit(run_session(sweep_of(sweep, overrides), store, err, address, retry_failed, "translate"))


@app.command(epilog="Example: pinch status demo")
def status(
    sweep: SweepArgument,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What is done, running (and by whom), failed and blocked."""
    from orchestrator import show

    opened = results_at(store)
    if as_json:
        show.status_json(plan_of(sweep, overrides), opened)
    else:
        from orchestrator.outline import outline_of

        show.status(outline_of(sweep_of(sweep, overrides), opened), opened, err)


@app.command(short_help="The score table, as CSV.", epilog="Example: pinch scores demo --csv scores.csv")
def scores(
    sweep: SweepArgument,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write here instead of to stdout.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Scores of another judge whose verdicts are in the store."),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Five more columns: how far the judge can be trusted.")
    ] = False,
    averages: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write averages over languages here, as CSV.")
    ] = None,
    differences: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write each pinch against English only and uniform here, as CSV."),
    ] = None,
) -> None:
    """The score table as CSV, one row per study, model and evaluation language; also while running."""
    from orchestrator import show_scores

    made, opened = plan_of(sweep, overrides), results_at(store)
    show_scores.scores(made, opened, csv, judge, err, quality=quality, averages=averages, differences=differences)


@app.command(
    short_help="Differences of two sweeps, paired.",
    epilog="Example: pinch compare demo demo --set-b recipe.steps=200 > differences.csv",
)
def compare(
    sweep_a: Annotated[str, typer.Argument(metavar="SWEEP_A", help="A path ending in .yaml, or a shipped name.")],
    sweep_b: Annotated[str, typer.Argument(metavar="SWEEP_B", help="What is held against it.")],
    store: StoreOption = DEFAULT_STORE,
    store_b: Annotated[
        str | None, typer.Option("--store-b", metavar="STORE", help="The store of SWEEP_B, where it is another.")
    ] = None,
    overrides: SetOption = [],  # noqa: B006
    overrides_a: Annotated[list[str], typer.Option("--set-a", metavar="A.B=V", help="--set for SWEEP_A alone.")] = [],  # noqa: B006
    overrides_b: Annotated[list[str], typer.Option("--set-b", metavar="A.B=V", help="--set for SWEEP_B alone.")] = [],  # noqa: B006
) -> None:
    """How far B's scores differ from A's, paired by instruction, as CSV; cells match by study, model and language."""
    from orchestrator.scores.comparing import compare as compare_tables
    from orchestrator.scores.score_table import ScoreTable

    a = ScoreTable(plan_of(sweep_a, [*overrides, *overrides_a]), results_at(store))
    opened_b = results_at(store_b, "--store-b") if store_b else a.store
    b = ScoreTable(plan_of(sweep_b, [*overrides, *overrides_b]), opened_b)
    found = compare_tables(a, b)
    sys.stdout.write(found.as_csv())
    for sentence in found.sentences():
        say(err, sentence)


@app.command(short_help="Figures, CSVs and one HTML page.", epilog="Example: pinch report demo --out report")
def report(
    sweep: SweepArgument,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page, figures and CSVs go.")] = Path(
        "pinch-report"
    ),
    pretraining: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="language,percent: the base's pre-training documents in each language, for figure 8."
        ),
    ] = None,
) -> None:
    """Figures (PNG, PDF), their numbers (CSV) and one HTML page that opens from disk; also while running."""
    from orchestrator.report.shares import read_shares
    from orchestrator.reporting import write_report

    shares = read_shares(pretraining) if pretraining else None
    page = write_report(plan_of(sweep, overrides), results_at(store), store, out, shares).page
    say(err, f"Open {page} in a browser.")


@app.command(
    short_help="Which example is in which language, as CSV.",
    epilog="Example: pinch mixture paper pinch-12-n40 > mixture.csv",
)
def mixture(
    sweep: SweepArgument,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or 8 or more digits of its key.")],
    overrides: SetOption = [],  # noqa: B006
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """One model's mixture as CSV: every example id with its language."""
    from orchestrator import show

    show.mixture(plan_of(sweep, overrides), model)


@app.command(
    short_help="A tuned model, for transformers and vLLM.",
    epilog="Example: pinch export demo pinch-4-n40 ./pinch-4-n40",
)
def export(
    sweep: SweepArgument,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name, or 8 or more digits of its key.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet, or empty.")],
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    merged: Annotated[
        bool, typer.Option("--merged", help="Of a LoRA adapter, the complete model it makes of its base.")
    ] = False,
) -> None:
    """A tuned model with its card, in a folder that transformers and vLLM load."""
    from orchestrator.export.exporting import export as export_model

    said = export_model(plan_of(sweep, overrides), store_at(store), model, folder, merged)
    say(err, said)


@app.command(
    "score-verdicts",
    short_help="Score a table of verdicts, as JSON.",
    epilog="Example: pinch score-verdicts verdicts.csv",
)
def score_verdicts(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Columns instruction_id, order, choice.")],
) -> None:
    """Score any table of verdicts, with its interval, as JSON."""
    from orchestrator.scores.scoring import score
    from orchestrator.scores.verdicts import read_verdicts

    _print_json(score(read_verdicts(file)).as_dict())


@app.command(
    short_help="How far judge and people agree, as JSON.",
    epilog="Example: pinch agreement demo, or: pinch agreement raters.csv",
)
def agreement(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP|FILE.csv",
            help="A sweep with imported annotations, or a table instruction_id, rater, verdict[, language].",
        ),
    ],
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """Agreement between raters by the paper's rule, as JSON, and as table 3."""
    from orchestrator import show_scores
    from orchestrator.scores import agreement as rule

    if Path(source).suffix not in ("", ".yaml", ".yml"):
        ratings = rule.read_ratings(Path(source))
    else:
        from orchestrator.people.annotations import all_verdicts

        ratings = all_verdicts(plan_of(source, overrides), store_at(store))
    show_scores.agreement(rule.agreement(ratings), err)


@app.command(epilog="Example: pinch ui --store pinch-store")
def ui(
    store: StoreOption = DEFAULT_STORE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5000,
) -> None:
    """The MLflow UI on a store's sweeps."""
    from orchestrator.mlflow_place import DATABASE, settle
    from orchestrator.mlflow_ui import serve, ui_command, ui_pages
    from trainables.addresses import without_password

    elsewhere = os.environ.get("MLFLOW_TRACKING_URI")
    if elsewhere:
        where = without_password(elsewhere)
        raise UserError(f"MLFLOW_TRACKING_URI: sweeps are tracked at {where}; open that, or unset the variable.")
    opened = store_at(store)
    if opened.elsewhere:
        from orchestrator.run.records import tell_here

        tell_here(opened)
    if not (opened.root / DATABASE).exists():
        raise UserError(f"--store {store}: no sweep was tracked here yet; run one first, or name another store.")
    settle(opened.root)
    command, environment = ui_command(opened.root, host, port)
    say(err, f"MLflow on http://{host}:{port} (Ctrl-C ends it)")
    for sweep, page in ui_pages(opened.root, host, port).items():
        say(err, f"  {sweep}: {page}")
    raise typer.Exit(serve(command, {**os.environ, **environment}))


@app.command(short_help="Check every result in a store.", epilog="Example: pinch verify --store pinch-store")
def verify(store: StoreOption = DEFAULT_STORE) -> None:
    """Check every result in a store against its manifest; what does not hold is quarantined and made again later."""
    from orchestrator import show

    raise typer.Exit(show.verify(_existing(store), err))


@app.command(short_help="Free what is no longer needed.", epilog="Example: pinch gc --dry-run")
def gc(
    store: StoreOption = DEFAULT_STORE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed; free nothing.")] = False,
) -> None:
    """Free what the sweeps' keep rules allow, and what dead sessions left behind."""
    from orchestrator import show

    show.gc(_existing(store), dry_run, err)


@app.command(
    short_help="What this machine, or a cluster, can run.",
    epilog="Example: pinch doctor, or: pinch doctor paper --address 10.0.0.1:6379",
)
def doctor(
    sweep: Annotated[
        str | None, typer.Argument(metavar="[SWEEP]", help="Look at what this sweep needs too: models, disk.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    overrides: SetOption = [],  # noqa: B006
    address: Annotated[str | None, typer.Option(metavar="RAY", help="A Ray cluster; default: this machine.")] = None,
) -> None:
    """What this machine, or every node of a cluster, can run, and what to do about what it cannot."""
    from orchestrator.doctor import examine

    raise typer.Exit(examine(store, address, plan_of(sweep, overrides) if sweep else None, err))


def _existing(location: str) -> Any:
    """A store that may be changed; a folder that is not one is left alone."""
    opened = store_at(location)
    if not opened.exists:
        found = "is not a store" if opened.storage.exists() else "nothing is there"
        raise UserError(f"--store {location}: {found}; name the place of a store, which holds pinch-store.json.")
    return opened


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def main() -> None:
    """Run the command, and turn the three ways of ending badly into words and an exit status."""
    try:
        app()
    except UserError as problem:
        say(err, str(problem))
        sys.exit(ExitStatus.BAD_INPUT)
    except EnvironmentProblem as problem:
        say(err, str(problem))
        sys.exit(ExitStatus.ENVIRONMENT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.DONE)
    except Exception as problem:  # noqa: BLE001  (the last line of defence: it is shown whole)
        from orchestrator.store import Corrupt

        if isinstance(problem, Corrupt):
            cure = "It is in quarantine now; make it again: pinch run"
            say(err, f"{problem}. {cure}")
            sys.exit(ExitStatus.ENVIRONMENT)
        err.print_exception()
        err.print("This is an error in Pinch; please report it with the lines above.", markup=False)
        sys.exit(ExitStatus.ENVIRONMENT)


if __name__ == "__main__":
    main()
