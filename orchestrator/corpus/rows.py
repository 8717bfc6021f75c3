"""Rows of files that somebody else wrote: JSON lines, a JSON list or Parquet, each row with the place it stands at.

A file is believed row by row, and whoever finds something wrong with a row can say which one it is: in a list of JSON
objects as well, which is therefore read object by object. This module must never know what the rows are about.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trainables.errors import UserError, shown

JSON_LINES = (".jsonl", ".ndjson")
JSON_LIST = (".json",)
PARQUET = (".parquet",)

_SPACE = re.compile(r"\s*")


class Row(NamedTuple):
    """One row, and where it stands."""

    place: str
    """The file, or the data set at its revision."""
    number: int
    """From 1."""
    fields: dict[str, Any]

    def wrong(self, what: str) -> UserError:
        """The error that says what is wrong with this row, and the cure."""
        return UserError(f"{self.place}: row {self.number} {what}")

    def text(self, column: str, why: str = "") -> str:
        """A column's text, never empty.

        Args:
            why: what a missing column is needed for, as words to follow "every row needs one".

        Raises:
            UserError: it is missing, empty, not text, or not Unicode.
        """
        if column not in self.fields:
            raise self.wrong(f"has no {column}; every row needs one{why}.")
        value = self.fields[column]
        if not isinstance(value, str):
            raise self.wrong(f"has {kind_of(value)} as {column}; give it as text.")
        if not value.strip():
            raise self.wrong(f"has an empty {column}; fill it in, or leave the example out in every language.")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.wrong(f"has half a character (a lone surrogate) in {column}; mend it.")
        return value


def read_rows(path: Path, key: str, suffixes: Sequence[str], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file, read as its ending says.

    Args:
        key: the setting that names the file, such as ``corpus.train``.
        suffixes: the endings that are welcome.
        columns: what to read of a Parquet file; None reads all.

    Raises:
        UserError: the file is missing or cannot be read, or a row is not a JSON object; with the row and the cure.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise UserError(
            f"{key}: {path} ends in {suffix or 'no extension'}; give a file that ends in {', '.join(suffixes)}."
        )
    if not path.is_file():
        raise UserError(f"{key}: {path} is not there; check the path.")
    try:
        if suffix in PARQUET:
            yield from _parquet_rows(path, columns)
        elif suffix in JSON_LIST:
            yield from _list_rows(path)
        else:
            yield from _line_rows(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); check the file and its permissions.") from None


def _line_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                value = json.loads(text.decode().rstrip(), object_pairs_hook=_once)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: row {number} is not UTF-8 ({error.reason}); save the file in UTF-8."
                ) from None
            except (ValueError, RecursionError) as error:
                where = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                raise UserError(f"{path}: row {number} is not JSON ({where}); give one JSON object per line.") from None
            if not isinstance(value, dict):
                raise UserError(f"{path}: row {number} is {kind_of(value)}; give one JSON object per line.")
            yield Row(str(path), number, value)


def _list_rows(path: Path) -> Iterator[Row]:
    """The objects of one JSON list; what follows a break is not looked at."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason}); save the file in UTF-8.") from None
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise UserError(f"{path}: is not a JSON list; give a list of objects, or one object per line in a .jsonl file.")
    at, number = _skip(text, at + 1), 0
    while text[at : at + 1] != "]":
        number += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            cut = not text[error.pos :].strip() or "Unterminated" in error.msg
            found = "is cut off" if cut else f"is not JSON ({error.msg}, line {error.lineno})"
            raise UserError(f"{path}: row {number} {found}; get the whole file again.") from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: row {number} is not JSON ({error}); get the whole file again.") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}: row {number} is {kind_of(value)}; give a list of objects.")
        yield Row(str(path), number, value)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise UserError(f"{path}: the list is cut off after row {number}; get the whole file again.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names stand in it once; of two values JSON would keep the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object names {shown(twice)} twice")
    return found


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = names if columns is None else [name for name in columns if name in names]
            number = 0
            for batch in file.iter_batches(columns=wanted):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(str(path), number, fields)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a readable Parquet file ({error}); write it again.") from None


def kind_of(value: Any) -> str:
    """What a value is, in words: ``a number``."""
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "text"}
    return names.get(type(value), "a list or an object")


_as_json = json.encoder.encode_basestring
"""A string as json.dumps writes it with ensure_ascii=False, without a new encoder for each."""


def digest_of_rows(rows: Iterable[tuple[str | None, ...]]) -> str:
    """SHA-256 (64 hex digits) of rows as JSON lines."""
    digest = hashlib.sha256()
    for row in rows:
        cells = ",".join(["null" if cell is None else _as_json(cell) for cell in row])
        digest.update(f"[{cells}]\n".encode())
    return digest.hexdigest()
