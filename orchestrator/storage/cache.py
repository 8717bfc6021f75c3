"""Published files that were fetched, kept on this machine by their digest, as many as fit.

``sha256/<2 hex>/<digest>`` is a file whose content was checked when it came. Views, folders in which results lie
under their names, hold hard links to these, so nothing is there twice. When the cache is full what was used longest
ago goes, views included, but nothing that was asked for in the last minutes: somebody may be about to open it.

Environment: ``PINCH_CACHE`` names the folder (default ``~/.cache/pinch``), ``PINCH_CACHE_GB`` bounds it (default 100).
Several processes may use one cache.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.storage.base import Spoiled, measure, standing
from trainables.errors import UserError

GRACE = 600.0
"""Seconds for which nothing that was asked for goes."""


def cache_folder() -> Path:
    """Where this machine's cache lies."""
    return Path(os.environ.get("PINCH_CACHE") or "~/.cache/pinch").expanduser().absolute()


def cache_bytes() -> int:
    """How much it may hold.

    Raises:
        UserError: the environment says something else than a number.
    """
    text = os.environ.get("PINCH_CACHE_GB") or "100"
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise UserError(f"PINCH_CACHE_GB: {text!r} is not a number of gigabytes above 0; write 100, say.")
    return int(limit * 1e9)


class Cache:
    """See the module."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def link(self, target: Path, digest: str, size: int, fetch: Callable[[Path], None]) -> None:
        """Have a file of a digest at ``target``; it is fetched if it is not here.

        Args:
            fetch: writes the content to a path.

        Raises:
            Spoiled: what came is something else.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.locked(digest[:3]):
            blob = self._blob(digest)
            if not blob.is_file() or blob.stat().st_size != size:
                self._make_room(size)
                self._come(blob, {"bytes": size, "sha256": digest}, fetch)
            os.utime(blob)
            with contextlib.suppress(FileExistsError):
                os.link(blob, target)

    def put(self, path: Path, digest: str) -> None:
        """Take in a file that was made here and whose digest was just taken; it is moved."""
        with self.locked(digest[:3]):
            self._make_room(path.stat().st_size)
            blob = self._blob(digest)
            blob.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, blob)
            os.utime(blob)

    def room(self) -> tuple[int, int]:
        """Bytes that it may still grow by, and bytes that are free on its disk."""
        used = sum(entry.stat().st_size for entry in _files(self.folder / "sha256"))
        return max(0, self.limit - used), shutil.disk_usage(standing(self.folder)).free

    def drop(self, digest: str) -> None:
        """Forget a file, because its content changed here."""
        with self.locked(digest[:3]):
            self._blob(digest).unlink(missing_ok=True)

    def _blob(self, digest: str) -> Path:
        return self.folder / "sha256" / digest[:2] / digest

    def _come(self, blob: Path, expected: dict[str, object], fetch: Callable[[Path], None]) -> None:
        blob.parent.mkdir(parents=True, exist_ok=True)
        coming = blob.with_name(f".{uuid.uuid4().hex}")
        try:
            fetch(coming)
            if measure(coming) != expected:
                raise Spoiled("does not have the content its manifest names")
            os.replace(coming, blob)
        finally:
            coming.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        with self.locked("room"):
            blobs = [
                (entry.stat(), Path(entry.path)) for entry in _files(self.folder / "sha256") if entry.name[0] != "."
            ]
            over = sum(stat.st_size for stat, _ in blobs) + size - self.limit
            gone: set[int] = set()
            for stat, path in sorted(blobs, key=lambda blob: blob[0].st_mtime):
                if over <= 0 or time.time() - stat.st_mtime < GRACE:
                    break
                path.unlink(missing_ok=True)
                gone.add(stat.st_ino)
                over -= stat.st_size
            for entry in _files(self.folder / "stores") if gone else ():
                if entry.inode() in gone:
                    Path(entry.path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Alone among this machine's processes."""
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        with (self.folder / "locks" / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        found = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))
        else:
            yield entry
