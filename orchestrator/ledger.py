"""What was paid for is kept from the moment it arrives: a ledger of answers that survives a kill.

A remote judge's verdict or a translated text costs money before the step it belongs to is published. Each goes to a
growing record of its own process below ``ledger/<name>/``, one line an answer (in a folder a file that is appended
to, in an object store an object for what arrived at once), and is in the store before the next is asked for. A line
that a kill cut short is not an answer. Of two answers to one key the first written, by name of the record and line,
stands, so every reader sees the same.

This module must never know what an answer means.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Container, Mapping
from typing import Any

from orchestrator.storage import Storage


class Ledger:
    """The answers of one name. Safe to use from several threads, processes and sessions at once."""

    def __init__(self, storage: Storage, name: str) -> None:
        """Args:
        name: a plain name; nothing is written before the first answer.
        """
        self.folder = f"ledger/{name}"
        self._storage = storage
        self._appender = storage.appender(self.folder)
        self._lock = threading.Lock()

    def read(self) -> dict[str, dict[str, Any]]:
        """Every whole answer by its key."""
        answers: dict[str, dict[str, Any]] = {}
        for content in self._storage.read_all(self.folder).values():
            for line in content.split(b"\n")[:-1]:
                row = json.loads(line)
                answers.setdefault(row["key"], row["answer"])
        return answers

    def add(self, key: str, answer: Mapping[str, Any]) -> None:
        """Keep an answer; it is in the store when this returns.

        Raises:
            OSError: the store is full or gone.
        """
        self.extend({key: answer})

    def extend(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep several answers, by their keys, that arrived at once.

        Raises:
            OSError: the store is full or gone.
        """
        lines = [
            json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n" for key, answer in answers.items()
        ]
        with self._lock:
            self._appender.add("".join(lines).encode())

    def remove(self, published: Container[str]) -> None:
        """Forget every record that holds answers to these keys only: the step that needed them is published."""
        with self._lock:
            self._appender.close()
            self._appender = self._storage.appender(self.folder)
        for name, content in self._storage.read_all(self.folder).items():
            if all(json.loads(line)["key"] in published for line in content.split(b"\n")[:-1]):
                self._storage.remove(name)
