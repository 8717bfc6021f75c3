"""What a store asks of the place it lies in.

Two kinds of things lie there. *Records* are small (a lease, a heartbeat, a recorded failure, a batch of paid answers)
and are read and written whole. *Results* are folders of files with a manifest; they are made in an *attempt*, a
folder on this machine, and published at once or not at all.

Everything that two sessions may do at the same time comes down to three operations that a place must offer atomically:
``create`` (fails if it exists), ``replace`` (fails if it is not what it was) and ``publish`` (the first wins).

A storage must never know what a step or a session means.
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from orchestrator.storage import confined
from trainables.errors import EnvironmentProblem

Manifest = dict[str, Any]

HEX_64 = "^[0-9a-f]{64}$"
ABOUT = "attempt.json"
"""What an attempt in a folder says of itself."""


class StorageAway(EnvironmentProblem, OSError):
    """The place did not answer, or refused, for longer than the patience with it lasts. An OSError as a full disk
    is."""

    @property
    def strerror(self) -> str:  # type: ignore[override]
        return str(self)


class Spoiled(Exception):
    """A file of a result is missing or is not what its manifest says."""


class TakenOver(Exception):
    """An attempt is not this session's any more: who holds the step's lease now went on with it, or it was dropped."""

    def __init__(self, attempt: str) -> None:
        super().__init__(f"attempt {attempt} is no longer this session's: another one has taken over")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A published result: its manifest, and where its files are."""

    place: PurePosixPath
    """``<kind>/<name>-<key16>``, of the store."""
    manifest: Manifest

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


def is_weights(name: str) -> bool:
    """Whether a file of a model is its weights."""
    return name.endswith(".safetensors")


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An attempt somebody began: who, at what, and how much of it lies in the store."""

    name: str
    about: Mapping[str, Any]
    files: Mapping[str, int]
    """Name -> bytes."""
    record: bytes = b""
    """What the place itself remembers of it."""


class Appender(Protocol):
    """Adds to a growing record; what was added stays when the process is killed."""

    def add(self, lines: bytes) -> None:
        """Raises OSError when it could not be kept."""

    def close(self) -> None: ...


class Storage(abc.ABC):
    """A place for one store. Cheap to make; safe to use from several threads, processes and machines at once.

    Names are relative, with ``/`` between folders. What cannot be read or written raises an OSError,
    :class:`StorageAway` among them.
    """

    location: str
    """As the user would name it, absolute."""
    root: Path
    """A folder on this machine that goes with the store: the store itself, or, of a store elsewhere, one for attempts
    under way and for what can be made from the store again."""
    beat_every: float
    """Seconds between two heartbeats that are worth their price here."""
    dead_after: float
    """Seconds without a change of heartbeat after which a session that cannot be looked at directly counts as dead."""
    patient: bool = False
    """Whether an outage is waited out for minutes, as a run does; else somebody sits there, and is told soon."""

    # The place itself

    @abc.abstractmethod
    def exists(self) -> bool:
        """Whether anything was ever written here."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """See that the place can be written.

        Raises:
            OSError: it cannot.
        """

    @abc.abstractmethod
    def look(self) -> int:
        """See that it can be written, and leave nothing there; returns the bytes free in its folder on this machine.

        Raises:
            UserError, EnvironmentProblem: it cannot, and what to do.
        """

    @abc.abstractmethod
    def free_bytes(self) -> int | None:
        """How much more fits; None where that is not known."""

    @abc.abstractmethod
    def refuse_links(self) -> None:
        """See that what is written here lands here.

        Raises:
            UserError: something in it is a link to elsewhere.
        """

    # Records

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """A record, or None."""

    @abc.abstractmethod
    def read_all(self, folder: str) -> dict[str, bytes]:
        """Every record below a folder, by its whole name, sorted."""

    @abc.abstractmethod
    def names(self, folder: str) -> list[str]:
        """The whole names of all records below a folder, sorted."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Put a record, over one that is there; a reader sees the old one or the new."""

    @abc.abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Put a record if there is none; False when there is another. Atomic.

        Two who put the same may both be told that they did, for an answer can get lost and a content cannot.
        """

    @abc.abstractmethod
    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        """The same in the place of exactly ``old``; False when something else, or nothing, is there. Atomic."""

    @abc.abstractmethod
    def remove(self, *names: str) -> None:
        """Remove records; those that are not there need no removing."""

    @abc.abstractmethod
    def appender(self, folder: str) -> Appender:
        """A growing record of this process's own below a folder; nothing is written before the first line."""

    # Results

    @abc.abstractmethod
    def stamps(self, kind: str) -> dict[str, str]:
        """What lies where results of a kind lie, at the cost of listing it: name -> stamp.

        A name ends in the first 16 digits of a key. A stamp is another when the result of that name was made again.
        """

    @abc.abstractmethod
    def read_results(self, kind: str, stamps: Mapping[str, str]) -> Iterator[tuple[str, Entry]]:
        """Those of some names that are published results, each with its name; in no order."""

    def results(self, kind: str, known: Container[str]) -> Iterator[Entry]:
        """Published results of a kind, but for those whose keys' first 16 digits are known."""
        fresh = {name: stamp for name, stamp in sorted(self.stamps(kind).items()) if name[-16:] not in known}
        return (entry for _, entry in self.read_results(kind, fresh))

    @abc.abstractmethod
    def find(self, kind: str, key: str, known: Entry | None) -> Entry | None:
        """One result, or None. ``known``: what was found before, which may be taken for true where looking costs."""

    @abc.abstractmethod
    def bring(self, entry: Entry, names: Iterable[str]) -> Path:
        """The folder of a result on this machine, with at least these files in it.

        Raises:
            Spoiled: one of them cannot be had as the manifest describes it (only where it has to be fetched).
        """

    @abc.abstractmethod
    def measure(self, entry: Entry, name: str) -> dict[str, Any] | None:
        """Bytes and sha256 of a file as it lies in the store now, or None when it is not there."""

    @abc.abstractmethod
    def prove(self, entry: Entry, names: Iterable[str]) -> Path:
        """As :meth:`bring`, and every digest is checked on this machine.

        Raises:
            Spoiled: a file is missing, or not what the manifest says.
        """

    @abc.abstractmethod
    def free(self, entry: Entry, names: Iterable[str]) -> int:
        """Remove files of a result; its manifest says so first (under ``freed``). Returns bytes freed."""

    @abc.abstractmethod
    def quarantine(self, place: PurePosixPath, reason: str, entry: Entry | None) -> None:
        """Take a result, or what should be one, out of the way, with the reason; it may be gone already."""

    @abc.abstractmethod
    def everything(self, kind: str) -> Iterator[tuple[PurePosixPath, Entry | None]]:
        """All that lies where results of a kind lie, by place; None for what has no manifest that can be read."""

    # Attempts

    @abc.abstractmethod
    def begin(self, folder: str, about: Mapping[str, Any]) -> Path:
        """A new folder on this machine to make a result in."""

    @abc.abstractmethod
    def here(self, name: str) -> Path:
        """An attempt of ours by its folder's name, on this machine, as it was made here or saved elsewhere.

        Raises:
            OSError: it was not.
        """

    @abc.abstractmethod
    def save(self, attempt: Path) -> None:
        """See that what is in an attempt now outlives this machine, as far as the place can promise that.

        Raises:
            TakenOver: it is not ours any more.
        """

    @abc.abstractmethod
    def attempts(self) -> Iterator[Attempt]:
        """Every attempt that was begun and not ended, of any session."""

    @abc.abstractmethod
    def take(self, attempt: Attempt, folder: str, about: Mapping[str, Any]) -> Path | None:
        """Make somebody's attempt ours; None when another was faster. Whoever had it can no longer publish it."""

    @abc.abstractmethod
    def publish(self, attempt: Path, folder: str, manifest: Manifest) -> Entry:
        """Make an attempt a result, or, when another was first, drop it; returns the one that stands.

        Raises:
            TakenOver: it is not ours any more.
            EnvironmentProblem, OSError: it could not be; the attempt is still there.
        """

    @abc.abstractmethod
    def discard(self, attempt: Path | Attempt) -> None:
        """Drop an attempt."""


