"""What is done, proved by content.

``<store>/<kind>/<name>-<key16>/`` holds a step's data and ``manifest.json``, which is written last. An attempt has
a folder of its own under ``attempts/``; publishing is one atomic rename, so a result is either there whole or not
there: presence of a folder is never completion, and the first of two attempts wins. What does not hold against
its manifest goes to ``quarantine/`` with the reason, and is made again. A folder whose manifest
names a file outside it or a link is not a result (`orchestrator.confined`).

The store is a folder. Plain ``os.rename`` and ``os.link`` are used where "fail if it exists" must be atomic, which
fsspec cannot express; data files are parquet (pyarrow), safetensors and JSON, never pickle.

This module must never know what a step means.
"""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestrator import confined
from orchestrator.environment import environment
from orchestrator.identity import KEY_SCHEMA, KINDS, Step
from orchestrator.leases import Sessions
from orchestrator.store_index import FOLDER as INDEX
from orchestrator.store_index import Listing, listed
from trainables.errors import EnvironmentProblem, UserError

MANIFEST = "manifest.json"
MARKER = "pinch-store.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published result: where it is and what its manifest says."""

    path: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        return self.manifest["key"]

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def kind(self) -> str:
        return self.manifest["kind"]

    @property
    def facts(self) -> dict[str, Any]:
        """What the work reported of itself: row counts, timings, scores."""
        return self.manifest["facts"]

    @property
    def bytes(self) -> int:
        return sum(file["bytes"] for file in self.manifest["files"].values())


class Corrupt(Exception):
    """A published result that does not hold against its manifest; it has been quarantined."""


