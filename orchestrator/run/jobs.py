"""One function per kind of step: read inputs from the store, let a trainable do the work, publish.

These run inside Ray tasks and actors, wherever there is room; only keys and small specs reach them, data travels
through the store. Each works in an attempt folder of its own and publishes it whole, or discards it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.corpus.base import EVAL_FILE, TRAIN_FILE, Corpus, Example, read_examples
from orchestrator.corpus.tiny_statements import write_statements
from orchestrator.identity import Step
from orchestrator.store import Corrupt, Entry, Store
from trainables.base_models import BaseSource, prepare
from trainables.batches import instruction_ids, template_text
from trainables.errors import EnvironmentProblem
from trainables.recipe import checkpoint_name, checkpoints_among
from trainables.sampling import Sampling, response_seed


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a job publishes, and in whose name."""

    root: str
    session: str

    def open(self) -> Store:
        return Store(self.root, self.session)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightsJob:
    """Which weights to answer with: a base, or the selected checkpoint of a fine-tune."""

    name: str
    base: str
    method: str
    fine_tune: str | None = None
    selection: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationJob:
    """One model's responses in one language."""

    step: Step
    weights: WeightsJob
    model_key: str
    corpus: str
    language: str
    sampling: Sampling
    seed: int
    template: str
    max_input_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionJob:
    """The checkpoints of one fine-tune, to be scored on its dev examples."""

    step: Step
    weights: WeightsJob
    dev: tuple[tuple[str, str], ...]
    """(example id, language)."""
    corpora: dict[str, str]
    template: str
    max_input_tokens: int
    max_target_tokens: int


@contextlib.contextmanager
def attempt(store: Store, step: Step) -> Iterator[Path]:
    """An attempt folder that is gone afterwards unless it was published.

    Raises:
        EnvironmentProblem: see :func:`unwritable`.
    """
    path: Path | None = None
    try:
        with unwritable(store):
            path = store.attempt(step)
            yield path
    finally:
        if path is not None:
            store.discard(path)


@contextlib.contextmanager
def unwritable(store: Store) -> Iterator[None]:
    """Raises:
    EnvironmentProblem: instead of an OSError, with the folder named (a full disk, say).
    """
    try:
        yield
    except OSError as problem:
        raise EnvironmentProblem(
            f"{store.location}: {problem.strerror or problem}; free some space and run again"
        ) from problem


def entry_of(store: Store, kind: str, key: str) -> Entry:
    """A step's input.

    Raises:
        Corrupt: when it is not there any more.
    """
    entry = store.find(kind, key)
    if entry is None:
        raise Corrupt(f"{kind} {key[:16]} is not in the store any more")
    return entry


def make_corpus(place: Place, step: Step, corpus: Corpus, language: str) -> None:
    """Build one language of a corpus."""
    store = place.open()
    started = time.monotonic()
    with attempt(store, step) as out:
        counts = corpus.build(language, out)
        store.publish(step, out, {"rows": counts, "seconds": round(time.monotonic() - started, 2)})


def make_base(place: Place, step: Step, source: BaseSource, progress: Callable[[float, str], None]) -> None:
    """Prepare the base model; `tiny` is pre-trained here."""
    store = place.open()
    with attempt(store, step) as out:
        statements = None
        if source.needs_statements:
            statements = out / "statements.parquet"
            write_statements(statements)
        facts = prepare(source, out, statements, progress)
        if statements is not None:
            statements.unlink()
        store.publish(step, out, facts)


def generate(place: Place, job: GenerationJob, engine: Any, progress: Callable[[int, int], None]) -> None:
    """Draw the responses a set lacks; those a smaller set of the same family has are taken over."""
    from trainables.generate import Prompt
    from trainables.langid import in_language

    store = place.open()
    started = time.monotonic()
    examples = eval_examples(store, job.corpus, int(job.step.payload["prompts"]))
    known = _known_responses(store, job.step)
    missing = [example for example in examples if example.id not in known]
    if missing:
        engine.load(weights_of(store, job.weights))
        template = template_text(job.template, engine.tokenizer)
        prompts = [
            Prompt(
                id=example.id,
                token_ids=instruction_ids(engine.tokenizer, template, example.instruction, job.max_input_tokens),
                seed=response_seed(job.seed, job.model_key, job.language, example.id),
            )
            for example in missing
        ]
        responses = engine.generate(prompts, job.sampling, progress)
        flags = in_language([response.text for response in responses], job.language)
        for response, flag in zip(responses, flags, strict=True):
            known[response.id] = {
                "instruction_id": response.id,
                "text": response.text,
                "tokens": response.tokens,
                "finish": response.finish,
                "in_language": flag,
            }
    rows = [known[example.id] for example in examples]
    with attempt(store, job.step) as out:
        pq.write_table(pa.Table.from_pylist(rows, RESPONSES), out / "responses.parquet")
        facts = {
            "rows": len(rows),
            "taken_over": len(rows) - len(missing),
            "tokens": sum(row["tokens"] for row in rows),
            "cut": sum(row["finish"] == "length" for row in rows),
            "engine": engine.name if missing else None,
            "seconds": round(time.monotonic() - started, 2),
        }
        store.publish(job.step, out, facts)


