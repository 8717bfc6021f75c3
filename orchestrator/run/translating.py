"""A translation: the English texts of a sweep in one language, and the corpus that is put together from them.

Answers are looked up in the ledger of language and translator before anything is asked, and are in it before they
count, so a session that is killed loses the requests under way and no other.

This module must never know who asks the translator, or how.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.corpus.base import FLAGS_FILE, Example, write_corpus
from orchestrator.identity import Step
from orchestrator.run.jobs import Place, attempt, entry_of, rows_of
from orchestrator.store import Store
from orchestrator.translations import english_examples, ledger_of, texts_of
from trainables.errors import EnvironmentProblem
from trainables.translators import Answer, Target, TranslatorSpec
from trainables.translators.courses import Courses, Translation
from trainables.translators.protect import has_letters, prose

TRANSLATIONS = pa.schema(
    [
        ("english", pa.string()),
        ("text", pa.string()),
        ("left", pa.int32()),
        ("flag", pa.string()),
    ]
)
FILE = "translations.parquet"
FACTS = ("characters", "prompt_tokens", "completion_tokens")

Ask = Callable[[list[str]], Mapping[str, str]]
"""Has strings translated and their answers put into the ledger; returns, by digest, why some will never be."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationJob:
    """One language of a corpus, to be translated from English."""

    step: Step
    english: str
    """Key of the English corpus."""
    translator: TranslatorSpec
    target: Target
    price: float | None = None
    """For a million characters; None is unknown."""

    @property
    def rows(self) -> dict[str, int]:
        """How many of the training pairs and prompts."""
        rows: dict[str, int] = self.step.payload["rows"]
        return rows


def record_of(answer: Answer) -> dict[str, Any]:
    """An answer as the ledger keeps it."""
    return {name: value for name, value in dataclasses.asdict(answer).items() if name != "refused"}


def translate(place: Place, job: TranslationJob, ask: Ask) -> None:
    """Translate every text that the ledger does not have, look all of them over, and publish.

    Raises:
        BudgetReached, Unreachable, EnvironmentProblem: as ``ask`` does; what was answered is in the ledger.
        EnvironmentProblem: the translator translated nothing at all.
    """
    store = place.open()
    started = time.monotonic()
    examples = english_examples(store.use(entry_of(store, "corpus", job.english)), job.rows)
    texts = texts_of(*examples)
    ledger = ledger_of(store, job.translator, job.target.code)
    courses = Courses(texts, job.translator.whole, job.translator.limit)
    refused: dict[str, str] = {}
    while True:
        answers = ledger.read()
        known = {key: answer["text"] for key, answer in answers.items()} | dict.fromkeys(refused, "")
        if not (wanted := courses.wanted(known)):
            break
        refused |= ask(wanted)
    done = [courses.done[text] for text in texts]
    _refuse_nothing_at_all(job, texts, done, refused)
    flags = _look(texts, done, job.target.code)
    used = [answers[key] for key in courses.used if key in answers]
    with attempt(store, job.step) as out:
        rows = [
            {"english": text, "text": translation.text, "left": translation.left, "flag": flag}
            for text, translation, flag in zip(texts, done, flags, strict=True)
        ]
        pq.write_table(pa.Table.from_pylist(rows, TRANSLATIONS), out / FILE, compression="zstd")
        store.publish(job.step, out, _facts(job, used, flags, time.monotonic() - started))


def assemble(place: Place, step: Step) -> None:
    """Put a translated corpus together; flagged examples are named beside it."""
    store = place.open()
    started = time.monotonic()
    english, translation = step.needs
    train, evaluation = english_examples(store.use(entry_of(store, "corpus", english.key)), dict(step.payload["rows"]))
    rows = rows_of(store, entry_of(store, "translation", translation.key), FILE)
    said = {row["english"]: row["text"] for row in rows}
    doubtful = {row["english"]: row["flag"] for row in rows if row["flag"]}
    flagged = [
        {"id": example.id, "part": part, "flag": doubtful[text]}
        for example in (*train, *evaluation)
        for part, text in (("instruction", example.instruction), ("response", example.response))
        if text in doubtful
    ]
    with attempt(store, step) as out:
        counts = write_corpus(
            out,
            [Example(one.id, said[one.instruction], said[one.response or ""]) for one in train],
            [Example(one.id, said[one.instruction], None) for one in evaluation],
        )
        schema = pa.schema([(name, pa.string()) for name in ("id", "part", "flag")])
        pq.write_table(pa.Table.from_pylist(flagged, schema), out / FLAGS_FILE)
        seconds = round(time.monotonic() - started, 2)
        store.publish(step, out, {"rows": counts, "flagged": len({row["id"] for row in flagged}), "seconds": seconds})


def flags_sentence(store: Store, steps: Mapping[str, Step]) -> str | None:
    """How many texts of each language are in doubt, and why; None where nothing is translated."""
    told = []
    for code, step in steps.items():
        entry = store.find(step.kind, step.key)
        if entry is not None:
            flags = dict(entry.facts["flags"])
            of = flags.pop("of")
            why = ", ".join(f"{count} {name}" for name, count in flags.items() if count)
            told.append(f"{code} {sum(flags.values())} of {of:,}{f' ({why})' if why else ''}")
    return f"Translations in doubt: {'; '.join(told)}." if told else None


def _look(texts: list[str], done: list[Translation], language: str) -> list[str | None]:
    from trainables.translators.gate import look

    return [flag and str(flag) for flag in look(texts, done, language)]


def _refuse_nothing_at_all(
    job: TranslationJob, texts: list[str], done: list[Translation], refused: Mapping[str, str]
) -> None:
    wordy = [made for text, made in zip(texts, done, strict=True) if has_letters(prose(text))]
    if wordy and all(made.left for made in wordy):
        why = next(iter(refused.values()), "no answer could be used")
        raise EnvironmentProblem(
            f"corpus.translator: {job.translator.label} translated none of {len(wordy)} texts into {job.target.name} "
            f"({why}); mend corpus.translator.model, its prompt or its settings"
        )


def _facts(job: TranslationJob, used: list[dict[str, Any]], flags: list[str | None], seconds: float) -> dict[str, Any]:
    from trainables.translators.gate import counts

    facts: dict[str, Any] = {name: sum(answer[name] for answer in used) for name in FACTS}
    facts |= {"rows": len(flags), "flags": counts(flags), "seconds": round(seconds, 2)}
    facts |= {"translator": job.translator.label, "models": sorted({answer["model"] for answer in used} - {""})}
    if job.price is not None:
        facts["cost"] = round(facts["characters"] / 1e6 * job.price, 6)
    return facts