class Store:
    """A store folder. Cheap to open; safe to use from several processes and sessions at once.

    Raises:
        UserError: when the location cannot be a store (not a folder, not writable, of a newer schema).
    """

    def __init__(self, location: str | Path, session: str | None = None) -> None:
        text = str(location)
        if not text:
            raise UserError("--store: names nothing; name a folder.")
        if "://" in text:
            raise UserError(f"--store {text}: only folders can be stores so far; name a folder.")
        self.root = Path(text).expanduser().absolute()
        if self.root.exists() and not self.root.is_dir():
            raise UserError(f"--store {text}: is a file, not a folder; name a folder.")
        self.sessions = Sessions(self.root, session)
        self._checked: set[str] = set()
        self._known: dict[str, dict[str, Entry]] = {}
        self._listings: dict[str, Listing] = {}
        marker = self.root / MARKER
        self.exists = marker.is_file()
        if self.exists:
            schema = json.loads(marker.read_text()).get("schema")
            self.writable_schema = schema == KEY_SCHEMA
            self.schema = schema
        else:
            self.writable_schema, self.schema = True, KEY_SCHEMA

    def refuse_another_schema(self) -> None:
        """To be called before anything is written, freed or moved.

        Raises:
            UserError: the store holds keys of another schema, and is read-only.
        """
        if not self.writable_schema:
            raise UserError(
                f"--store {self.root}: was written with key schema {self.schema} and this version writes {KEY_SCHEMA}; "
                "it can be read but not changed. Name another folder."
            )

    def create(self) -> None:
        """Make the folder and its marker; must be called before anything is written.

        Raises:
            UserError: when the folder cannot be written, or holds keys of another schema (read-only then).
        """
        self.refuse_another_schema()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            confined.refuse_links(self.root)
            probe = self.root / f".write-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
            marker = self.root / MARKER
            if not marker.exists():
                write_json(marker, {"schema": KEY_SCHEMA, "made_by": "pinch"})
        except OSError as problem:
            raise UserError(
                f"--store {self.root}: cannot be written ({problem.strerror}); name a folder you may write to."
            ) from problem

    # What is there

    def refresh(self) -> None:
        """Forget what was listed, so that other sessions' results are seen."""
        self._known.clear()

    def entries(self, kind: str) -> dict[str, Entry]:
        """key -> entry, for every result of a kind whose files are there with the sizes the manifest names."""
        known = self._known.setdefault(kind, {})
        folder = self.root / kind
        seen_paths = {entry.path for entry in known.values()}
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if path not in seen_paths and (entry := _read_entry(path, kind)) is not None:
                    known[entry.key] = entry
        return known

    def listing(self, kind: str) -> Listing:
        """Every result of a kind, without its files; of many, from an index (see `orchestrator.store_index`)."""
        folder = self.root / kind
        stamps = {}
        if folder.is_dir():
            with os.scandir(folder) as found:
                stamps = {entry.name: str(entry.inode()) for entry in found}

        def read(name: str) -> dict[str, Any] | None:
            entry = _read_entry(folder / name, kind)
            return None if entry is None else entry.manifest

        file = self.root / INDEX / f"{kind}.parquet"
        self._listings[kind] = listed(file, stamps, read, self._listings.get(kind))
        return self._listings[kind]

    def find(self, kind: str, key: str) -> Entry | None:
        """The published result of a step, or None."""
        known = self._known.get(kind, {}).get(key)
        if known is not None and known.path.is_dir():
            return known
        for path in (self.root / kind).glob(f"*-{key[:16]}"):
            entry = _read_entry(path, kind)
            if entry is not None and entry.key == key:
                self._known.setdefault(kind, {})[key] = entry
                return entry
        return None

    def use(self, entry: Entry) -> Path:
        """The folder of a result, its digests checked at the first use in this session.

        Raises:
            Corrupt: when a file is missing or changed; the result is in quarantine by then.
        """
        if entry.key not in self._checked:
            problem = check(entry)
            if problem is not None:
                self.quarantine(entry.path, problem)
                raise Corrupt(f"{entry.path.name}: {problem}")
            self._checked.add(entry.key)
        return entry.path

    def relatives(self, step: Step) -> list[Entry]:
        """Results of the same family, largest first: what a larger step can take over."""
        found = (self.find(step.kind, made.key) for made in self.listing(step.kind).of_family(step.family))
        return sorted((entry for entry in found if entry is not None), key=lambda entry: -entry.bytes)

    # Making something

    def attempt(self, step: Step) -> Path:
        """A folder of one's own to make a step in."""
        path = self.root / "attempts" / f"{step.folder}.{uuid.uuid4().hex[:12]}"
        path.mkdir(parents=True)
        write_json(path / "attempt.json", {"key": step.key, "session": self.sessions.id})
        return path

    def adopt(self, step: Step) -> Path | None:
        """The fullest attempt at this step that nobody works on any more, now ours; None when there is none.

        To be called by the holder of the step's lease: an attempt of our own session is then a try that was lost.
        """
        left = sorted(self.abandoned(step.key), key=lambda path: len(list(path.glob("*"))), reverse=True)
        for path in left:
            if links := confined.links(path):
                self.quarantine(path, f"{links[0]} is a link")
                continue
            ours = path.with_name(f"{step.folder}.{uuid.uuid4().hex[:12]}")
            try:
                os.rename(path, ours)
            except OSError:
                continue  # another session was faster
            write_json(ours / "attempt.json", {"key": step.key, "session": self.sessions.id})
            return ours
        return None

    def abandoned(self, key: str | None = None) -> Iterator[Path]:
        """Attempts whose session is dead; at one step, also those of this session (see :meth:`adopt`)."""
        folder = self.root / "attempts"
        for path in folder.iterdir() if folder.is_dir() else ():
            try:
                about = json.loads((path / "attempt.json").read_text())
            except (OSError, json.JSONDecodeError):
                about = {"key": None, "session": ""}
            session = about["session"]
            dead = not self.sessions.alive(session) or (key is not None and session == self.sessions.id)
            if key in (None, about["key"]) and dead:
                yield path

    def publish(self, step: Step, attempt: Path, facts: dict[str, Any]) -> Entry:
        """Make an attempt the step's result, atomically; when another was first, theirs stands and ours is dropped.

        Args:
            facts: what the work says of itself (row counts, seconds, device), JSON.
        """
        (attempt / "attempt.json").unlink(missing_ok=True)
        manifest = {
            "schema": KEY_SCHEMA,
            "kind": step.kind,
            "name": step.name,
            "key": step.key,
            "family": step.family,
            "payload": step.payload,
            "files": {name: _measure(attempt / name) for name in confined.files(attempt)},
            "facts": facts,
            "made": {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "user": getpass.getuser(),
                "host": socket.gethostname(),
                "session": self.sessions.id,
                **environment(),
            },
        }
        write_json(attempt / MANIFEST, manifest)
        target = self.root / step.kind / step.folder
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                os.rename(attempt, target)
                entry = Entry(target, manifest)
                break
            except OSError as problem:
                if not target.exists():
                    raise EnvironmentProblem(f"{target}: could not be published ({problem})") from problem
            there = _read_entry(target, step.kind)
            if there is not None:
                shutil.rmtree(attempt, ignore_errors=True)
                entry = there
                break
            self.quarantine(target, "no manifest that holds")
        else:
            raise EnvironmentProblem(f"{target}: something that is not a result keeps coming back there")
        self._known.setdefault(step.kind, {})[step.key] = entry
        self.forget_failure(step.key)
        return entry

    def discard(self, attempt: Path) -> None:
        """Drop an attempt that will not be published."""
        shutil.rmtree(attempt, ignore_errors=True)

    def free(self, entry: Entry, names: Iterable[str]) -> int:
        """Remove files of a result that nothing needs any more; the manifest says so first. Returns bytes freed."""
        manifest = json.loads((entry.path / MANIFEST).read_text())
        gone = {name: manifest["files"].pop(name) for name in names if name in manifest["files"]}
        if not gone:
            return 0
        manifest.setdefault("freed", {}).update(gone)
        write_json(entry.path / MANIFEST, manifest)
        for name in gone:
            (entry.path / name).unlink(missing_ok=True)
        for folder in sorted({(entry.path / name).parent for name in gone} - {entry.path}, reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        self._known.get(entry.kind, {}).pop(entry.key, None)
        return sum(file["bytes"] for file in gone.values())

    # What went wrong

    def quarantine(self, path: Path, reason: str) -> Path:
        """Move what does not hold out of the way, with the reason beside it."""
        folder = self.root / "quarantine" / f"{path.parent.name}-{path.name}.{uuid.uuid4().hex[:8]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, folder)
            if not folder.is_symlink():
                (folder / "reason.txt").write_text(reason + "\n")
        except FileNotFoundError:
            pass  # another session moved it first
        for known in self._known.values():
            for key in [key for key, entry in known.items() if entry.path == path]:
                del known[key]
        return folder

    def record_failure(self, step: Step, error: str, for_good: bool = True) -> None:
        """Remember, with its whole error, that a step failed: for good, or (``given_up``) until the next run tries."""
        folder = self.root / ("failures" if for_good else "given_up")
        folder.mkdir(exist_ok=True)
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about = {"kind": step.kind, "name": step.name, "key": step.key, "at": at, "host": socket.gethostname()}
        write_json(folder / f"{step.key}.json", {**about, "error": error})

    def failures(self, for_good: bool = True) -> dict[str, dict[str, str]]:
        """key -> what was recorded, for every step that failed for good, or that the last run gave up."""
        folder = self.root / ("failures" if for_good else "given_up")
        found = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
        return {failure["key"]: failure for failure in found}

    def forget_failure(self, key: str) -> None:
        for folder in ("failures", "given_up"):
            (self.root / folder / f"{key}.json").unlink(missing_ok=True)

    def verify(self) -> Iterator[tuple[Path, str | None]]:
        """Check every result against its manifest; what does not hold is quarantined. Yields (path, problem)."""
        for kind in KINDS:
            for path in sorted((self.root / kind).iterdir()) if (self.root / kind).is_dir() else ():
                entry = _read_entry(path, kind, sizes=False)
                problem = "no readable manifest" if entry is None else check(entry)
                if problem is not None:
                    self.quarantine(path, problem)
                yield path, problem


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w") as file:
            json.dump(value, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check(entry: Entry) -> str | None:
    """What is wrong with a result's files, or None."""
    for name, expected in entry.manifest["files"].items():
        path = entry.path / name
        if path.is_symlink() or not path.is_file():
            return f"{name} is missing"
        if _measure(path) != expected:
            return f"{name} does not have the content its manifest names"
    return None


def _read_entry(path: Path, kind: str, sizes: bool = True) -> Entry | None:
    if path.is_symlink():
        return None
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except (OSError, json.JSONDecodeError):
        return None
    if not confined.inside(path, manifest.get("files", {})):
        return None
    if manifest.get("kind") != kind or not str(path.name).endswith(str(manifest.get("key", ""))[:16] or "\0"):
        return None
    if sizes:
        for name, expected in manifest["files"].items():
            try:
                found = os.lstat(path / name)
                if found.st_size != expected["bytes"] or not stat.S_ISREG(found.st_mode):
                    return None
            except OSError:
                return None
    return Entry(path, manifest)


def _measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
