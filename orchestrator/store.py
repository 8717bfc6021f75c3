"""What is done, proved by content.

A step is made in an *attempt*, a folder on this machine, and published at once with a manifest that is written last:
a result is either there whole or not there, presence of files is never completion, and the first of two attempts
wins. What does not hold against its manifest is put in quarantine with the reason, and is made again.

Where it all lies, in a folder or in an object store, is for `orchestrator.storage` to know; data files are parquet,
safetensors and JSON, never pickle.

This module must never know what a step means.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import re
import socket
import time
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.environment import environment
from orchestrator.identity import KEY_SCHEMA, KINDS, Step
from orchestrator.leases import Sessions
from orchestrator.ledger import Ledger
from orchestrator.storage import (
    Attempt,
    Entry,
    Spoiled,
    Storage,
    StorageAway,
    TakenOver,
    measure,
    open_storage,
    write_json,
)
from orchestrator.storage.base import HEX_64, as_json, files_below, is_weights, parsed
from orchestrator.store_index import Listing, listed
from trainables.errors import UserError

__all__ = ["MARKER", "Corrupt", "Entry", "Store", "write_json"]

MARKER = "pinch-store.json"
GLANCE, GLANCES = 2.0, 20
"""A listing of a store elsewhere is good enough for who only looks for so many seconds, and so many times as long as it
took: a million results are a thousand requests, and a run must not spend its time on them."""


class Corrupt(Exception):
    """A published result that does not hold against its manifest; it has been quarantined."""


class Store:
    """A store at a folder, ``s3://BUCKET/PREFIX`` or ``gs://BUCKET/PREFIX``; safe to use from several sessions at once.

    Raises:
        UserError: when the location cannot be a store (not a folder, no such bucket, no credentials).
        EnvironmentProblem: it does not answer.
    """

    def __init__(self, location: str | Path, session: str | None = None) -> None:
        """Args:
        session: the running session in whose name this is used, by its workers.
        """
        self.storage: Storage = open_storage(str(location))
        if session is None:  # workers trust whoever sent them
            self.storage.refuse_links()
        self.storage.patient = session is not None
        self.sessions = Sessions(self.storage, session)
        self._proved: set[tuple[str, str]] = set()
        self._known: dict[str, dict[str, Entry]] = {}
        self._names: dict[str, Container[str]] = {}
        self._stale: dict[str, float] = {}
        self._listings: dict[str, Listing] = {}
        marker = self.storage.read(MARKER)
        self.exists = marker is not None
        """Whether there was a store when this was opened, or has been made since by :meth:`create`."""
        self.schema = (parsed(marker) or {}).get("schema") if self.exists else KEY_SCHEMA
        self.writable_schema = self.schema == KEY_SCHEMA

    @property
    def location(self) -> str:
        """Where it is, as ``--store`` would name it."""
        return self.storage.location

    @property
    def root(self) -> Path:
        """A folder on this machine that goes with the store: the store itself, or, of a store elsewhere, one for
        attempts under way and for what can be made from the store again (reports, tracking)."""
        return self.storage.root

    @property
    def elsewhere(self) -> bool:
        """Whether the store is something else than :attr:`root`."""
        return str(self.root) != self.location

    def refuse_another_schema(self) -> None:
        """To be called before anything is written, freed or moved.

        Raises:
            UserError: the store holds keys of another schema, and is read-only.
        """
        if not self.writable_schema:
            raise UserError(
                f"--store {self.location}: was written with key schema {self.schema} and this version writes "
                f"{KEY_SCHEMA}; it can be read but not changed. Name another folder."
            )

    def create(self) -> None:
        """Make the place and its marker; must be called before anything is written.

        Raises:
            UserError: when it cannot be written, or holds keys of another schema (read-only then).
        """
        self.refuse_another_schema()
        try:
            self.storage.prepare()
            self.storage.create(MARKER, as_json({"schema": KEY_SCHEMA, "made_by": "pinch"}))
        except StorageAway:
            raise
        except OSError as problem:
            raise UserError(
                f"--store {self.location}: cannot be written ({problem.strerror}); name a folder you may write to."
            ) from problem
        self.storage.patient = self.exists = True

    # What is there

    def refresh(self) -> None:
        """Forget what was listed, so that other sessions' results are seen."""
        self._known.clear()
        self._stale.clear()

    def entries(self, kind: str) -> dict[str, Entry]:
        """key -> entry, for every result of a kind that its manifest and, in a folder, the sizes of its files prove."""
        known = self._known.setdefault(kind, {})
        for entry in self.storage.results(kind, {key[:16] for key in known}):
            known[entry.key] = entry
        return known

    def listing(self, kind: str) -> Listing:
        """Every result of a kind, without its files; of many, from an index (see `orchestrator.store_index`)."""
        self._listings[kind] = listed(self.storage, kind, self._listings.get(kind))
        return self._listings[kind]

    def listings(self, steps: Iterable[Step]) -> dict[str, Listing]:
        """The listing of every kind that these steps are of."""
        return {kind: self.listing(kind) for kind in {step.kind for step in steps}}

    def find(self, kind: str, key: str) -> Entry | None:
        """The published result of a step, or None."""
        entry = self.storage.find(kind, key, self._known.get(kind, {}).get(key))
        if entry is not None:
            self._known.setdefault(kind, {})[key] = entry
        return entry

    def glance(self, kind: str, key: str) -> Entry | None:
        """As :meth:`find`, for who looks for many that may not be there, and can wait: what another session published
        lately may be missing."""
        if not self.elsewhere:
            return self.find(kind, key)
        if (known := self._known.get(kind, {}).get(key)) is not None:
            return known
        began = time.monotonic()
        if began >= self._stale.get(kind, -math.inf):
            self._names[kind] = {name[-16:] for name in self.storage.stamps(kind)}
            now = time.monotonic()
            self._stale[kind] = now + max(GLANCE, GLANCES * (now - began))
        return self.find(kind, key) if key[:16] in self._names[kind] else None

    def foresee(self, kind: str) -> None:
        """Read at once what :meth:`glance` would read one by one, for who looks for all there are."""
        if self.elsewhere:
            self.entries(kind)

    def use(self, entry: Entry, part: str = "", weights: bool = True) -> Path:
        """The folder of a result on this machine, its digests checked at the first use.

        Args:
            part: a folder of the result that is all that is needed.
            weights: whether a model's weights are needed too.

        Raises:
            Corrupt: when a file is missing or changed; the result is in quarantine by then.
        """
        names = [name for name in entry.manifest["files"] if name.startswith(f"{part}/") or not part]
        return self._proven(entry, [name for name in names if weights or not is_weights(name)])

    def file(self, entry: Entry, name: str) -> Path:
        """One file of a result on this machine, where only that is needed; its digest checked at the first use.

        Raises:
            Corrupt: as :meth:`use`.
        """
        return self._proven(entry, [name]) / name

    def _proven(self, entry: Entry, names: list[str]) -> Path:
        fresh = [name for name in names if (entry.key, name) not in self._proved]
        try:
            self.storage.prove(entry, fresh)
            folder = self.storage.bring(entry, names)
        except Spoiled as problem:
            self.quarantine(entry, str(problem))
            raise Corrupt(f"{entry.place.name}: {problem}") from None
        self._proved |= {(entry.key, name) for name in fresh}
        return folder

    def relatives(self, step: Step) -> list[Entry]:
        """Results of the same family, largest first: what a larger step can take over."""
        found = (self.find(step.kind, made.key) for made in self.listing(step.kind).of_family(step.family))
        return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.bytes)

    # Making something

    def attempt(self, step: Step) -> Path:
        """A folder of one's own to make a step in."""
        return self.storage.begin(step.folder, self._about(step))

    def save(self, attempt: Path) -> None:
        """See that what is in an attempt now can be adopted although this machine is lost."""
        self.storage.save(attempt)

    def adopt(self, step: Step) -> Path | None:
        """The fullest attempt that was left at this step, now ours; None when there is none.

        To be called by the holder of the step's lease: nobody else is to work on it, so an attempt of another session
        is left by it, and one of our own is a try that was lost.
        """
        left_here = [attempt for attempt in self.storage.attempts() if attempt.about["key"] == step.key]
        for left in sorted(left_here, key=lambda one: -len(one.files)):
            ours = self.storage.take(left, step.folder, self._about(step))
            if ours is not None:
                return ours
        return None

    def abandoned(self, tell: Callable[[float], None] = lambda seconds: None) -> list[Attempt]:
        """Attempts whose session is dead; ``tell`` as in `Sessions.dead`."""
        attempts = list(self.storage.attempts())
        dead = self.sessions.dead((attempt.about["session"] for attempt in attempts), tell)
        return [attempt for attempt in attempts if attempt.about["session"] in dead]

    def publish(self, step: Step, attempt: Path, facts: dict[str, Any]) -> Entry:
        """Make an attempt the step's result, atomically; when another was first, theirs stands and ours is dropped.

        Args:
            facts: what the work says of itself (row counts, seconds, device), JSON.

        Raises:
            TakenOver: the attempt is not ours any more.
        """
        try:
            files = {name: measure(attempt / name) for name in files_below(attempt)}
        except FileNotFoundError:
            raise TakenOver(attempt.name) from None
        manifest = {
            "schema": KEY_SCHEMA,
            "kind": step.kind,
            "name": step.name,
            "key": step.key,
            "family": step.family,
            "payload": step.payload,
            "files": files,
            "facts": facts,
            "made": {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "user": getpass.getuser(),
                "host": socket.gethostname(),
                "session": self.sessions.id,
                **environment(),
            },
        }
        entry = self.storage.publish(attempt, step.folder, manifest)
        self._known.setdefault(step.kind, {})[step.key] = entry
        with contextlib.suppress(StorageAway):  # it is published, whatever was said of it before
            self.forget_failure(step.key)
        return entry

    def discard(self, attempt: Path | Attempt) -> None:
        """Drop an attempt that will not be published."""
        self.storage.discard(attempt)

    def free(self, entry: Entry, names: Iterable[str]) -> int:
        """Remove files of a result that nothing needs any more; the manifest says so first. Returns bytes freed."""
        self._known.get(entry.kind, {}).pop(entry.key, None)
        return self.storage.free(entry, names)

    def ledger(self, name: str) -> Ledger:
        """What was paid for under a name; see `orchestrator.ledger`."""
        return Ledger(self.storage, name)

    def ledgers(self) -> set[str]:
        """The names under which something is kept."""
        return {name.split("/")[1] for name in self.storage.names("ledger")}

    def _about(self, step: Step) -> dict[str, str]:
        return {"kind": step.kind, "key": step.key, "session": self.sessions.id}

    # What went wrong

    def record_failure(self, step: Step, error: str, for_good: bool = True) -> None:
        """Remember, with its whole error, that a step failed: for good, or (``given_up``) until the next run tries."""
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about = {"kind": step.kind, "name": step.name, "key": step.key, "at": at, "host": socket.gethostname()}
        folder = "failures" if for_good else "given_up"
        self.storage.write(f"{folder}/{step.key}.json", as_json({**about, "error": error}))

    def failures(self, for_good: bool = True) -> dict[str, dict[str, str]]:
        """key -> what was recorded, for every step that failed for good, or that the last run gave up."""
        recorded = self.storage.read_all("failures" if for_good else "given_up").values()
        found = (failure for content in recorded if (failure := parsed(content)) is not None)
        return {
            failure["key"]: failure
            for failure in found
            if re.fullmatch(HEX_64, str(failure.get("key"))) and isinstance(failure.get("error"), str)
        }

    def forget_failure(self, key: str) -> None:
        self.storage.remove(f"failures/{key}.json", f"given_up/{key}.json")

    def verify(self) -> Iterator[tuple[PurePosixPath, str | None]]:
        """Check every result against its manifest; what does not hold is quarantined.

        Yields:
            (``<kind>/<name>-<key16>``, problem or None).
        """
        for kind in KINDS:
            for place, entry in self.storage.everything(kind):
                problem = "no readable manifest" if entry is None else self._problem(entry)
                if problem is not None:
                    self._quarantine(place, problem, entry)
                yield place, problem

    def _problem(self, entry: Entry) -> str | None:
        for name, expected in entry.manifest["files"].items():
            found = self.storage.measure(entry, name)
            if found is None:
                return f"{name} is missing"
            if found != expected:
                return f"{name} does not have the content its manifest names"
        return None

    def quarantine(self, entry: Entry, reason: str) -> None:
        """Take a result that does not hold out of the way, with the reason beside it."""
        self._quarantine(entry.place, reason, entry)

    def distrust(self, step: Step) -> None:
        """Take out of the way what lies in a step's place and is no result."""
        self._quarantine(PurePosixPath(step.kind, step.folder), "it is no result", None)

    def _quarantine(self, place: PurePosixPath, reason: str, entry: Entry | None) -> None:
        """The same for what may have no manifest."""
        self.storage.quarantine(place, reason, entry)
        if entry is not None:
            self._known.get(entry.kind, {}).pop(entry.key, None)
