"""What was paid for is kept from the moment it arrives: a ledger of answers that survives a kill.

A remote judge's verdict or a translated text costs money before the step it belongs to is published. Each goes to an
append-only file of its own process, ``<store>/ledger/<name>/<process>.jsonl``, one line an answer, on the disk before
the next is asked for. A line that a kill cut short is not an answer. Of two answers to one key the first written, by
file name and line, stands, so every reader sees the same.

This module must never know what an answer means.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Ledger:
    """The answers of one name. Safe to use from several threads, processes and sessions at once."""

    def __init__(self, root: Path, name: str) -> None:
        """Args:
        root: the store's folder.
        name: a plain name; nothing is written before the first answer.
        """
        self.folder = root / "ledger" / name
        self._file: Any = None
        self._lock = threading.Lock()

    def read(self) -> dict[str, dict[str, Any]]:
        """Every whole answer by its key."""
        answers: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                row = json.loads(line)
                answers.setdefault(row["key"], row["answer"])
        return answers

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            OSError: the disk is full or gone.
        """
        self.extend({key: answer})

    def extend(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep several answers, by their keys, that arrived at once.

        Raises:
            OSError: the disk is full or gone.
        """
        lines = [
            json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n" for key, answer in answers.items()
        ]
        with self._lock:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = (self.folder / f"{uuid.uuid4().hex}.jsonl").open("ab")
            self._file.write("".join(lines).encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Forget everything: the step that needed it is published."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
        shutil.rmtree(self.folder, ignore_errors=True)
