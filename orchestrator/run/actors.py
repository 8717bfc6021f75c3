"""The resident workers of a run: engines that answer, judges that compare, and tasks that build inputs.

An engine keeps its base loaded and swaps fine-tunes in and out; a judge keeps its model. Each actor is one process
that can be killed, which is the only reliable way to give its memory back. What goes on inside a long call goes to
`Pulse`, a small actor the terminal is fed from.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Literal

import ray

from orchestrator.corpus.base import Corpus
from orchestrator.identity import Step
from orchestrator.run import jobs, judging
from orchestrator.run.jobs import GenerationJob, Place, SelectionJob
from orchestrator.run.judging import ComparisonJob
from trainables.base_models import BaseSource
from trainables.engines.contract import EngineSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOrder:
    """Which engine to bring up; nothing here is part of a key."""

    choice: Literal["auto", "vllm", "transformers"]
    base: str
    """Key of the base."""
    method: Literal["full", "lora"]
    max_model_len: int
    max_rank: int
    settings: EngineSettings


@ray.remote(num_cpus=0, max_restarts=-1)
class Pulse:
    """How far each long call is: step key -> (done, total). When its machine is lost it starts anew on another."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[float, float]] = {}

    def note(self, key: str, done: float, total: float) -> None:
        if done < total:
            self._calls[key] = (done, total)
        else:
            self._calls.pop(key, None)

    def read(self) -> dict[str, tuple[float, float]]:
        return dict(self._calls)


class Beat:
    """Tells a pulse how far a call is, at most twice per second."""

    def __init__(self, pulse: Any, key: str) -> None:
        self._pulse, self._key, self._last = pulse, key, 0.0

    def __call__(self, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._last >= 0.5 or done >= total:
            self._last = now
            self._pulse.note.remote(self._key, done, total)


@ray.remote
def build_corpus(place: Place, step: Step, corpus: Corpus, language: str) -> None:
    jobs.make_corpus(place, step, corpus, language)


@ray.remote
def build_base(place: Place, step: Step, source: BaseSource, pulse: Any, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    beat = Beat(pulse, step.key)
    jobs.make_base(place, step, source, lambda fraction, sentence: beat(fraction, 1.0))


@ray.remote
class EngineActor:
    """One resident engine. ``start`` must be called, and answered, before anything else is."""

    def __init__(self, pulse: Any) -> None:
        self._engine: Any = None
        self._pulse = pulse

    def start(self, place: Place, order: EngineOrder) -> str:
        """Bring the engine up; returns the sentence that says which one and why."""
        from trainables.generate import make_engine

        store = place.open()
        base = store.use(jobs.entry_of(store, "base", order.base))
        self._engine, sentence = make_engine(
            order.choice, base, order.method, order.max_model_len, order.max_rank, order.settings
        )
        return sentence

    def generate(self, place: Place, job: GenerationJob) -> None:
        jobs.generate(place, job, self._engine, Beat(self._pulse, job.step.key))

    def select(self, place: Place, job: SelectionJob) -> None:
        jobs.select(place, job, self._engine, Beat(self._pulse, job.step.key))


@ray.remote
class JudgeActor:
    """One resident judge. A paid one is made with two threads, so that it can be told to end."""

    def __init__(self, pulse: Any) -> None:
        self._judge: Any = None
        self._pulse = pulse
        self._ending = threading.Event()

    def start(
        self, place: Place, spec: Any, base: str | None, engine: Any, settings: EngineSettings, secret: Any
    ) -> str:
        """Bring the judge up; returns its label.

        Args:
            base: the step key of a local judge's model.
            settings: of its engine.
            secret: a remote judge's API key, as the session's own environment has it.
        """
        from trainables.judges import open_judge

        store = place.open()
        folder = store.use(jobs.entry_of(store, "base", base)) if base else None
        self._judge = open_judge(spec, folder, engine, settings if folder else None, secret)
        return spec.label

    def compare(self, place: Place, job: ComparisonJob) -> None:
        judging.compare(place, job, self._judge, Beat(self._pulse, job.step.key), self._ending.is_set)

    def end(self) -> None:
        """Ask nothing more; what was asked is waited for, and kept."""
        self._ending.set()
