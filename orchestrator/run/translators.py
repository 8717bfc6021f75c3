"""Who translates in a run: a task for each language, a few actors that ask, and one meter that all of them heed.

A language's task knows which strings are missing and hands them out in batches; an asker has an open translator, and
puts each answer into the ledger the moment it is there. The meter keeps the pace and the budget over all languages.
Only strings, keys and specs travel through Ray; answers travel through the store.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.identity import Step
from orchestrator.languages import ENGLISH, language
from orchestrator.ledger import Ledger
from orchestrator.plan import Plan
from orchestrator.run import translating
from orchestrator.run.actors import Beat
from orchestrator.run.board import Board
from orchestrator.run.jobs import Place, entry_of, unwritable
from orchestrator.run.judging import Account, account_of
from orchestrator.run.translating import TranslationJob, record_of
from orchestrator.translations import cost_so_far, ledger_of
from trainables import hub_base
from trainables.base_models import BaseSource
from trainables.translators import Answer, LocalTranslator, Target, TranslatorSpec, key_of_service, open_translator
from trainables.translators import pace_of as pace_of_service
from trainables.translators.courses import digest
from trainables.translators.engine import packed

BATCH_STRINGS, BATCH_CHARACTERS = 256, 40_000
"""What an asker is given at once."""
AT_AN_ASKER = 2
"""Batches of one language that wait at, or are with, each asker."""
LANGUAGES = 2
"""Languages under way at once; each is a process with the texts and, at its end, a language detector."""
ASKERS = 4
"""Askers of a service, if it may have so many requests under way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskerOrder:
    """What an asker opens."""

    place: Place
    translator: TranslatorSpec
    secret: Any
    parallel: int
    base: str | None
    engine: Literal["auto", "vllm", "transformers"]
    threads: int


@ray.remote(num_cpus=0)
class Meter:
    """The pace of a service and what it may still cost, for everyone who asks it."""

    def __init__(self, translator: TranslatorSpec, account: Account | None, price: float) -> None:
        self._pace = None if isinstance(translator, LocalTranslator) else pace_of_service(translator)
        self._account, self._price, self._paid = account, price, 0

    def turn(self, characters: int) -> float:
        """In how many seconds a request may be sent.

        Raises:
            BudgetReached: it may not be sent at all.
        """
        if self._account:
            self._account.check(self._paid / 1e6 * self._price)
        return self._pace.wait(characters) if self._pace else 0.0

    def paid(self, characters: int) -> None:
        """A request was answered."""
        self._paid += characters


@ray.remote(max_restarts=-1)
class Asker:
    """One open translator; it is opened at the first batch.

    The meter comes with every batch: Ray warns of actors that restart and were made with a handle.
    """

    def __init__(self, order: AskerOrder) -> None:
        self._order = order
        self._meter: Any = None
        self._engine: Any = None
        self._ledgers: dict[str, Ledger] = {}

    def ask(self, job: TranslationJob, strings: list[str], meter: Any) -> dict[str, str]:
        """Put the answers to distinct strings into the ledger; returns, by digest, why some will have none."""
        self._meter = meter
        store = self._order.place.open()
        ledger = self._ledgers.setdefault(job.target.code, ledger_of(store, job.translator, job.target.code))
        refused: dict[str, str] = {}

        def keep(answers: Mapping[str, Answer]) -> None:
            for string, answer in answers.items():
                if answer.refused is not None:
                    refused[digest(string)] = answer.refused
            given = {digest(string): record_of(one) for string, one in answers.items() if one.refused is None}
            if given:
                with unwritable(store):
                    ledger.extend(given)
            self._meter.paid.remote(sum(one["characters"] for one in given.values()))

        if self._engine is None:
            self._engine = self._open()
        self._engine.translate(strings, job.target, keep)
        return refused

    def _open(self) -> Any:
        order = self._order

        async def turn(characters: int) -> float:
            try:
                return float(await self._meter.turn.remote(characters))
            except RayTaskError as problem:
                raise problem.cause from None

        return open_translator(
            order.translator,
            key=order.secret,
            turn=turn,
            parallel=order.parallel,
            folder=self._folder(),
            engine=order.engine,
            threads=order.threads,
        )

    def _folder(self) -> Path | None:
        translator, store = self._order.translator, self._order.place.open()
        if not isinstance(translator, LocalTranslator):
            return None
        if self._order.base is not None:
            return store.use(entry_of(store, "base", self._order.base))
        source: BaseSource = translator.source
        if source.kind == "folder":
            return Path(source.where)
        commit = hub_base.commit_of(source.where, source.revision)
        return hub_base.fetch(source.where, commit, key="corpus.translator.model")


