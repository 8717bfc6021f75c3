"""Reading the small CSV tables that people bring; a refusal names file, row, what was found, and the cure.

Rows are numbered as a spreadsheet numbers them: the header is row 1. This room must never know what the
columns mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TextIO

from trainables.errors import UserError

_CELL_LIMIT = 10_000_000


def read_table(
    path: Path, required: Collection[str], optional: Collection[str] = (), content: bytes | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file in UTF-8 (a byte order mark is tolerated), as (row number, cell by column).

    Cells are stripped of white space around them; blank lines are skipped; columns beyond the asked ones are
    left out.

    Args:
        content: what it holds, where ``path`` is the name of something that is no file here.

    Raises:
        UserError: for a file that is missing, empty or not UTF-8, missing or doubled columns, and, when its
            turn comes, a row with too few or too many cells.
    """
    wanted = [*required, *optional]
    header: list[str] | None = None
    for number, cells in _records(path, content):
        if header is None:
            header = cells
            _check_header(path, header, required, wanted)
            continue
        if len(cells) != len(header):
            raise UserError(
                f"{path}: row {number} has {len(cells)} cells where the header has {len(header)}; "
                "give every column a cell, and put quotes around commas."
            )
        yield number, {name: cell for name, cell in zip(header, cells, strict=True) if name in wanted}
    if header is None:
        raise UserError(f"{path}: the file is empty; it needs a header {','.join(required)} and rows.")


def _check_header(path: Path, header: list[str], required: Collection[str], wanted: Collection[str]) -> None:
    missing = [name for name in required if name not in header]
    if missing:
        raise UserError(
            f"{path}: row 1 has the columns {','.join(header)}, without {', '.join(missing)}; "
            f"needed are {','.join(required)}."
        )
    for name in wanted:
        if header.count(name) > 1:
            raise UserError(f"{path}: row 1 has the column {name} {header.count(name)} times; keep one.")


def _records(path: Path, content: bytes | None) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_CELL_LIMIT)
    number = 0
    try:
        with _opened(path, content) as file:
            for number, cells in enumerate(csv.reader(file, strict=True), start=1):
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    yield number, stripped
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: there is no such file; check the path.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as CSV in UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}: row {number + 1} is not CSV ({error}); save the table as CSV again.") from None


def _opened(path: Path, content: bytes | None) -> TextIO:
    if content is None:
        return path.open(encoding="utf-8-sig", newline="")
    return io.StringIO(content.decode("utf-8-sig"), newline="")
