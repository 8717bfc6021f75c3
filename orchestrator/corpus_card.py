"""What models were tuned on and asked: examples per language and source, their lengths in tokens, what was cut.

Lengths are of what the model sees before it is cut, in tokens of the base: a prompt with its template, a target with
its end-of-text. Counting them takes minutes for a large corpus, so they are kept in the store, language by language,
under a key of all they depend on. A language appears once its corpus is in the store, lengths once the base is too.
This module must never know how a card is shown.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from orchestrator.corpus.base import EVAL_FILE, TRAIN_FILE, flagged_ids, read_examples
from orchestrator.identity import key_of
from orchestrator.plan import Model, Plan
from orchestrator.store import Entry, Store

RESULT_VERSION = 1
"""Raised when the same corpus gives other lengths."""
LENGTHS = "lengths"
"""The store's folder of what was counted."""
FIGURES = {"median": 50, "p95": 95, "longest": 100}
"""What is told of lengths -> its percentile; each is the length of a text, the nearest from above."""

Record = dict[str, Any]


class CorpusCards:
    """The cards of a plan from what a store holds; each language is read once.

    A card has a record for each language, part (``train``, dev included, or ``eval``) and source: ``language, part,
    source, examples, flagged``, then ``input_tokens_median``, ``_p95``, ``_longest``, ``cut_inputs``, and the same of
    ``target_tokens`` and ``cut_targets``. What there is not is None: flags of texts that nobody translated, lengths
    while the base is not there, targets of prompts without a reference. Evaluation cuts no reference.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store = plan, store
        self._frames: dict[str, pd.DataFrame] = {}
        self._tokens: _Tokens | None = None

    def corpus(self) -> list[Record]:
        """The card of everything the sweep tunes on and asks."""
        return [record for code in self._plan.corpora for record in self._records(code)]

    def mixture(self, model: Model) -> list[Record]:
        """The card of one model's training set, in its languages; none of a model that was not tuned."""
        by_language: dict[str, set[str]] = {}
        for name, code in sorted(model.mixture.assignment.items()) if model.mixture else ():
            by_language.setdefault(code, set()).add(name)
        return [record for code, names in sorted(by_language.items()) for record in self._records(code, names)]

    def _records(self, language: str, names: Collection[str] | None = None) -> list[Record]:
        frame = self._frame(language)
        if names is not None:
            frame = frame[(frame["part"] == "train") & frame["id"].isin(names)]
        recipe = self._plan.sweep.recipe
        records = []
        for (part, source), rows in cast(Any, frame.groupby(["part", "source"], sort=False)):
            records.append(
                {
                    "language": language,
                    "part": part,
                    "source": source,
                    "examples": len(rows),
                    "flagged": _sum(rows["flagged"]),
                    **_figures("input", rows["input"]),
                    "cut_inputs": _over(rows["input"], recipe.max_input_tokens),
                    **_figures("target", rows["target"]),
                    "cut_targets": _over(rows["target"], recipe.max_target_tokens) if part == "train" else None,
                }
            )
        return records

    def _frame(self, language: str) -> pd.DataFrame:
        """Columns id, part, source, flagged, input, target, a row for each example the sweep uses; <NA>: not known."""
        if language in self._frames:
            return self._frames[language]
        plan = self._plan
        step = plan.corpora[language]
        entry, base = self._store.find(step.kind, step.key), self._store.find(plan.base.kind, plan.base.key)
        if entry is None:
            return pd.DataFrame(columns=_COLUMNS)
        if base is None:
            return self._count(entry, None)
        self._frames[language] = self._kept(entry, base)
        return self._frames[language]

    def _kept(self, entry: Entry, base: Entry) -> pd.DataFrame:
        plan = self._plan
        about = {
            "version": RESULT_VERSION,
            "corpus": entry.key,
            "counts": [len(plan.train_ids), len(plan.eval_ids)],
            "base": base.key,
            "template": plan.template,
        }
        path = self._store.root / LENGTHS / f"{entry.name}-{key_of(about)[:16]}.parquet"
        try:
            return pd.read_parquet(path, dtype_backend="numpy_nullable")
        except (OSError, pa.ArrowInvalid):
            frame = self._count(entry, base)
            with contextlib.suppress(OSError):  # of a store that may only be read, they are counted each time
                _keep(frame, path)
            return frame

    def _count(self, entry: Entry, base: Entry | None) -> pd.DataFrame:
        plan = self._plan
        tokens = self._counter(base)
        folder = self._store.use(entry)
        doubtful = flagged_ids(folder)
        rows = []
        for part, file, wanted in (("train", TRAIN_FILE, plan.train_ids), ("eval", EVAL_FILE, plan.eval_ids)):
            texts = {example.id: example for example in read_examples(folder / file)}
            examples = [texts[name] for name in wanted]
            inputs = tokens.inputs([example.instruction for example in examples]) if tokens else [None] * len(examples)
            responses = [example.response for example in examples]
            targets = tokens.targets(responses) if tokens else [None] * len(examples)
            for example, *lengths in zip(examples, inputs, targets, strict=True):
                flagged = None if doubtful is None else example.id in doubtful
                rows.append((example.id, part, plan.corpus.origin(example.id), flagged, *lengths))
        return pd.DataFrame(rows, columns=_COLUMNS).astype({"flagged": "boolean", "input": "Int32", "target": "Int32"})

    def _counter(self, base: Entry | None) -> _Tokens | None:
        if self._tokens is None and base is not None:
            self._tokens = _Tokens(self._store.use(base, weights=False), self._plan.template)
        return self._tokens


_COLUMNS = ["id", "part", "source", "flagged", "input", "target"]


class _Tokens:
    """Counts tokens as fine-tuning does."""

    def __init__(self, folder: Path, template: str) -> None:
        from trainables.batches import template_text

        self._tokenizer: Any
        if (folder / "tokenizer.json").is_file():  # without torch, whose import takes seconds
            from transformers import PreTrainedTokenizerFast

            self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        else:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._template = template_text(template, self._tokenizer)

    def inputs(self, instructions: Sequence[str]) -> list[int]:
        from trainables.batches import input_lengths

        return input_lengths(self._tokenizer, self._template, instructions)

    def targets(self, responses: Sequence[str | None]) -> list[int | None]:
        from trainables.batches import target_lengths

        there = iter(target_lengths(self._tokenizer, [text for text in responses if text is not None]))
        return [None if text is None else next(there) for text in responses]


def as_table(card: Iterable[Record]) -> dict[str, list[Any]]:
    """A card's records as columns and rows, JSON: the form of MLflow's ``log_table``."""
    records = list(card)
    return {"columns": list(records[0]) if records else [], "data": [list(record.values()) for record in records]}


def _keep(frame: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        frame.to_parquet(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _figures(what: str, lengths: pd.Series) -> Record:
    known = lengths.dropna().to_numpy(dtype=int)
    return {
        f"{what}_tokens_{name}": int(np.percentile(known, percent, method="higher")) if len(known) else None
        for name, percent in FIGURES.items()
    }


def _over(lengths: pd.Series, limit: int) -> int | None:
    return _sum(lengths > limit)


def _sum(truths: pd.Series) -> int | None:
    return None if truths.isna().all() else int(truths.sum())
