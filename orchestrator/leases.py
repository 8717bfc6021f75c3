"""Who is working on what, so that two sessions on one store share the work.

A session writes a heartbeat into ``sessions/<id>.json``; a lease is a file ``leases/<key16>`` that names its
session. A lease is worth what its session's heartbeat is worth: a watcher calls a session dead when its process is
gone (same machine) or when its beat has not *changed* for a while on the watcher's own monotonic clock; clocks are
never compared. Leases only save work: if one is taken over wrongly, both sessions make the step, and the store
keeps the first result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

BEAT_EVERY = 2.0
"""Seconds between two heartbeats."""
DEAD_AFTER = 30.0
"""Seconds without a change of heartbeat after which a session that cannot be looked at directly counts as dead."""


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

    def __init__(self, root: Path, session: str | None = None) -> None:
        self.root = root
        self.id = session or uuid.uuid4().hex
        self.refused = False
        self._seen: dict[str, _Seen] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def _file(self) -> Path:
        return self.root / "sessions" / f"{self.id}.json"

    def start(self, about: str) -> None:
        """Begin to beat. ``about`` is what the session says of itself in ``pinch status``."""
        for folder in ("sessions", "leases"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
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
            temporary = self._file.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({**record, "beat": count}))
            os.replace(temporary, self._file)

        def beat() -> None:
            count = 0
            while not self._stop.wait(BEAT_EVERY):
                count += 1
                # A full disk must not end the session; at worst others take its steps over, which is harmless.
                with contextlib.suppress(OSError):
                    write(count)

        write(0)
        self._thread = threading.Thread(target=beat, name="pinch-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop beating and give back every lease this session holds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=BEAT_EVERY * 2)
        for lease in self._leases():
            if self._owner(lease) == self.id:
                lease.unlink(missing_ok=True)
        self._file.unlink(missing_ok=True)

    def acquire(self, key: str) -> bool:
        """Take the lease of a step; False while a live session holds it. Holding it already is fine."""
        lease = self.root / "leases" / key[:16]
        for _ in range(3):
            temporary = lease.with_name(f"{lease.name}.{uuid.uuid4().hex}")
            temporary.write_text(self.id)
            try:
                os.link(temporary, lease)  # creates with its content, or fails if it exists
                return True
            except FileExistsError:
                pass
            finally:
                temporary.unlink(missing_ok=True)
            owner = self._owner(lease)
            if owner == self.id:
                return True
            if owner is not None and self.alive(owner):
                return False
            self._break(lease, owner)
        return False

    def release(self, key: str) -> None:
        """Give a lease back; nothing happens when this session does not hold it."""
        lease = self.root / "leases" / key[:16]
        if self._owner(lease) == self.id:
            lease.unlink(missing_ok=True)

    def holder(self, key: str) -> str | None:
        """Who is working on a step: ``user@host (pid 123)``, or None when nobody alive is."""
        owner = self._owner(self.root / "leases" / key[:16])
        if owner is None or not self.alive(owner):
            return None
        record = self._read(owner) or {}
        return f"{record.get('user', '?')}@{record.get('host', '?')} (pid {record.get('pid', '?')})"

    def held(self) -> dict[str, str]:
        """key16 -> session id, for every lease there is."""
        return {lease.name: owner for lease in self._leases() if (owner := self._owner(lease)) is not None}

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
            except psutil.Error:
                same = False
            if not same:
                return False
        now = time.monotonic()
        with self._lock:
            seen = self._seen.get(session)
            if seen is None or seen.beat != record["beat"]:
                self._seen[session] = _Seen(record["beat"], now)
                return True
            return now - seen.at < DEAD_AFTER

    def _leases(self) -> list[Path]:
        folder = self.root / "leases"
        return [path for path in folder.iterdir() if "." not in path.name] if folder.is_dir() else []

    def _owner(self, lease: Path) -> str | None:
        try:
            return lease.read_text()
        except FileNotFoundError:
            return None

    def _read(self, session: str) -> dict[str, Any] | None:
        try:
            return json.loads((self.root / "sessions" / f"{session}.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def _break(self, lease: Path, owner: str | None) -> None:
        """Remove a dead session's lease, and put it back if it turns out to be somebody else's by now."""
        aside = lease.with_name(f"{lease.name}.{uuid.uuid4().hex}")
        try:
            os.rename(lease, aside)
        except FileNotFoundError:
            return
        if self._owner(aside) != owner:
            try:
                os.link(aside, lease)
            except FileExistsError:
                pass
        aside.unlink(missing_ok=True)