def select(place: Place, job: SelectionJob, engine: Any, progress: Callable[[int, int], None]) -> None:
    """Score every checkpoint by ROUGE-L on greedily decoded dev examples; the best is selected, of equals the first."""
    from trainables.generate import Prompt
    from trainables.rouge import rouge_l

    store = place.open()
    started = time.monotonic()
    assert job.weights.fine_tune is not None
    fine_tune = entry_of(store, "fine_tune", job.weights.fine_tune)
    examples = _dev_examples(store, job)
    template = template_text(job.template, engine.tokenizer)
    prompts = [
        Prompt(
            id=example.id,
            token_ids=instruction_ids(engine.tokenizer, template, example.instruction, job.max_input_tokens),
            seed=0,
        )
        for example in examples
    ]
    greedy = Sampling(temperature=0, top_p=1, max_new_tokens=job.max_target_tokens)
    scores: dict[int, float] = {}
    checkpoints = checkpoints_among(fine_tune.manifest["files"])
    for checkpoint in checkpoints:
        if len(checkpoints) == 1 and not prompts:
            break
        engine.load(_weights(job.weights, store.use(fine_tune, checkpoint) / checkpoint))
        responses = engine.generate(prompts, greedy, progress)
        pairs = zip(responses, examples, strict=True)
        values = [rouge_l(response.text, example.response or "") for response, example in pairs]
        scores[int(checkpoint.removeprefix("checkpoint-"))] = sum(values) / len(values)
    best = max(scores, key=lambda step: (scores[step], -step))
    with attempt(store, job.step) as out:
        rows = [{"step": step, "rouge_l": score} for step, score in sorted(scores.items())]
        (out / "scores.json").write_text(json.dumps({"selected": best, "dev": len(prompts), "scores": rows}))
        facts = {
            "selected": best,
            "rouge_l": round(scores[best], 4),
            "checkpoints": len(scores),
            "seconds": round(time.monotonic() - started, 2),
        }
        store.publish(job.step, out, facts)


def weights_of(store: Store, job: WeightsJob) -> Any:
    """The weights to load: the base's, or the checkpoint that was selected."""
    if job.selection is None or job.fine_tune is None:
        return _weights(job, store.use(entry_of(store, "base", job.base)))
    chosen = json.loads((store.use(entry_of(store, "selection", job.selection)) / "scores.json").read_text())
    checkpoint = checkpoint_name(chosen["selected"])
    return _weights(job, store.use(entry_of(store, "fine_tune", job.fine_tune), checkpoint) / checkpoint)


def _weights(job: WeightsJob, folder: Path) -> Any:
    from trainables.generate import Weights

    kind = "base" if job.fine_tune is None else job.method
    return Weights(name=f"{job.name}/{folder.name}", kind=kind, folder=folder)


def eval_examples(store: Store, corpus: str, count: int) -> list[Example]:
    """The first so many eval examples of one language, by the key of its corpus."""
    return read_examples(store.use(entry_of(store, "corpus", corpus)) / EVAL_FILE)[:count]


def _dev_examples(store: Store, job: SelectionJob) -> list[Example]:
    wanted: dict[str, set[str]] = {}
    for key, code in job.dev:
        wanted.setdefault(code, set()).add(key)
    found: list[Example] = []
    for code, keys in sorted(wanted.items()):
        folder = store.use(entry_of(store, "corpus", job.corpora[code]))
        found += [example for example in read_examples(folder / TRAIN_FILE) if example.id in keys]
    return found


def training_rows(store: Store, corpora: dict[str, str], assignment: dict[str, str], out: Path) -> int:
    """Write the examples of a mixture (id, language, instruction, response; sorted by id); returns how many."""
    texts = {
        code: {example.id: example for example in read_examples(store.use(entry_of(store, "corpus", key)) / TRAIN_FILE)}
        for code, key in corpora.items()
        if code in set(assignment.values())
    }
    rows = [
        {
            "id": key,
            "language": code,
            "instruction": texts[code][key].instruction,
            "response": texts[code][key].response,
        }
        for key, code in sorted(assignment.items())
    ]
    pq.write_table(pa.Table.from_pylist(rows), out)
    return len(rows)


RESPONSES = pa.schema(
    [
        ("instruction_id", pa.string()),
        ("text", pa.string()),
        ("tokens", pa.int32()),
        ("finish", pa.string()),
        ("in_language", pa.bool_()),
    ]
)


def _known_responses(store: Store, step: Step) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    for entry in store.relatives(step):
        for row in rows_of(store, entry, "responses.parquet"):
            known.setdefault(row["instruction_id"], row)
    return known


def rows_of(store: Store, entry: Entry, name: str) -> Sequence[dict[str, Any]]:
    """The rows of a result's table; none when it does not hold, for then it is quarantined."""
    try:
        return pq.read_table(store.use(entry) / name).to_pylist()
    except Corrupt:
        return ()  # quarantined by now; what it held is made again
