"""The folder a report is written to, which may hold other things that are not the report's.

Every file is written beside its place and moved there in one step, so that a reader never meets half a file. A file
of the same name that no earlier report wrote is somebody's own, and is never replaced: what reports wrote is listed in
``.pinch-report.json`` in the folder.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

from trainables.errors import UserError

LIST = ".pinch-report.json"


class Outputs:
    """Writes a report's files into one folder.

    Raises:
        UserError: when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UserError(f"--out {folder}: cannot make this folder ({problem.strerror}); name another.") from problem

    def write(self, name: str, content: bytes | str) -> Path:
        """Put a file there, whole, and return its path.

        Raises:
            UserError: when a file of that name is there which no report wrote, or the folder cannot be written to.
        """
        path = self.folder / name
        ours = self._list()
        self._refuse(name, ours)
        try:
            if name not in ours:  # claimed first, so that a report that is interrupted here can be written again
                self._replace(self.folder / LIST, json.dumps(sorted({*ours, name}), indent=1).encode())
            self._replace(path, content.encode() if isinstance(content, str) else content)
        except OSError as problem:
            raise UserError(
                f"--out {self.folder}: cannot write {name} ({problem.strerror}); name another."
            ) from problem
        return path

    def take(self, drawn: Path) -> None:
        """Put the files of a folder there, all or none.

        Raises:
            UserError: as :meth:`write`.
        """
        files = sorted(path for path in drawn.iterdir() if path.name != LIST)
        ours = self._list()
        for path in files:
            self._refuse(path.name, ours)
        for path in files:
            self.write(path.name, path.read_bytes())

    def _refuse(self, name: str, ours: set[str]) -> None:
        path = self.folder / name
        if path.exists() and name not in ours:
            raise UserError(
                f"{path} is there already and was not written by a report; move it away or give another --out."
            )

    def _list(self) -> set[str]:
        try:
            return set(json.loads((self.folder / LIST).read_text()))
        except (FileNotFoundError, ValueError):
            return set()

    def _replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
