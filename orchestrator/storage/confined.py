"""What keeps a folder's content inside the folder: no name that leads out, no link.

A store may come from somebody else, or be written to by many. A manifest that names ``../../notes.txt`` must not have
that file read, sent on or removed, and a link must not have written what is written "into" the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from trainables.errors import UserError


def inside(folder: Path, names: Iterable[str]) -> bool:
    """Whether names are those of files below a folder: none absolute, none with ``..``, none by way of a link."""
    names = list(names)
    if not lead_inside(names):
        return False
    parts = [PurePosixPath(name).parts for name in names]
    above = {part[:depth] for part in parts for depth in range(1, len(part))}
    return not any(folder.joinpath(*part).is_symlink() for part in above)


def lead_inside(names: Iterable[str]) -> bool:
    """Whether names, wherever they will be put, lead to places below that: none absolute, none with ``..``."""
    parts = [PurePosixPath(name).parts for name in names]
    return all(part and part[0] != "/" and ".." not in part for part in parts)


def plain(name: str) -> bool:
    """Whether a name is that of one file or folder right below another."""
    return lead_inside([name]) and PurePosixPath(name).parts == (name,)


def files(folder: Path) -> list[str]:
    """The files below a folder, at any depth, sorted; a link is none."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    )


def links(folder: Path) -> list[str]:
    """The links below a folder, at any depth; ``.`` when it is one itself."""
    if folder.is_symlink():
        return ["."]
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink())


RECORDS = (
    "annotations",
    "failures",
    "given_up",
    "leases",
    "ledger",
    "lengths",
    "orders",
    "reports",
    "sessions",
    "sweeps",
    "tracking",
)
"""The folders of a store whose files are read and written one by one."""


def refuse_links(root: Path) -> None:
    """To be called before a store is used.

    Raises:
        UserError: something in it that is written into, or sent on, is a link.
    """
    below = (path for folder in RECORDS for path in sorted((root / folder).rglob("*")))
    for path in (*sorted(root.glob("*")), *below):
        if path.is_symlink():
            raise UserError(
                f"--store {root}: {path.relative_to(root)} is a link, and what is written there would land elsewhere; "
                "move what it points to into the store, or name another folder."
            )
