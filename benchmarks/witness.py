"""What becomes of a store's results while it is tampered with, seen from outside: from its folders alone."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from orchestrator.storage.base import measure

EVERY = 0.02
"""Seconds between two looks."""


class Witness(threading.Thread):
    """Remembers the digests of every result as it appears, and what happened to them: they must stay as they are.

    Use as a context manager.
    """

    MADE = ("fine_tune", "selection", "generation_set", "comparison")
    KINDS = ("corpus", *MADE)
    """The base is left alone: it takes a minute."""

    def __init__(self, store: Path) -> None:
        super().__init__(name="witness", daemon=True)
        self.store = store
        self.by_session: Counter[str] = Counter()
        """How many results each session published."""
        self.lost: list[str] = []
        """Results that vanished or changed although nobody had spoiled them, each with what was seen."""
        self.count = 0
        """Results seen so far, those made again counted again."""
        self.spoiled: set[str] = set()
        """Those somebody spoiled and that have not been made again yet."""
        self._seen: dict[str, tuple[int, dict[str, Any]]] = {}
        """Place -> (the folder's inode, the digests of its files)."""
        self._lock, self._over = threading.Lock(), threading.Event()

    def __enter__(self) -> Witness:
        self._look()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(EVERY):
            self._look()

    def spoil(self, folder: Path) -> None:
        """Somebody is about to spoil a result: it may be quarantined and made again."""
        with self._lock:
            self.spoiled.add(str(folder.relative_to(self.store)))

    def _look(self) -> None:
        with self._lock:
            there: dict[str, Path] = {}
            for kind in self.KINDS:
                with contextlib.suppress(FileNotFoundError):
                    there |= {f"{kind}/{folder.name}": folder for folder in (self.store / kind).iterdir()}
            for place in self._seen.keys() - there.keys():
                self._gone(place, "vanished")
            for place, folder in there.items():
                with contextlib.suppress(FileNotFoundError):  # in quarantine by now
                    self._met(place, folder)

    def _met(self, place: str, folder: Path) -> None:
        inode = folder.stat().st_ino
        if place in self._seen and self._seen[place][0] == inode:
            return
        manifest = json.loads((folder / "manifest.json").read_text())
        if place in self._seen:
            self._gone(place, "was replaced by another")
        self.spoiled.discard(place)
        self._seen[place] = inode, manifest["files"]
        self.count += 1
        if manifest["kind"] in self.MADE:
            self.by_session[manifest["made"]["session"]] += 1

    def _gone(self, place: str, how: str) -> None:
        del self._seen[place]
        if place not in self.spoiled:
            self.lost.append(f"{place} {how}")

    def changed(self) -> list[str]:
        """Files that are not what they were when they appeared."""
        self._look()
        with self._lock:
            return [
                f"{place}/{name} changed"
                for place, (_, files) in self._seen.items()
                for name, digest in files.items()
                if not (self.store / place / name).is_file() or measure(self.store / place / name) != digest
            ]
