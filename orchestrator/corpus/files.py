"""A user's own parallel examples, from JSON lines or Parquet.

Each file has one row per example and language, with ``id``, ``language``, ``instruction`` and ``response``.
It is believed only after it has been checked: parallel data that is not quite parallel gives scores that are
not quite comparable, and nobody would see it.

What a language's examples are is decided by their content, so the key of a language changes with its own rows
and with nothing else: not with another language's rows, the sequence of rows, the counts of a sweep, or the
form and place of the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.corpus.base import Example, write_corpus
from orchestrator.corpus.rows import JSON_LINES, PARQUET, Row, digest_of_rows, read_rows
from trainables.errors import UserError

COLUMNS = ("id", "language", "instruction", "response")

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
        self._payloads: dict[str, dict[str, Any]] = {}

    def train_ids(self) -> list[str]:
        """Ids of the training examples, sorted, the first ``train_count``."""
        return self._first(self._train, self.train_path, self.train_count, "train_count")

    def eval_ids(self) -> list[str]:
        """Ids of the evaluation prompts, sorted, the first ``eval_count``."""
        return self._first(self._eval, self.eval_path, self.eval_count, "eval_count")

    def origin(self, id: str) -> str:  # noqa: A002 (the example's word)
        """The user's files, every one."""
        return self.source

    def payload(self, language: str) -> dict[str, Any]:
        """Digests of the language's own rows: to train on, the eval prompts, and their references."""
        if language not in self._payloads:
            self._payloads[language] = self._digested(language)
        return self._payloads[language]

    def _digested(self, language: str) -> dict[str, Any]:
        train, prompts = self._train[language], self._eval[language]
        return {
            "source": self.source,
            "language": language,
            "train": digest_of_rows((key, row.instruction, row.response) for key, row in train.items()),
            "eval": digest_of_rows((key, row.instruction) for key, row in prompts.items()),
            "references": digest_of_rows((key, row.response) for key, row in prompts.items()),
        }

    def prepare(self, languages: Collection[str]) -> None:
        """Nothing: the files were checked when they were read."""

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
        for row in read_rows(path, f"corpus.{key}", JSON_LINES + PARQUET, COLUMNS):
            code = row.text("language")
            if code not in pool:
                others.add(code)
                continue
            name = _id(row)
            if name in pool[code]:
                raise row.wrong(f"is a second example {name!r} in {code}; keep one of them.")
            instruction = row.text("instruction")
            response = row.fields.get("response")
            if needs_response or (response is not None and str(response).strip()):
                response = row.text("response", " (the judge needs a reference)" if key == "eval" else "")
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


def _id(row: Row) -> str:
    value = row.fields.get("id")
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else row.text("id")
    if "\0" in name:
        raise row.wrong("has a NUL character in its id; take it out.")
    return name
