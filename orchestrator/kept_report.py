"""The report a store keeps of a sweep, for whoever is told of a run when it ends: drawn again only when it changed.

It lies in ``reports/<sweep>/`` below the store's folder on this machine, with ``drawn.json``, written last, saying
what it was drawn from: which results are there and which failed, the sweep's settings, and this program's own files.
A report of the same is the same report, so a run that finds nothing to do draws nothing.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from orchestrator.environment import program
from orchestrator.identity import key_of
from orchestrator.plan import Plan
from orchestrator.store import Store, write_json

REPORTS = "reports"


@dataclasses.dataclass(frozen=True)
class KeptReport:
    """A report on the disk."""

    headline: str
    """Its first sentence."""
    files: tuple[Path, ...]
    """The page, then tables and figures."""


def kept_report(plan: Plan, store: Store) -> KeptReport:
    """The store's report of a sweep, drawn if there is none of what the store now holds.

    Raises:
        UserError, OSError: the store's folder cannot be written.
    """
    folder = store.root / REPORTS / plan.sweep.name
    drawn_from = _inputs(plan, store)
    known = _read(folder, drawn_from)
    if known is not None:
        return known
    from orchestrator.reporting import write_report  # here: it takes a second, and often nothing is to be drawn

    report = write_report(plan, store, _as_named(store), folder)
    names = [report.page.name, *(path.name for path in report.files)]
    write_json(folder / "drawn.json", {"from": drawn_from, "headline": report.headline, "files": names})
    return KeptReport(report.headline, tuple(folder / name for name in names))


def _read(folder: Path, drawn_from: str) -> KeptReport | None:
    try:
        known = json.loads((folder / "drawn.json").read_text())
    except (OSError, ValueError):
        return None
    files = tuple(folder / name for name in known["files"])
    whole = all(file.parent == folder and file.is_file() and not file.is_symlink() for file in files)
    return KeptReport(known["headline"], files) if known["from"] == drawn_from and whole else None


def _inputs(plan: Plan, store: Store) -> str:
    """A digest of everything a report is drawn from, made of manifests alone."""
    made = {}
    for kind in {step.kind for step in plan.steps}:
        listing = store.listing(kind)
        made.update({step.key: listing.made_at(step.key) for step in plan.of_kind(kind) if step.key in listing})
    failures = store.failures()
    failed = {step.key: failures[step.key]["error"] for step in plan.steps if step.key in failures}
    settings = plan.sweep.model_dump(mode="json")
    return key_of({"made": made, "failed": failed, "settings": settings, "program": program()})


def _as_named(store: Store) -> str:
    """The store as a user here would name it: not at all where it is the default one."""
    return "./pinch-store" if store.location == str(Path("pinch-store").absolute()) else store.location
