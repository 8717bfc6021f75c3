"""A user's own parallel examples, from JSON lines or Parquet.

Each file has one row per example and language, with ``id``, ``language``, ``instruction`` and ``response``.
It is believed only after it has been checked: parallel data that is not quite parallel gives scores that are
not quite comparable, and nobody would see it.

What a language's examples are is decided by their content, so the key of a language changes with its own rows
and with nothing else: not with another language's rows, the sequence of rows, the counts of a sweep, or the
form and place of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.corpus.base import Example, write_corpus
from trainables.errors import UserError

COLUMNS = ("id", "language", "instruction", "response")
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)

_Pool = dict[str, dict[str, Example]]
"""By language, by id."""


class FilesCorpus:
    """The examples of two files, one to train on and one to evaluate with.

    Ids are used in sorted order: a sweep takes the first ``train_count`` and ``eval_count`` of them. Rows in
    languages that were not asked for are skipped. The files are read at the first question and kept.

    All methods raise UserError, naming the file and where possible the row, when the files are missing or
    broken, lack an example in a language, have one twice or empty, or hold fewer examples than asked for.
    """

    source = "files"

    def __init__(
        self,
        *,
        train: str | Path,
        eval: str | Path,  # noqa: A002 (the sweep file's word)
        languages: Sequence[str],
        train_count: int,
        eval_count: int,
        needs_references: bool,
    ) -> None:
        """``needs_references``: whether every evaluation prompt must have a response (reference judge)."""
        self.train_path = Path(train).expanduser()
        self.eval_path = Path(eval).expanduser()
        self.languages = tuple(languages)
        self.train_count = train_count
        self.eval_count = eval_count
        self.needs_references = needs_references

    def train_ids(self) -> list[str]:
        """Ids of the training examples, sorted, the first ``train_count``."""
        return self._first(self._train, self.train_path, self.train_count, "train_count")

    def eval_ids(self) -> list[str]:
        """Ids of the evaluation prompts, sorted, the first ``eval_count``."""
        return self._first(self._eval, self.eval_path, self.eval_count, "eval_count")

    def payload(self, language: str) -> dict[str, Any]:
        """Digests of the language's own rows: to train on, the eval prompts, and their references."""
        train, prompts = self._train[language], self._eval[language]
        return {
            "source": self.source,
            "language": language,
            "train": _digest((key, row.instruction, row.response) for key, row in train.items()),
            "eval": _digest((key, row.instruction) for key, row in prompts.items()),
            "references": _digest((key, row.response) for key, row in prompts.items()),
        }

    def build(self, language: str, out: Path) -> dict[str, Any]:
        """Write all rows of the language, sorted by id; returns ``{"train": rows, "eval": rows}``."""
        return write_corpus(out, self._train[language].values(), self._eval[language].values())

    @cached_property
    def _train(self) -> _Pool:
        return self._read(self.train_path, "train", needs_response=True)

    @cached_property
    def _eval(self) -> _Pool:
        return self._read(self.eval_path, "eval", needs_response=self.needs_references)

    def _first(self, pool: _Pool, path: Path, count: int, key: str) -> list[str]:
        ids = list(pool[self.languages[0]])
        if len(ids) < count:
            raise UserError(
                f"{path}: has {len(ids)} examples, but corpus.{key} is {count}; add examples or lower {key}."
            )
        return ids[:count]

    def _read(self, path: Path, key: str, *, needs_response: bool) -> _Pool:
        pool: _Pool = {code: {} for code in self.languages}
        others: set[str] = set()
        for number, row in _rows(path, key):
            code = _text(path, number, row, "language")
            if code not in pool:
                others.add(code)
                continue
            name = _text(path, number, row, "id")
            if name in pool[code]:
                raise UserError(f"{path}: row {number} is a second example {name!r} in {code}; keep one of them.")
            instruction = _text(path, number, row, "instruction")
            response = row.get("response")
            if needs_response or (response is not None and str(response).strip()):
                response = _text(path, number, row, "response", key=key)
            else:
                response = None
            pool[code][name] = Example(name, instruction, response)
        _check_parallel(path, pool, others)
        return {code: dict(sorted(examples.items())) for code, examples in pool.items()}


def _check_parallel(path: Path, pool: _Pool, others: Iterable[str]) -> None:
    for code, examples in pool.items():
        if not examples:
            found = sorted({*others, *(other for other in pool if pool[other])})
            raise UserError(
                f"{path}: has no row in language {code} (it has {', '.join(found) or 'no rows at all'}); "
                f"add its rows or take {code} out of corpus.languages."
            )
    everything = set().union(*pool.values())
    for code, examples in pool.items():
        missing = everything - examples.keys()
        if missing:
            raise UserError(
                f"{path}: example {min(missing)!r} is missing in {code} ({len(missing)} of {len(everything)} "
                "are); give it in every language of corpus.languages, or in none."
            )


def _rows(path: Path, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their numbers from 1: lines of JSON, records of Parquet."""
    suffix = path.suffix.lower()
    if suffix not in JSON_LINES + PARQUET:
        raise UserError(
            f"corpus.{key}: {path} ends in {suffix or 'no extension'}; give a file that ends in "
            f"{', '.join(JSON_LINES + PARQUET)}."
        )
    if not path.is_file():
        raise UserError(f"corpus.{key}: {path} is not there; check the path.")
    try:
        yield from _parquet_rows(path) if suffix in PARQUET else _json_rows(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); check the file and its permissions.") from None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                row = json.loads(text.decode().rstrip())
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: row {number} is not UTF-8 ({error.reason}); save the file in UTF-8."
                ) from None
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{path}: row {number} is not JSON ({error.msg}, column {error.colno}); "
                    "give one JSON object per line."
                ) from None
            if not isinstance(row, dict):
                raise UserError(f"{path}: row {number} is {_kind(row)}; give one JSON object per line.")
            yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in COLUMNS if name in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise UserError(f"{path}: is not a readable Parquet file ({error}); write it again.") from None


def _text(path: Path, number: int, row: dict[str, Any], column: str, key: str = "") -> str:
    if column not in row:
        cure = " (the judge needs a reference)" if column == "response" and key == "eval" else ""
        raise UserError(f"{path}: row {number} has no {column}; every row needs one{cure}.")
    value = row[column]
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise UserError(f"{path}: row {number} has {_kind(value)} as {column}; give it as text.")
    if not value.strip():
        raise UserError(f"{path}: row {number} has an empty {column}; fill it in, or leave the example out of all.")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{path}: row {number} has half a character (a lone surrogate) in {column}; mend it.")
    return value


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a truth value", int: "a number", float: "a number", str: "text"}
    return names.get(type(value), "a list or an object")


def _digest(rows: Iterable[tuple[str | None, ...]]) -> str:
    """SHA-256 (64 hex digits) of rows as JSON lines."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()
