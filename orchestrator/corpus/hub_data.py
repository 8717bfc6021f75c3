"""The paper's public data sets: where each lies, at which commit, and how a user's own copy takes its place.

A branch of the hub moves, so a data set is pinned to a commit, which is its key: planning needs neither the data nor a
network. A copy is keyed by the pairs that are in it, so two copies of one content are one corpus.

The exact files of the commit are fetched, and read by ``load_dataset`` from there, rather than the repository by its
name: LIMA's and AlpacaFarm's hold loading scripts, which ``datasets`` no longer runs, and where the hub cannot be
reached it would take whatever revision is in its cache. What was fetched once needs no network again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.corpus import hub_formats
from orchestrator.corpus.base import Example
from orchestrator.corpus.hub_formats import Taken
from orchestrator.corpus.rows import JSON_LINES, JSON_LIST, PARQUET, Row, digest_of_rows, read_rows
from trainables import hub_base
from trainables.errors import EnvironmentProblem, UserError

RESULT_VERSION = 1
"""Raised when the same files are to give other pairs."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicData:
    """One data set as its owner publishes it."""

    name: str
    """In a sweep file and in ids: ``lima``."""
    repository: str
    revision: str
    """The commit that is used unless the sweep names another."""
    files: tuple[str, ...]
    """Patterns of the files that are read; each must match."""
    pairs: int
    """What the paper takes of it: the first so many."""
    characters: int
    """About how many characters of these are sent to be translated into one language."""
    read: Callable[[Iterable[Row]], Taken]


PUBLIC = {
    data.name: data
    for data in (
        PublicData(
            name="lima",
            repository="GAIR/lima",
            revision="68958e98267f5fb4a52a03ebcdae4ae59213fa7c",
            files=("train.jsonl",),
            pairs=1000,
            characters=2_640_000,
            read=hub_formats.lima,
        ),
        PublicData(
            name="oasst1",
            repository="OpenAssistant/oasst1",
            revision="fdf72ae0827c1cda404aff25b6603abec9e3399b",
            files=("data/train-*.parquet", "data/validation-*.parquet"),
            pairs=3640,
            characters=4_010_000,  # at the 1,101 a pair of its English validation part
            read=hub_formats.oasst1,
        ),
        PublicData(
            name="alpacafarm",
            repository="tatsu-lab/alpaca_farm",
            revision="f8ca79be8498a5bde4631a021ae4d83123892438",
            files=("alpaca_farm_evaluation.json",),
            pairs=617,  # 805 without the 188 that are from OASST1
            characters=105_000,
            read=hub_formats.alpacafarm,
        ),
    )
}


class Source:
    """One of the data sets as a sweep uses it: the hub's at a commit, or a file of the user's own."""

    def __init__(self, name: str, revision: str | None = None, copy: str | None = None) -> None:
        """Raises UserError for a revision that is not a commit, or one beside a copy."""
        self.data = PUBLIC[name]
        self.copy = Path(copy).expanduser() if copy else None
        self.revision = revision or self.data.revision
        if copy and revision:
            raise UserError(f"corpus.copies.{name}: is given beside corpus.revisions.{name}; give one of the two.")
        if not _COMMIT.fullmatch(self.revision):
            raise UserError(
                f"corpus.revisions.{name}: {self.revision!r} is not a commit, and a branch may move; "
                f"write the 40 hex digits that the hub shows for {self.data.repository}."
            )

    @property
    def size(self) -> int:
        """How many pairs there are: of a copy, counted; of the hub's, what the paper takes, known without it."""
        return len(self.examples) if self.copy else self.data.pairs

    @property
    def payload(self) -> dict[str, Any]:
        """What determines the examples."""
        if self.copy:
            return {"name": self.data.name, "pairs": digest_of_rows(self.examples)}
        return {"name": self.data.repository, "revision": self.revision, "version": RESULT_VERSION}

    @cached_property
    def examples(self) -> list[Example]:
        """The pairs with their ids, ``lima-0000`` and on: the first as many as the paper takes.

        Raises:
            UserError: a file that cannot be used, with the row; a data set that may not be read.
            EnvironmentProblem: the hub cannot be reached.
        """
        pairs = self._taken.pairs[: self.data.pairs]
        return [Example(f"{self.data.name}-{at:04d}", *pair) for at, pair in enumerate(pairs)]

    @property
    def left_out(self) -> dict[str, int]:
        """Why rows were left out -> how many."""
        beyond = len(self._taken.pairs) - len(self.examples)
        return {**self._taken.left_out, **({f"beyond the first {self.data.pairs}": beyond} if beyond else {})}

    @cached_property
    def _taken(self) -> Taken:
        if self.copy:
            return self.data.read(read_rows(self.copy, self._key, JSON_LINES + JSON_LIST + PARQUET))
        return self.data.read(self._hub_rows())

    @property
    def _key(self) -> str:
        return f"corpus.copies.{self.data.name}"

    def _hub_rows(self) -> Iterator[Row]:
        data = self.data
        folder = hub_base.fetch(
            data.repository,
            self.revision,
            key="corpus",
            kind="dataset",
            wanted=data.files,
            instead=f"name your own copy: {self._key}=FILE",
        )
        paths = [sorted(folder.glob(pattern)) for pattern in data.files]
        for pattern, found in zip(data.files, paths, strict=True):
            if not found:
                raise EnvironmentProblem(
                    f"corpus: there is no {pattern} of {data.repository} at {self.revision[:12]} here; connect, name "
                    f"another commit in corpus.revisions.{data.name}, or name your own copy: {self._key}=FILE"
                )
        place = f"{data.repository}@{self.revision[:12]}"
        for number, fields in enumerate(_load([path for found in paths for path in found]), start=1):
            yield Row(place, number, fields)


def _load(paths: list[Path]) -> Iterable[dict[str, Any]]:
    from datasets import load_dataset

    form = "parquet" if paths[0].suffix in PARQUET else "json"
    return load_dataset(form, data_files=[str(path) for path in paths], split="train")
