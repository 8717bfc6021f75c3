"""Who is working on what, so that two sessions on one store share the work.

A session writes a heartbeat into ``sessions/<id>.json``; a lease is a record ``leases/<key16>`` that names its
session. A lease is worth what its session's heartbeat is worth: a watcher calls a session dead when its process is
gone (same machine) or when its beat has not *changed* for a while on the watcher's own monotonic clock; clocks are
never compared. A store that could not be read for a while says nothing about anybody's beat, so the watching then
begins again. Leases only save work: if one is taken over wrongly, both sessions make the step, the store keeps the
first result, and who finds its attempt gone on with by another does not publish it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from orchestrator.storage import Storage, confined
from orchestrator.storage.base import parsed

_RECORD = {"host", "boot", "pid", "process_started", "user", "beat"}
"""What a session says of itself, at least."""
LONGEST_ID = 200


def _boot_id() -> str:
    """Where a pid means the same process: this boot of this machine and, in a container, its own process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()}-{int(psutil.boot_time())}"


@dataclasses.dataclass
class _Seen:
    beat: Any
    at: float


class Sessions:
    """This session's heartbeat and its view of the others. One object per process; thread-safe."""

    def __init__(self, storage: Storage, session: str | None = None) -> None:
        self.storage = storage
        self.id = session or uuid.uuid4().hex
        self._seen: dict[str, _Seen] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self, about: str) -> None:
        """Begin to beat. ``about`` is what the session says of itself in ``pinch status``."""
        me = psutil.Process()
        record = {
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "pid": me.pid,
            "process_started": me.create_time(),
            "user": getpass.getuser(),
            "about": about,
        }

        def write(count: int) -> None:
            at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            self.storage.write(_session(self.id), json.dumps({**record, "beat": count, "at": at}).encode())

        def beat() -> None:
            count = 0
            while not self._stop.wait(self.storage.beat_every):
                count += 1
                # A full disk or an outage must not end the session; at worst others take its steps over: harmless.
                with contextlib.suppress(OSError):
                    write(count)

        write(0)
        self._thread = threading.Thread(target=beat, name="pinch-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and give back every lease this session holds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self.storage.beat_every * 2)
        ours = self.id.encode()
        with contextlib.suppress(OSError):  # they die with the beat
            self.storage.remove(*(name for name, owner in self.storage.read_all("leases").items() if owner == ours))
            self.storage.remove(_session(self.id))

    def acquire(self, key: str) -> bool:
        """Take the lease of a step; False while a live session holds it. Holding it already is fine."""
        name, ours = _lease(key), self.id.encode()
        for _ in range(3):
            if self.storage.create(name, ours):
                return True
            owner = self.storage.read(name)
            if owner is None:
                continue
            if owner == ours:
                return True
            if self.alive(owner.decode(errors="replace")):
                return False
            if self.storage.replace(name, owner, ours):
                return True
        return False

    def holds(self, key: str) -> bool:
        """Whether the lease of a step is this session's, which it is no more when another took it over."""
        return self.storage.read(_lease(key)) == self.id.encode()

    def release(self, key: str) -> None:
        """Give a lease back; nothing happens when this session does not hold it."""
        if self.holds(key):
            self.storage.remove(_lease(key))

    def holder(self, key: str) -> str | None:
        """Who is working on a step: ``user@host (pid 123)``, or None when nobody alive is.

        Of a session on another machine it says when that was heard of last, by its own clock: one look cannot tell
        whether it still works.
        """
        owner = self.storage.read(_lease(key))
        return None if owner is None else self._said(owner.decode(errors="replace"))

    def holders(self) -> dict[str, str]:
        """The first 16 digits of a step's key -> who is working on it, for all steps that somebody alive works on."""
        held = self.held()
        said = {owner: self._said(owner) for owner in set(held.values())}
        return {key: text for key, owner in held.items() if (text := said[owner]) is not None}

    def held(self) -> dict[str, str]:
        """key16 -> session id, for every lease there is."""
        leases = self.storage.read_all("leases")
        return {name.rpartition("/")[2]: owner.decode(errors="replace") for name, owner in leases.items()}

    def alive(self, session: str) -> bool:
        """Whether a session still works, judged as the module docstring says."""
        if session == self.id:
            return True
        record = self._read(session)
        if record is None:
            return False
        if record.get("boot") == _boot_id():
            try:
                same = psutil.Process(record["pid"]).create_time() == record["process_started"]
            except (psutil.Error, TypeError, ValueError):
                same = False
            if not same:
                return False
        now = time.monotonic()
        with self._lock:
            seen = self._seen.get(session)
            if seen is None or seen.beat != record["beat"]:
                self._seen[session] = _Seen(record["beat"], now)
                return True
            return now - seen.at < self.storage.dead_after

    def dead(self, sessions: Iterable[str], tell: Callable[[float], None]) -> set[str]:
        """Those that no longer work. Whoever is on another machine is watched for a while first.

        Args:
            tell: is told how many seconds that takes, before.
        """
        asked = set(sessions)
        living = {session for session in asked if self.alive(session)}
        if any((self._read(session) or {}).get("boot") != _boot_id() for session in living - {self.id}):
            tell(self.storage.dead_after)
            time.sleep(self.storage.dead_after)
            living = {session for session in living if self.alive(session)}
        return asked - living

    def _said(self, session: str) -> str | None:
        if not self.alive(session):
            return None
        record = self._read(session) or {}
        heard = f", last heard of at {record['at']}" if "at" in record and record.get("boot") != _boot_id() else ""
        return f"{record.get('user', '?')}@{record.get('host', '?')} (pid {record.get('pid', '?')}){heard}"

    def _read(self, session: str) -> dict[str, Any] | None:
        if not (isinstance(session, str) and len(session) <= LONGEST_ID and confined.plain(session)):
            return None  # nobody's id; it might name a file outside
        began, answered = time.monotonic(), False
        try:
            content = self.storage.read(_session(session))
            answered = time.monotonic() - began < self.storage.beat_every
        finally:
            if not answered:
                with self._lock:
                    self._seen.clear()  # they may not have been able to write either
        found = parsed(content)
        return found if found is not None and found.keys() >= _RECORD else None


def _lease(key: str) -> str:
    return f"leases/{key[:16]}"


def _session(session: str) -> str:
    return f"sessions/{session}.json"