@ray.remote(num_cpus=0)
def translate_language(place: Place, job: TranslationJob, askers: list[Any], meter: Any, pulse: Any) -> None:
    """See :func:`orchestrator.run.translating.translate`; the missing strings are spread over the askers."""
    beat = Beat(pulse, job.step.key)

    def ask(strings: list[str]) -> dict[str, str]:
        batches = deque(packed(strings, BATCH_STRINGS, BATCH_CHARACTERS))
        free = askers * AT_AN_ASKER
        under_way: dict[Any, tuple[Any, int]] = {}
        refused: dict[str, str] = {}
        problem: BaseException | None = None
        done = 0
        while under_way or (batches and problem is None):
            while batches and free and problem is None:
                asker, batch = free.pop(), batches.popleft()
                under_way[asker.ask.remote(job, batch, meter)] = asker, len(batch)
            (ended,), _ = ray.wait(list(under_way), num_returns=1)
            asker, count = under_way.pop(ended)
            free.append(asker)
            try:
                refused |= ray.get(ended)
            except RayError as found:
                problem = problem or (found.cause if isinstance(found, RayTaskError) else found)
            done += count
            beat(done, len(strings))
        if problem is not None:
            raise problem  # when what was under way has been kept
        return refused

    translating.translate(place, job, ask)


@ray.remote
def assemble_corpus(place: Place, step: Step) -> None:
    translating.assemble(place, step)


class Translators:
    """Hands translations to tasks, never more than a few at once, and brings up and takes down who asks."""

    def __init__(self, plan: Plan, board: Board, place: Place, pulse: Any, threads: int) -> None:
        self._plan, self._board, self._place, self._pulse, self._threads = plan, board, place, pulse, threads
        self._languages = {step.key: code for code, step in plan.corpus_steps.translations.items()}
        self._askers: list[Any] = []
        self._meter: Any = None
        self._under_way = 0

    @property
    def need_the_machine(self) -> bool:
        """Whether a model of one's own is still to translate, so that no other should be loaded beside it."""
        return isinstance(self._plan.translator, LocalTranslator) and self._board.unfinished("translation")

    def start(self) -> dict[Any, Step]:
        """Start what can start; returns task -> step, whose end is to be told with :meth:`ended`."""
        started: dict[Any, Step] = {}
        while self._under_way < LANGUAGES and (step := self._board.claim("translation")):
            if not self._askers:
                self._bring_up()
            task: Any = translate_language
            self._askers.append(self._askers.pop(0))  # a language of few texts is one batch, for the last of them
            reference = task.remote(self._place, self._job(step), self._askers, self._meter, self._pulse)
            started[reference] = step
            self._under_way += 1
        if self._askers and not self._under_way and not self._board.unfinished("translation"):
            self.stop()
        return started

    def ended(self) -> None:
        """A task that was started has ended."""
        self._under_way -= 1

    def stop(self) -> None:
        """End everyone who asks."""
        for actor in (*self._askers, *([self._meter] if self._meter else [])):
            ray.kill(actor)
        self._askers, self._meter = [], None

    def _bring_up(self) -> None:
        plan, translator = self._plan, self._plan.translator
        assert translator is not None
        price = plan.sweep.runtime.prices.get("million_characters")
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        meter: Any = Meter.options(scheduling_strategy=here)  # type: ignore[attr-defined]
        self._meter = meter.remote(translator, _account(plan, self._board), price.amount if price else 0.0)
        local = isinstance(translator, LocalTranslator)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        parallel = 1 if isinstance(translator, LocalTranslator) else translator.parallel
        many = max(1, gpus) if local else min(ASKERS, parallel)
        order = AskerOrder(
            place=self._place,
            translator=translator,
            secret=key_of_service(translator),
            parallel=max(1, parallel // many),
            base=plan.translator_base.key if plan.translator_base else None,
            engine=plan.sweep.runtime.engine,
            threads=2 * self._threads,
        )
        asker: Any = Asker
        placed = asker.options(num_cpus=1 if local else 0, num_gpus=1 if local and gpus else 0)
        self._askers = [placed.remote(order) for _ in range(many)]

    def _job(self, step: Step) -> TranslationJob:
        code = self._languages[step.key]
        plan = self._plan
        price = plan.sweep.runtime.prices.get("million_characters")
        assert plan.translator is not None
        return TranslationJob(
            step=step,
            english=plan.corpus_steps.imports[ENGLISH].key,
            translator=plan.translator,
            target=Target(code, language(code).name),
            price=price.amount if price and plan.translator.paid else None,
        )


def _account(plan: Plan, board: Board) -> Account | None:
    """What may be spent, and was before; None where nothing is paid or there is no limit."""
    limit = plan.sweep.runtime.max_cost
    if limit is None or plan.translator is None or not plan.translator.paid:
        return None
    judged = account_of(plan, board.store)
    spent = judged.spent if judged else cost_so_far(plan, board.store)
    return Account(prompt=None, completion=None, spent=spent, limit=limit)
