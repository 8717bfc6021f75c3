"""Objects in a bucket, through fsspec: put, put under a condition, read, listed, removed.

Whatever a network does (5xx, slow down, hang, broken connection) is tried again with growing waits. A put whose
answer got lost may have been carried out: conditional ones look before they say that the condition did not hold.

This module must never know what the objects are.
"""

from __future__ import annotations

import abc
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.storage.base import StorageAway
from trainables.errors import UserError

FIRST_WAIT, LONGEST_WAIT = 0.2, 20.0
"""Seconds before something is tried again; doubled each time, give or take a quarter."""
PATIENCE, SHORT_PATIENCE = 240.0, 10.0
"""Seconds after which it is not tried again: in a run, and when somebody is waiting for an answer."""
AT_ONCE = 8
"""Files that travel at the same time."""

Answer = TypeVar("Answer")


class Passing(Exception):
    """It may work in a moment."""


class Refused(Exception):
    """It will not work: no bucket, no credentials, no permission."""


class Absent(Exception):
    """There is no such object."""


class Met(Exception):
    """The condition of a conditional put does not hold."""


class Bucket(abc.ABC):
    """One prefix of a bucket; names are relative to it."""

    patient = False

    def __init__(self, location: str) -> None:
        self.location = location.rstrip("/")
        self._where = self.location.partition("://")[2]
        self.bucket = self._where.partition("/")[0]
        self.fs = self.connect()
        self.answered = False
        self._given_up = False

    @abc.abstractmethod
    def connect(self) -> Any:
        """An fsspec file system that tries nothing again by itself and keeps no listings."""

    @abc.abstractmethod
    def understood(self, problem: Exception) -> Exception:
        """What went wrong as one of Absent, Met, Passing and Refused (with a sentence), or the problem itself."""

    @abc.abstractmethod
    def put(self, path: str, data: bytes, version: str | None) -> None:
        """Put an object if it has this version, or, with None, if there is none. Raises Met."""

    @abc.abstractmethod
    def version(self, path: str) -> str:
        """The version of an object there is, for :meth:`put`."""

    def read(self, name: str) -> bytes | None:
        try:
            return self._ask(lambda: self.fs.cat_file(self._path(name)))
        except Absent:
            return None

    def read_all(self, folder: str) -> dict[str, bytes]:
        return self._read_these(self.names(folder))

    def names(self, folder: str) -> list[str]:
        return sorted(self._listed(folder))

    def write(self, name: str, data: bytes) -> None:
        self._ask(lambda: self.fs.pipe_file(self._path(name), data))

    def create(self, name: str, data: bytes) -> bool:
        return self._conditional(name, data, None)

    def replace(self, name: str, old: bytes, new: bytes) -> bool:
        try:
            version = self._ask(lambda: self.version(self._path(name)))  # before the content: that may only be newer
        except Absent:
            return False
        return self.read(name) == old and self._conditional(name, new, version)

    def remove(self, *names: str) -> None:
        self._each(names, self._remove)

    def appender(self, folder: str) -> _Objects:
        return _Objects(self, folder)

    def _conditional(self, name: str, data: bytes, version: str | None) -> bool:
        try:
            self._ask(lambda: self.put(self._path(name), data, version))
        except Met:
            # An earlier try, perhaps one that the client made by itself, may have got through without its answer.
            return self.read(name) == data
        except Absent:
            return False
        return True

    def _path(self, name: str) -> str:
        return f"{self._where}/{name}"

    def _listed(self, folder: str) -> dict[str, str]:
        """Name -> a text that changes with the content, for every object below a folder."""
        try:
            found = self._ask(lambda: self.fs.find(self._path(folder), detail=True, withdirs=False))
        except Absent:
            return {}
        start = len(self._where) + 1
        files = {path[start:]: info for path, info in found.items() if info["type"] == "file"}
        return {name: str(info.get("ETag") or info["etag"]) for name, info in files.items()}

    def _read_these(self, names: Iterable[str]) -> dict[str, bytes]:
        names = sorted(names)
        if not names:
            return {}
        paths = {self._path(name): name for name in names}
        answers = self._ask(lambda: self.fs.cat(list(paths), on_error="return"))
        answers = {paths[path]: answer for path, answer in answers.items()}
        read = {name: one if isinstance(one := answers.get(name), bytes) else self.read(name) for name in names}
        return {name: content for name, content in read.items() if content is not None}

    def _remove(self, name: str) -> None:
        try:
            self._ask(lambda: self.fs.rm_file(self._path(name)))
        except Absent:
            pass

    def _download(self, name: str, file: Path) -> None:
        self._ask(lambda: self.fs.get_file(self._path(name), str(file)))

    def _upload(self, file: Path, name: str) -> None:
        try:
            self._ask(lambda: self.fs.put_file(str(file), self._path(name)))
        except FileNotFoundError:
            pass  # removed since it was listed

    def _each(self, items: Iterable[str], work: Callable[[str], Any]) -> None:
        items = list(items)
        if len(items) < 2:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                list(pool.map(work, items))
            except BaseException:
                self._given_up = True  # nobody waits for the others' patience: Ctrl-C, or one has lost its own
                pool.shutdown(cancel_futures=True)
                raise

    def _ask(self, action: Callable[[], Answer]) -> Answer:
        """Do something, again and again while what goes wrong may pass.

        Raises:
            Absent, Met: as :meth:`understood` says.
            UserError: the place refuses, and nothing runs on it yet.
            StorageAway: it refuses in a run, or does not answer.
        """
        patience = 0.0 if self._given_up else PATIENCE if self.patient else SHORT_PATIENCE
        began, tried = time.monotonic(), 0
        while True:
            try:
                answer = action()
            except Exception as problem:
                found = self.understood(problem)
                if isinstance(found, Refused) and not self.patient:
                    raise UserError(f"--store {self.location}: {found}") from problem
                if isinstance(found, Refused):
                    raise StorageAway(f"{self.location}: {found}") from problem
                if isinstance(found, Absent | Met):
                    self.answered, self._given_up = True, False
                    raise found from None
                if not isinstance(found, Passing):
                    raise
                waited = time.monotonic() - began
                if waited >= patience:
                    self._given_up = True  # from now on one try, until it answers: what ends need not wait again
                    raise StorageAway(f"{self.location}: no answer for {waited:.0f} s ({found})") from problem
                time.sleep(min(FIRST_WAIT * 2**tried, LONGEST_WAIT) * random.uniform(0.75, 1.25))
                tried += 1
            else:
                self.answered, self._given_up = True, False
                return answer


class _Objects:
    """Lines in objects of their own, numbered, in the store when :meth:`add` returns."""

    def __init__(self, store: Bucket, folder: str) -> None:
        self._store, self._folder, self._name = store, folder, uuid.uuid4().hex
        self._count, self._lock = 0, threading.Lock()

    def add(self, lines: bytes) -> None:
        with self._lock:
            self._count += 1
            number = self._count
        self._store.write(f"{self._folder}/{self._name}-{number:08d}.jsonl", lines)

    def close(self) -> None:
        """Nothing is open."""
