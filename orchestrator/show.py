"""What the commands print. Tables for people go to stderr, CSV and JSON for programs to stdout."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator import gpu_memory, translations
from orchestrator.cost import estimate, human_bytes
from orchestrator.exit_status import ExitStatus
from orchestrator.export.licences import licences
from orchestrator.keeping import collect
from orchestrator.outline import Outline
from orchestrator.plan import Plan, mixture_rows
from orchestrator.review import STATES, Outlook, Standing, explained, outlooks
from orchestrator.saying import say
from orchestrator.store import Store
from orchestrator.sweep import LoadedSweep

_quoted = json.encoder.encode_basestring
LABELS = {
    "base": "base model",
    "corpus": "corpora",
    "translation": "translations",
    "fine_tune": "fine-tunes",
    "selection": "selections",
    "generation_set": "response sets",
    "comparison": "comparisons",
}


def settings(loaded: LoadedSweep) -> None:
    """Every resolved setting, its value and where it came from, as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("setting", "value", "from"))
    for setting in loaded.settings:
        writer.writerow((setting.name, json.dumps(setting.value, ensure_ascii=False), setting.origin))


def settings_json(loaded: LoadedSweep) -> None:
    """The same for programs."""
    rows = [{"setting": setting.name, "value": setting.value, "from": setting.origin} for setting in loaded.settings]
    say_json({"settings": rows})


def plan_json(plan: Plan, store: Store) -> None:
    """The plan for programs; the same bytes for the same sweep and store."""
    models = [
        {
            "key": model.key,
            "name": model.name,
            "mixture": dict(model.rule.counts) if model.rule else {},
            "studies": list(model.studies),
        }
        for model in plan.models
    ]
    steps = (
        {
            "kind": look.step.kind,
            "key": look.step.key,
            "name": look.step.name,
            "action": look.action,
            "reason": look.reason,
        }
        for look in outlooks(plan, store)
    )
    translation = {"translation": translations.as_json(plan, store)} if plan.translating else {}
    terms = [dataclasses.asdict(licence) for licence in licences(plan)]
    say_json({**plan.counts(), **translation, "models": models, "steps": steps, "licences": terms})


def plan(plan: Plan, store: Store, console: Console) -> None:
    """The plan for people."""
    counts = plan.counts()
    actions: dict[str, Counter[str]] = {kind: Counter() for kind in LABELS}
    reasons: Counter[tuple[str, str]] = Counter()
    for look in outlooks(plan, store):
        actions[look.step.kind][look.action] += 1
        if look.action != "reuse" and _telling(look):
            reasons[look.action, look.reason] += 1
    say(
        console,
        f"{plan.sweep.name}: {counts['listed_models']} models listed -> {counts['fine_tunes']} to tune, "
        f"{counts['generation_sets']} sets to generate, {counts['comparisons']} comparisons to judge "
        f"({counts['judge_calls']:,} calls)",
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "run", "reuse", "wait", "blocked", "time, one after another"):
        table.add_column(column, justify="left" if not column else "right")
    expected = estimate(plan, store, {kind: counted["run"] for kind, counted in actions.items()})
    for kind, label in LABELS.items():
        seconds = expected.seconds.get(kind)
        time = "unknown" if seconds is None else f"{seconds / 60:.1f} min" if seconds else "-"
        table.add_row(label, *(str(actions[kind][action]) for action in ("run", "reuse", "wait", "blocked")), time)
    console.print(table)
    for (action, reason), count in reasons.most_common(8):
        say(console, f"  {action} {count}: {reason}")
    if expected.disk_bytes is not None:
        say(
            console,
            f"Disk: about {human_bytes(expected.disk_bytes)} more at the peak (keep: {plan.sweep.runtime.keep}).",
        )
    if translating := translations.sentence(plan, store):
        say(console, translating)
    if expected.gpu_cost is not None:
        say(console, f"Cost: about {expected.gpu_cost:.2f}.")
    for note in [*expected.notes, *gpu_memory.told(plan, store)]:
        say(console, note)
    say(console, "Licences:")
    for licence in licences(plan):
        say(console, f"  {licence.name} ({licence.what}): {licence.terms}")


