"""A store in an object store, through fsspec.

An object appears whole or not at all, nothing can be renamed, and the one thing that is atomic is a conditional put.
So:

- ``manifests/<kind>/<key16>.json`` is a result, put last and *if absent*: the first of two attempts wins.
- ``<kind>/<name>-<key16>/<attempt>/`` is where an attempt's files lie; nobody else writes there, and the manifest
  that won says which prefix is the result's. What lost is removed, what was killed is found by its record in
  ``attempts/``.
- Attempts are made in a folder of this machine and uploaded on publishing. A fine-tune's are saved now and then; the
  record in ``attempts/`` lists what was uploaded whole, so that another machine can go on from there.
- What does not hold is taken out by replacing its manifest, if it still is that one, with a note; a new attempt may
  replace the note.
- Trainables need files: published ones are fetched into a cache by their digest (`orchestrator.storage.cache`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.identity import folder_of
from orchestrator.storage import confined
from orchestrator.storage.base import (
    Attempt,
    Entry,
    Manifest,
    Spoiled,
    Storage,
    StorageAway,
    TakenOver,
    as_json,
    files_below,
    measure,
    parsed,
    sound,
    standing,
    without,
    write_json,
)
from orchestrator.storage.bucket import Absent, Bucket
from orchestrator.storage.cache import Cache, cache_bytes, cache_folder
from trainables.errors import EnvironmentProblem


class ObjectStore(Bucket, Storage):
    """What S3 and Google Cloud Storage have in common; see the module."""

    beat_every, dead_after = 10.0, 90.0

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._cache = Cache(cache_folder(), cache_bytes())
        self.root = self._cache.folder / "stores" / hashlib.sha256(self.location.encode()).hexdigest()[:16]

    # The place itself

    def exists(self) -> bool:
        try:
            self._ask(lambda: self.fs.info(self._path("manifests")))
        except Absent:
            return False
        return True

    def prepare(self) -> None:
        self._probe()
        self.root.mkdir(parents=True, exist_ok=True)

    def refuse_links(self) -> None:
        """Nothing: a bucket has none."""

    def look(self) -> int:
        self._probe()
        here = standing(self.root)
        try:
            with tempfile.TemporaryFile(dir=here):
                return shutil.disk_usage(here).free
        except OSError as problem:
            folder, why = self._cache.folder, problem.strerror
            raise EnvironmentProblem(
                f"PINCH_CACHE: {folder} cannot be written ({why}); name a folder you may write to."
            ) from problem

    def _probe(self) -> None:
        probe = f".write-{uuid.uuid4().hex}"
        self.write(probe, b"")
        self.remove(probe)

    def free_bytes(self) -> int | None:
        return None

    # Results

    def stamps(self, kind: str) -> dict[str, str]:
        listed = self._listed(f"manifests/{kind}")
        return {name.rpartition("/")[2].removesuffix(".json"): tag for name, tag in listed.items()}

    def read_results(self, kind: str, stamps: Mapping[str, str]) -> Iterator[tuple[str, Entry]]:
        kept = {(name := _manifest_name(kind, key16)): self._kept(name, tag) for key16, tag in stamps.items()}
        here = {name: self._entry(kind, name, path.read_bytes()) for name, path in kept.items() if path.is_file()}
        yield from ((entry.key[:16], entry) for entry in here.values() if entry is not None)
        fresh = self._read_these([name for name in kept if here.get(name) is None])
        for name, content in fresh.items():
            if (entry := self._entry(kind, name, content)) is not None:
                kept[name].parent.mkdir(parents=True, exist_ok=True)
                write_json(kept[name], entry.manifest)
                yield entry.key[:16], entry

    def find(self, kind: str, key: str, known: Entry | None) -> Entry | None:
        if known is not None:
            return known
        name = _manifest_name(kind, key[:16])
        entry = self._entry(kind, name, self.read(name))
        return entry if entry is not None and entry.key == key else None

    def bring(self, entry: Entry, names: Iterable[str]) -> Path:
        view, missing = self._view(entry), []
        for name in names:
            try:
                os.utime(view / name)  # the cache lets go first of what was used least lately
            except FileNotFoundError:
                missing.append(name)
        self._each(missing, lambda name: self._fetch(entry, name))
        view.mkdir(parents=True, exist_ok=True)
        return view

    def measure(self, entry: Entry, name: str) -> dict[str, Any] | None:
        passing = self.root / f".{uuid.uuid4().hex}"
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self._download(f"{entry.manifest['data']}/{name}", passing)
            return measure(passing)
        except Absent:
            return None
        finally:
            passing.unlink(missing_ok=True)

    def prove(self, entry: Entry, names: Iterable[str]) -> Path:
        names = list(names)
        view = self.bring(entry, names)
        for name in names:
            expected = entry.manifest["files"][name]
            if measure(view / name) != expected:  # it changed here, which says nothing about the store
                (view / name).unlink()
                self._cache.drop(expected["sha256"])
                self._fetch(entry, name)
        return view

    def free(self, entry: Entry, names: Iterable[str]) -> int:
        name, names = _manifest_name(entry.kind, entry.key[:16]), list(names)
        while (old := self.read(name)) is not None and parsed(old).get("data") == entry.manifest["data"]:
            manifest, gone = without(parsed(old), names)
            if not gone:
                return 0
            if self.replace(name, old, as_json(manifest)):
                self.remove(*(f"{entry.manifest['data']}/{file}" for file in gone))
                return sum(file["bytes"] for file in gone.values())
        return 0

    def quarantine(self, place: PurePosixPath, reason: str, entry: Entry | None) -> None:
        name = _manifest_name(place.parent.name, place.name[-16:])
        old = self.read(name)
        if old is None or (entry is not None and parsed(old) != entry.manifest):
            return  # gone, or made again by now
        if self.replace(name, old, as_json({"quarantined": reason})):
            note = {"reason": reason, "manifest": parsed(old)}
            self.write(f"quarantine/{place.parent.name}-{place.name}.{uuid.uuid4().hex[:8]}.json", as_json(note))

    def everything(self, kind: str) -> Iterator[tuple[PurePosixPath, Entry | None]]:
        for name, content in self.read_all(f"manifests/{kind}").items():
            entry = self._entry(kind, name, content)
            if entry is not None:
                yield entry.place, entry
            elif "quarantined" not in (parsed(content) or {}):
                yield PurePosixPath(kind, PurePosixPath(name).stem), None

    def _entry(self, kind: str, name: str, content: bytes | None) -> Entry | None:
        manifest = parsed(content)
        if not sound(manifest, kind, PurePosixPath(name).stem):
            return None
        folder = folder_of(str(manifest.get("name")), manifest["key"])
        data = PurePosixPath(str(manifest.get("data", "")))
        place = PurePosixPath(kind, folder)
        whole = confined.plain(folder) and confined.plain(data.name) and data.parent == place
        return Entry(place, manifest) if whole else None

    def _kept(self, manifest: str, tag: str) -> Path:
        """Where this version of a manifest lies on this machine once it was read."""
        return self.root / f"{manifest.removesuffix('.json')}.{re.sub(r'[^0-9A-Za-z-]', '', tag)}"

    def _view(self, entry: Entry) -> Path:
        return self.root / "results" / entry.manifest["data"]

    def _fetch(self, entry: Entry, name: str) -> None:
        expected = entry.manifest["files"].get(name)
        try:
            if expected is None:
                raise Absent
            self._cache.link(
                self._view(entry) / name,
                expected["sha256"],
                expected["bytes"],
                partial(self._download, f"{entry.manifest['data']}/{name}"),
            )
        except Absent:
            raise Spoiled(f"{name} is missing") from None
        except Spoiled as problem:
            raise Spoiled(f"{name} {problem}") from None

    # Attempts

    def begin(self, folder: str, about: Mapping[str, Any]) -> Path:
        path = self.root / "attempts" / f"{folder}.{uuid.uuid4().hex[:12]}"
        path.mkdir(parents=True)
        write_json(_beside(path), {"about": dict(about), "saved": {}})
        return path

    def save(self, attempt: Path) -> None:
        self._save(attempt, [name for name in files_below(attempt) if "/." not in f"/{name}"])

    def _save(self, attempt: Path, names: Iterable[str]) -> bool:
        """Have the store hold exactly these files of an attempt; False when one of them changes at this moment.

        Raises:
            TakenOver: it is not ours any more.
        """
        notes = parsed(_beside(attempt).read_bytes()) if _beside(attempt).is_file() else None
        if notes is None:
            raise TakenOver(attempt.name)
        about, saved = notes["about"], notes["saved"]
        prefix = "/".join((about["kind"], *_split(attempt.name)))
        now = {name: _stamp(attempt / name) for name in names}
        record, record_name = {**about, "attempt": attempt.name, "files": saved}, _record_name(attempt.name)
        old = as_json(record)
        if saved or not self.create(record_name, old):
            old = self.read(record_name) or b""
            if (parsed(old) or {}).get("session") != about["session"]:
                raise TakenOver(attempt.name)
        fresh = [name for name, stamp in now.items() if stamp is not None and stamp != saved.get(name)]
        self._each(fresh, lambda name: self._upload(attempt / name, f"{prefix}/{name}"))
        if any(_stamp(attempt / name) != stamp for name, stamp in now.items()):
            return False  # what was uploaded before stays what counts
        if not self.replace(record_name, old, as_json({**record, "files": now})):
            raise TakenOver(attempt.name)  # while it was uploaded
        write_json(_beside(attempt), {"about": about, "saved": now})
        self.remove(*(f"{prefix}/{name}" for name in saved.keys() - now.keys()))
        return True

    def attempts(self) -> Iterator[Attempt]:
        found = {}
        for record, content in self.read_all("attempts").items():
            about = {"key": None, "session": "", **(parsed(content) or {})}
            attempt = str(about.get("attempt", ""))
            if confined.plain(attempt) and record == _record_name(attempt):  # it is a folder on this machine
                files = about.get("files")
                sizes = {name: stamp[0] for name, stamp in files.items()} if isinstance(files, dict) else {}
                found[attempt] = Attempt(attempt, about, sizes, content)
        yield from found.values()
        for notes in sorted((self.root / "attempts").glob("*.json")):
            begun = (parsed(notes.read_bytes()) or {}).get("about")
            if notes.stem not in found and begun:  # on this machine, and never saved
                path = notes.with_suffix("")
                yield Attempt(path.name, begun, {name: (path / name).stat().st_size for name in confined.files(path)})

    def take(self, attempt: Attempt, folder: str, about: Mapping[str, Any]) -> Path | None:
        claim = {**attempt.about, **about}
        if not attempt.record or not self.replace(_record_name(attempt.name), attempt.record, as_json(claim)):
            return None
        self._forget(attempt.name)
        try:
            theirs = self.here(attempt.name)
        except FileNotFoundError:
            self.discard(attempt)
            return None
        ours = self.begin(folder, about)  # under a name of its own: whoever had it may wake up in an upload
        for path in theirs.iterdir():
            path.rename(ours / path.name)
        self.save(ours)
        self.discard(attempt)
        return ours

    def here(self, name: str) -> Path:
        path = self.root / "attempts" / name
        with self._cache.locked(name):
            if _beside(path).is_file():
                return path
            record = parsed(self.read(_record_name(name)))
            if record is None:
                raise FileNotFoundError(f"{self.location}: attempt {name} is not there any more")
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            prefix = "/".join((str(record["kind"]), *_split(name)))
            files = [file for file in record["files"] if confined.lead_inside([file])]

            def download(file: str) -> None:
                (path / file).parent.mkdir(parents=True, exist_ok=True)
                self._download(f"{prefix}/{file}", path / file)

            try:
                self._each(files, download)
            except Absent:
                raise FileNotFoundError(f"{self.location}: attempt {name} has lost a file") from None
            about = {part: value for part, value in record.items() if part not in ("attempt", "files")}
            write_json(_beside(path), {"about": about, "saved": {file: _stamp(path / file) for file in files}})
        return path

    def publish(self, attempt: Path, folder: str, manifest: Manifest) -> Entry:
        if not self._save(attempt, manifest["files"]):
            raise EnvironmentProblem(f"{attempt}: somebody still writes to what is to be published")
        kind, key16 = manifest["kind"], manifest["key"][:16]
        manifest = {**manifest, "data": "/".join((kind, *_split(attempt.name)))}
        place, name, content = PurePosixPath(kind, folder), _manifest_name(kind, key16), as_json(manifest)
        for _ in range(5):
            if self.create(name, content):
                return self._won(attempt, Entry(place, manifest))
            there = self.read(name)
            if there is None:
                continue
            if (entry := self._entry(kind, name, there)) is not None:
                self.discard(attempt)
                return entry
            if self.replace(name, there, content):  # over the note that what was there did not hold
                return self._won(attempt, Entry(place, manifest))
        raise EnvironmentProblem(f"{self.location}/{name}: something that is not a result keeps coming back there")

    def _won(self, attempt: Path, entry: Entry) -> Entry:
        for name, file in entry.manifest["files"].items():  # whoever needs it next is probably on this machine
            self._cache.put(attempt / name, file["sha256"])
        self._forget(attempt.name)
        with contextlib.suppress(StorageAway):  # it is published; `gc` finds what is left of the attempt
            self.remove(_record_name(attempt.name))
        return entry

    def discard(self, attempt: Path | Attempt) -> None:
        self._forget(attempt.name)
        with contextlib.suppress(StorageAway):  # what stays there is found by its record
            self._discard(attempt.name)

    def _discard(self, name: str) -> None:
        record = self.read(_record_name(name))
        about = parsed(record)
        if about and "kind" in about:
            folder, number = _split(name)
            data = f"{about['kind']}/{folder}/{number}"
            standing = parsed(self.read(_manifest_name(about["kind"], folder[-16:]))) or {}
            if standing.get("data") != data:  # killed after it had won: then only the record is left over
                self.remove(*self.names(data))
            self.remove(_record_name(name))

    def _forget(self, name: str) -> None:
        path = self.root / "attempts" / name
        shutil.rmtree(path, ignore_errors=True)
        _beside(path).unlink(missing_ok=True)


def _manifest_name(kind: str, key16: str) -> str:
    return f"manifests/{kind}/{key16}.json"


def _split(attempt: str) -> tuple[str, str]:
    folder, _, number = attempt.rpartition(".")
    return folder, number


def _record_name(attempt: str) -> str:
    folder, number = _split(attempt)
    return f"attempts/{folder[-16:]}.{number}.json"


def _beside(attempt: Path) -> Path:
    """What this machine knows of an attempt."""
    return attempt.with_name(f"{attempt.name}.json")


def _stamp(path: Path) -> list[int] | None:
    """What changes when a file is written: its size and time on this machine; None when it is not there."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return [about.st_size, about.st_mtime_ns]
