"""A store that is a folder, on this machine or shared by several.

Plain ``os.rename`` and ``os.link`` are used where "fail if it exists" must be atomic, which fsspec cannot express.
``<kind>/<name>-<key16>/`` is a result when its ``manifest.json`` holds: an attempt writes it last, and publishing is
one rename, so presence of a folder is never completion. A link is never a result, nor a file of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.storage import confined
from orchestrator.storage.base import (
    ABOUT,
    Attempt,
    Entry,
    Manifest,
    Spoiled,
    Storage,
    TakenOver,
    measure,
    parsed,
    sound,
    standing,
    without,
    write_json,
    write_whole,
)
from trainables.errors import EnvironmentProblem, UserError

MANIFEST = "manifest.json"


class Folder(Storage):
    """See the module."""

    beat_every, dead_after = 2.0, 30.0

    def __init__(self, location: str | Path) -> None:
        """Raises:
        UserError: there is a file of that name.
        """
        try:
            self.root = Path(location).expanduser().absolute()
            a_file = self.root.exists() and not self.root.is_dir()
        except (OSError, RuntimeError, ValueError) as problem:
            raise UserError(f"--store {location}: is not the name of a folder ({problem}); name a folder.") from problem
        self.location = str(self.root)
        if a_file:
            raise UserError(f"--store {location}: is a file, not a folder; name a folder.")

    def exists(self) -> bool:
        return self.root.is_dir()

    def prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.refuse_links()
        probe = self.root / f".write-{uuid.uuid4().hex}"
        probe.write_bytes(b"")
        probe.unlink()

    def refuse_links(self) -> None:
        confined.refuse_links(self.root)

    def look(self) -> int:
        try:
            with tempfile.TemporaryFile(dir=standing(self.root)):
                return self.free_bytes()
        except OSError as problem:
            raise UserError(
                f"--store {self.location}: cannot be written ({problem.strerror}); name a folder you may write to."
            ) from problem

    def free_bytes(self) -> int:
        return shutil.disk_usage(standing(self.root)).free

    # Records

    def read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, folder: str) -> dict[str, bytes]:
        read = ((name, self.read(name)) for name in self.names(folder))
        return {name: content for name, content in read if content is not None}

    def names(self, folder: str) -> list[str]:
        below = (self.root / folder).rglob("*")
        return sorted(
            path.relative_to(self.root).as_posix() for path in below if path.is_file() and path.name[0] != "."
        )

    def write(self, name: str, data: bytes) -> None:
        write_whole(self._made(name), data)

    def create(self, name: str, data: bytes) -> bool:
        try:
            write_whole(self._made(name), data, put=os.link)  # with its content, or not at all
        except FileExistsError:
            return False
        return True

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        path = self.root / name
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        try:
            if aside.read_bytes() == old:
                return self.create(name, new)
            try:
                os.link(aside, path)  # put it back: it is somebody else's by now
            except FileExistsError:
                pass
            return False
        finally:
            aside.unlink(missing_ok=True)

    def remove(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.unlink(missing_ok=True)
            if name.count("/") > 1:
                with contextlib.suppress(OSError):  # it holds something else, or is gone
                    path.parent.rmdir()

    def appender(self, folder: str) -> _File:
        return _File(self.root / folder)

    def _made(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.is_symlink():
            raise OSError(errno.ELOOP, "is a link, and what is behind it is not the store's", str(path.parent))
        return path

    # Results

    def stamps(self, kind: str) -> dict[str, str]:
        folder = self.root / kind
        if not folder.is_dir():
            return {}
        with os.scandir(folder) as found:
            return {path.name: str(path.inode()) for path in found}

    def read_results(self, kind: str, stamps: Mapping[str, str]) -> Iterator[tuple[str, Entry]]:
        for name in stamps:
            if (entry := self._entry(PurePosixPath(kind, name))) is not None:
                yield name, entry

    def find(self, kind: str, key: str, known: Entry | None) -> Entry | None:
        if known is not None and (self.root / known.place).is_dir():
            return known
        for path in (self.root / kind).glob(f"*-{key[:16]}"):
            entry = self._entry(PurePosixPath(kind, path.name))
            if entry is not None and entry.key == key:
                return entry
        return None

    def bring(self, entry: Entry, names: Iterable[str]) -> Path:
        return self.root / entry.place

    def measure(self, entry: Entry, name: str) -> dict[str, Any] | None:
        path = self.root / entry.place / name
        try:
            return measure(path) if path.is_file() and not path.is_symlink() else None
        except OSError as problem:
            if problem.errno == errno.ENAMETOOLONG:
                return None
            raise

    def prove(self, entry: Entry, names: Iterable[str]) -> Path:
        for name in names:
            found = self.measure(entry, name)
            if found is None:
                raise Spoiled(f"{name} is missing")
            if found != entry.manifest["files"][name]:
                raise Spoiled(f"{name} does not have the content its manifest names")
        return self.root / entry.place

    def free(self, entry: Entry, names: Iterable[str]) -> int:
        folder = self.root / entry.place
        manifest, gone = without(parsed((folder / MANIFEST).read_bytes()), names)
        if gone:
            write_json(folder / MANIFEST, manifest)
        for name in gone:
            (folder / name).unlink(missing_ok=True)
        for parent in sorted({(folder / name).parent for name in gone} - {folder}, reverse=True):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        return sum(file["bytes"] for file in gone.values())

    def quarantine(self, place: PurePosixPath, reason: str, entry: Entry | None) -> None:
        folder = self.root / "quarantine" / f"{place.parent.name}-{place.name}.{uuid.uuid4().hex[:8]}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(self.root / place, folder)
            if not folder.is_symlink():
                (folder / "reason.txt").write_text(reason + "\n")
        except FileNotFoundError:
            pass  # another session moved it first

    def everything(self, kind: str) -> Iterator[tuple[PurePosixPath, Entry | None]]:
        for place in self._places(kind):
            yield place, self._entry(place, sizes=False)

    def _places(self, kind: str) -> list[PurePosixPath]:
        folder = self.root / kind
        return sorted(PurePosixPath(kind, path.name) for path in folder.iterdir()) if folder.is_dir() else []

    def _entry(self, place: PurePosixPath, sizes: bool = True) -> Entry | None:
        folder = self.root / place
        manifest = parsed(self.read(str(place / MANIFEST))) if folder.is_dir() and not folder.is_symlink() else None
        if manifest is None or not sound(manifest, place.parent.name, place.name[-16:]):
            return None
        if not confined.inside(folder, manifest["files"]):
            return None
        if sizes:
            for name, expected in manifest["files"].items():
                try:
                    found = (folder / name).lstat()
                    if found.st_size != expected["bytes"] or not stat.S_ISREG(found.st_mode):
                        return None
                except OSError:
                    return None
        return Entry(place, manifest)

    # Attempts

    def begin(self, folder: str, about: Mapping[str, Any]) -> Path:
        path = self.root / "attempts" / f"{folder}.{uuid.uuid4().hex[:12]}"
        path.mkdir(parents=True)
        write_json(path / ABOUT, about)
        return path

    def here(self, name: str) -> Path:
        return self.root / "attempts" / name

    def save(self, attempt: Path) -> None:
        """Nothing: it is written where the store is."""

    def attempts(self) -> Iterator[Attempt]:
        folder = self.root / "attempts"
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            about = {"key": None, "session": "", **(parsed(self.read(f"attempts/{path.name}/{ABOUT}")) or {})}
            try:
                sizes = {name: (path / name).stat().st_size for name in confined.files(path) if name != ABOUT}
            except FileNotFoundError:
                continue  # somebody takes it, or ends it, at this moment
            yield Attempt(path.name, about, sizes)

    def take(self, attempt: Attempt, folder: str, about: Mapping[str, Any]) -> Path | None:
        if attempt.name.startswith("."):
            return None  # somebody is taking it, or was killed doing so
        path = self.root / "attempts" / attempt.name
        ours = path.with_name(f"{folder}.{uuid.uuid4().hex[:12]}")
        between = ours.with_name(f".{ours.name}")  # until it says whose it is, nobody else may take it
        try:
            os.rename(path, between)
        except FileNotFoundError:
            return None
        if found := confined.links(between):
            self.quarantine(PurePosixPath("attempts", between.name), f"{found[0]} is a link", None)
            return None
        write_json(between / ABOUT, about)
        os.rename(between, ours)
        return ours

    def publish(self, attempt: Path, folder: str, manifest: Manifest) -> Entry:
        about = parsed(self.read(f"attempts/{attempt.name}/{ABOUT}"))
        if about is None or about.get("session") != manifest["made"]["session"]:
            raise TakenOver(attempt.name)
        (attempt / ABOUT).unlink(missing_ok=True)
        write_json(attempt / MANIFEST, manifest)
        place = PurePosixPath(manifest["kind"], folder)
        target = self.root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            try:
                os.rename(attempt, target)
                return Entry(place, manifest)
            except OSError as problem:
                if not attempt.exists():
                    raise TakenOver(attempt.name) from problem
                if not target.exists():
                    raise EnvironmentProblem(f"{target}: could not be published ({problem})") from problem
            there = self._entry(place)
            if there is not None:
                self.discard(attempt)
                return there
            self.quarantine(place, "no manifest that holds", None)
        raise EnvironmentProblem(f"{target}: something that is not a result keeps coming back there")

    def discard(self, attempt: Path | Attempt) -> None:
        name = attempt.name
        shutil.rmtree(self.root / "attempts" / name, ignore_errors=True)


class _File:
    """An append-only file of this process's own, on the disk when :meth:`add` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Any = None

    def add(self, lines: bytes) -> None:
        while True:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = (self._folder / f"{uuid.uuid4().hex}.jsonl").open("ab")
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())
            if os.fstat(self._file.fileno()).st_nlink:
                return
            self.close()  # somebody removed it, who had not read this

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
