"""What every source of parallel examples looks like to the rest, and the form its examples are stored in.

A corpus is parallel: an example has an id that is the same in every language. So ids are asked of the corpus
as a whole, and everything else of one language at a time: a language is imported, keyed and stored on its
own, and a thirteenth language moves nothing of the other twelve. This room must never know of mixtures or
models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

TRAIN_FILE = "train.parquet"
EVAL_FILE = "eval.parquet"
FLAGS_FILE = "flags.parquet"
"""Beside them where somebody translated: column id, the examples (of either file) whose translation is in doubt."""


class Example(NamedTuple):
    """One example in one language."""

    id: str
    instruction: str
    response: str | None
    """The reference answer; None only for eval prompts without one."""


class Corpus(Protocol):
    """A source of parallel examples, already told its languages and counts."""

    source: str
    """How the sweep file names this kind of corpus: ``cldr``, ``hub`` or ``files``."""

    def train_ids(self) -> list[str]:
        """Ids of the training examples (dev included), cut to the sweep's ``train_count``; needs no build."""
        ...

    def eval_ids(self) -> list[str]:
        """Ids of the evaluation prompts, cut to the sweep's ``eval_count``; needs no build."""
        ...

    def origin(self, id: str) -> str:  # noqa: A002 (the example's word)
        """Where an example is from, as the corpus card names it: ``lima``; needs no build."""
        ...

    def payload(self, language: str) -> dict[str, Any]:
        """What determines the stored examples of one language, as plain JSON values; needs no build.

        Counts are no part of it: a build holds the whole pool, and a sweep takes the first of it.
        """
        ...

    def prepare(self, languages: Collection[str]) -> None:
        """Fetch and check what building these languages takes, before a run starts or writes anything.

        Raises:
            UserError: what is fetched does not hold what the sweep asks for. EnvironmentProblem: it cannot be had.
        """
        ...

    def build(self, language: str, out: Path) -> dict[str, Any]:
        """Write ``train.parquet`` and ``eval.parquet`` (id, instruction, response) into the folder ``out``.

        Returns the row counts, ``{"train": ..., "eval": ...}``, and whatever else the source found out.
        """
        ...


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples to a parquet file with columns id, instruction, response; returns the number of rows.

    The same examples in the same order give the same bytes under one pyarrow version.

    Raises:
        ValueError: for a doubled id, or an empty instruction, which no model should ever be shown.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(examples)
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise ValueError(f"{path.name}: example id {row.id!r} appears twice")
        if not row.instruction.strip():
            raise ValueError(f"{path.name}: example {row.id!r} has an empty instruction")
        seen.add(row.id)
    table = pa.table(
        {
            "id": pa.array([row.id for row in rows], pa.string()),
            "instruction": pa.array([row.instruction for row in rows], pa.string()),
            "response": pa.array([row.response for row in rows], pa.string()),
        }
    )
    pq.write_table(table, path, compression="zstd")
    return len(rows)


def write_corpus(out: Path, train: Iterable[Example], evaluation: Iterable[Example]) -> dict[str, Any]:
    """Write both files of one language into the folder ``out``; returns ``{"train": rows, "eval": rows}``."""
    return {
        "train": write_examples(out / TRAIN_FILE, train),
        "eval": write_examples(out / EVAL_FILE, evaluation),
    }


def read_examples(path: Path) -> list[Example]:
    """The examples of a file written by :func:`write_examples`, in stored order."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["id", "instruction", "response"])
    return [Example(row["id"], row["instruction"], row["response"]) for row in table.to_pylist()]


def flagged_ids(folder: Path) -> set[str] | None:
    """The examples whose translation is in doubt; None where nobody translated."""
    import pyarrow.parquet as pq

    path = folder / FLAGS_FILE
    return set(pq.read_table(path, columns=["id"])["id"].to_pylist()) if path.is_file() else None