def standing(path: Path) -> Path:
    """The nearest folder of a path that is there."""
    while not path.exists():
        path = path.parent
    return path


class _File(BaseModel):
    """What a manifest says of a file."""

    model_config = ConfigDict(strict=True)

    bytes: NonNegativeInt
    sha256: str = Field(pattern=HEX_64)


class _Form(BaseModel):
    """What every manifest has, in whatever store it was found."""

    model_config = ConfigDict(strict=True)

    kind: str
    name: str
    key: str = Field(pattern=HEX_64)
    family: str = Field(pattern=HEX_64)
    payload: dict[str, Any]
    facts: dict[str, Any]
    made: dict[str, Any]
    files: dict[str, _File]


def sound(manifest: Any, kind: str, key16: str) -> bool:
    """Whether something is the manifest of the result at a place, and names nothing outside of it."""
    try:
        form = _Form.model_validate(manifest)
    except ValidationError:
        return False
    return form.kind == kind and form.key[:16] == key16 and confined.lead_inside(form.files)


def without(manifest: Manifest, names: Iterable[str]) -> tuple[Manifest, dict[str, dict[str, Any]]]:
    """A manifest that says of some files that they were freed, and these files as it named them."""
    files = dict(manifest["files"])
    gone = {name: files.pop(name) for name in names if name in files}
    return {**manifest, "files": files, "freed": {**manifest.get("freed", {}), **gone}}, gone


def parsed(content: bytes | None) -> Any:
    """A record's JSON object, or None where there is none, only half of one, or something else."""
    try:
        found = None if content is None else json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def as_json(value: Any) -> bytes:
    """How records and manifests are written."""
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    write_whole(path, as_json(value))


def write_whole(path: Path, content: bytes, put: Callable[[Path, Path], None] = os.replace) -> None:
    """Write a file beside its place, then ``put`` it there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def measure(path: Path) -> dict[str, Any]:
    """``bytes`` and ``sha256`` of a file, as manifests name them."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def files_below(folder: Path) -> list[str]:
    """The relative names of all files that an attempt has made, sorted; what it says of itself is none of them.

    Raises:
        EnvironmentProblem: there is a link among them.
    """
    if found := confined.links(folder):
        raise EnvironmentProblem(f"{folder}: {found[0]} is a link, and a result holds files only")
    return [name for name in confined.files(folder) if name != ABOUT]