def status_json(plan: Plan, store: Store) -> None:
    """Status for programs: counts per kind and state, and every step that is not done."""
    errors = {**store.failures(for_good=False), **store.failures()}
    rows = []
    counts: dict[str, Counter[str]] = {}
    for look in outlooks(plan, store):
        counts.setdefault(look.step.kind, Counter())[look.state] += 1
        if look.state != "done":
            row = {"kind": look.step.kind, "name": look.step.name, "key": look.step.key, "state": look.state}
            error = errors[look.step.key]["error"] if look.step.key in errors else None
            rows.append({**row, "why": look.reason, **({"error": error} if error else {})})
    say_json({"sweep": plan.sweep.name, "counts": counts, "steps": rows})


def status(outline: Outline, store: Store, console: Console) -> None:
    """Status for people; of a large sweep in seconds, as only what is not as expected is looked at one by one."""
    standing = Standing(outline, store)
    counts = standing.count()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", *STATES):
        table.add_column(column, justify="left" if not column else "right")
    for kind, label in LABELS.items():
        table.add_row(label, *(str(counts[kind][state]) for state in STATES))
    console.print(table)
    for row, holder in standing.holders.items():
        say(console, f"Running: {outline.name(row)}, by {holder}")
    failed = standing.failed()
    blocked = {f"blocked by {outline.name(row)}": count for row in failed if (count := standing.behind(row))}
    for line in explained([(outline.name(row), standing.error(row)) for row in failed], blocked):
        say(console, line)
    for row, reason in standing.given_up.items():
        say(console, f"{outline.name(row)}: {reason}")
    if failed:
        say(
            console,
            f"Whole errors: {store.location}/failures, or status --json; pinch run --retry-failed tries them again.",
        )
    if standing.done.all():
        say(console, "Everything is done.")


def mixture(plan: Plan, name: str) -> None:
    """One mixture as CSV."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows = list(mixture_rows(plan.find_model(name)))
    writer.writerow(("id", "language"))
    writer.writerows(rows)


def verify(store: Store, console: Console) -> int:
    """Check everything; exit status 1 when something did not hold."""
    store.refuse_another_schema()
    good, bad = 0, []
    for path, problem in store.verify():
        if problem is None:
            good += 1
        else:
            bad.append(f"{path}: {problem}; quarantined, the next run makes it again")
    for line in bad:
        say(console, line)
    say(console, f"{good} results hold, {len(bad)} did not.")
    return ExitStatus.SOME_FAILED if bad else ExitStatus.DONE


def gc(store: Store, dry_run: bool, console: Console) -> None:
    """Free what may go."""
    if not dry_run:
        store.refuse_another_schema()
    freed, notes = collect(store, dry_run, lambda sentence: say(console, sentence))
    for item in freed:
        say(console, f"{human_bytes(item.bytes):>9}  {item.what}")
    for note in notes:
        say(console, note)
    total = human_bytes(sum(item.bytes for item in freed))
    say(console, f"{total} would be freed." if dry_run else f"{total} freed.")


def _telling(look: Outlook) -> bool:
    return not look.reason.startswith("not made yet")


def say_json(value: Any) -> None:
    """Print JSON. A list that is made while it is printed may be an iterator, at the top level of ``value``."""
    out = sys.stdout
    for place, (name, item) in enumerate(value.items()):
        out.write(("," if place else "{") + f"\n {json.dumps(name)}: ")
        if isinstance(item, Iterator):
            written = -1
            for written, row in enumerate(item):
                out.write(("," if written else "[") + "\n  " + _indented(row, 2))
            out.write("[]" if written < 0 else "\n ]")
        else:
            out.write(_indented(item, 1))
    out.write("\n}\n")


def _indented(value: Any, depth: int) -> str:
    """JSON as ``json.dumps(indent=1)`` writes it at a depth, quickly where it is an object of plain texts."""
    before = "\n" + " " * depth
    if isinstance(value, dict) and value and all(type(text) is str for text in value.values()):
        return (
            "{"
            + ",".join([f"{before} {_quoted(name)}: {_quoted(text)}" for name, text in value.items()])
            + before
            + "}"
        )
    return json.dumps(value, ensure_ascii=False, indent=1).replace("\n", before)
