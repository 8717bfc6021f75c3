"""Everything but fine-tuning: inputs are built, checkpoints selected, responses drawn and compared as soon as they can.

One loop, no stages: whenever an actor is free, the board is asked for a step it can do. A model's selection and
response sets are preferred in the order that swaps weights least. An actor that dies, or does not become ready in
time, is replaced, and its step given back to the board.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError, WorkerCrashedError

from orchestrator.identity import Step
from orchestrator.plan import Model, Plan
from orchestrator.run.actors import EngineActor, EngineOrder, JudgeActor, Pulse, build_base, build_corpus
from orchestrator.run.board import TRIES, Board, State
from orchestrator.run.jobs import GenerationJob, Place, SelectionJob, WeightsJob
from orchestrator.run.judging import ComparisonJob, account_of
from orchestrator.run.translators import Translators, assemble_corpus
from orchestrator.store import Corrupt
from trainables.engines.contract import EngineSettings, WrongWeights
from trainables.errors import BudgetReached, EnvironmentProblem, StepFailed, Unreachable, UserError
from trainables.judges import api_key

READY_WITHIN = 600.0
"""Seconds an engine or judge has to come up (a 7B model from a slow disk, say)."""
STARTS = 3
"""How often an actor is started before the run gives its steps up."""


@dataclasses.dataclass
class _Worker:
    """One actor, and the call it is in."""

    kinds: tuple[str, ...]
    actor: Any = None
    ready: Any = None
    started: float = 0.0
    starts: int = 0
    call: Any = None
    step: Step | None = None
    loaded: str = ""
    """Key of the model whose weights were used last."""


class Evaluation:
    """Feeds engines, judges and input tasks from the board; `pump` is called again and again by the session."""

    def __init__(
        self, plan: Plan, board: Board, place: Place, say: Callable[[str], None], threads: int, gpus: float
    ) -> None:
        self.plan, self.board, self.place, self.say = plan, board, place, say
        self.threads, self.gpus = threads, gpus
        self.pulse = Pulse.remote()  # type: ignore[attr-defined]
        self._engine = _Worker(("selection", "generation_set"))
        self._judge = _Worker(("comparison",))
        self._tasks: dict[Any, Step] = {}
        self._corpus = ray.put(plan.corpus)
        self.translators = Translators(plan, board, place, self.pulse, threads)
        self._outages = 0
        self.over_budget: str | None = None
        """Set when paid work has cost what it may: the run ends with this sentence."""

    def pump(self, timeout: float) -> None:
        """Start what can start, then wait up to ``timeout`` seconds for something to end."""
        self._start_inputs()
        for worker in (self._engine, self._judge):
            self._tend(worker)
        waiting = [*self._tasks, *(w.call for w in (self._engine, self._judge) if w.call is not None)]
        waiting += [w.ready for w in (self._engine, self._judge) if w.ready is not None and w.call is None]
        if not waiting:
            time.sleep(timeout)
            return
        ended, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        for reference in ended:
            if reference in self._tasks:
                step = self._tasks.pop(reference)
                if step.kind == "translation":
                    self.translators.ended()
                self._end(step, reference)
            for worker in (self._engine, self._judge):
                if reference == worker.call and worker.step is not None:
                    step, worker.call, worker.step = worker.step, None, None
                    if not self._end(step, reference):
                        self._drop(worker)

    def progress(self) -> dict[str, tuple[float, float]]:
        """Step key -> (done, total) of the calls in progress; empty when nobody answers in time."""
        try:
            return ray.get(self.pulse.read.remote(), timeout=1)
        except (ray.exceptions.RayError, TimeoutError):
            return {}

    def stop(self) -> None:
        """End the actors."""
        for worker in (self._engine, self._judge):
            self._drop(worker)
        self.translators.stop()

    # Inputs

    def _start_inputs(self) -> None:
        while step := self.board.claim("base"):
            bases = build_base.options(num_cpus=1, num_gpus=0)
            source = self.plan.base_sources[step.key]
            threads = 1 if source.kind == "tiny" else self.threads
            self._tasks[bases.remote(self.place, step, source, self.pulse, threads)] = step
        self._tasks |= self.translators.start()
        languages = {step.key: code for code, step in self.plan.corpus_steps.imports.items()}
        while step := self.board.claim("corpus"):
            if step.key not in languages:
                self._tasks[assemble_corpus.options(num_cpus=0.5).remote(self.place, step)] = step
                continue
            corpora = build_corpus.options(num_cpus=0.5)
            corpus: Any = self._corpus
            self._tasks[corpora.remote(self.place, step, corpus, languages[step.key])] = step

    # Actors

    def _tend(self, worker: _Worker) -> None:
        if worker.call is not None:
            return
        if not self.board.unfinished(*worker.kinds):
            return
        if worker.actor is None:
            if self._may_start(worker):
                self._start(worker)
            return
        if worker.ready is not None and not self._is_ready(worker):
            return
        step = self._claim(worker)
        if step is None:
            return
        worker.step = step
        if step.kind == "comparison":
            worker.call = worker.actor.compare.remote(self.place, self._comparison_job(step))
        elif step.kind == "selection":
            worker.call = worker.actor.select.remote(self.place, self._selection_job(step))
        else:
            worker.call = worker.actor.generate.remote(self.place, self._generation_job(step))

    def _may_start(self, worker: _Worker) -> bool:
        if worker is self._engine:
            return self.board.state(self.plan.base) is State.DONE and not self.translators.need_the_machine
        judge_base = self.plan.judge_base
        if judge_base is not None and self.board.state(judge_base) is not State.DONE:
            return False
        return self.board.counts("generation_set")[State.DONE] > 1

    def _start(self, worker: _Worker) -> None:
        if worker.starts >= STARTS:
            while step := self._claim(worker):
                self.board.lost(step, f"its worker did not start in {STARTS} tries")
            return
        worker.starts += 1
        worker.started = time.monotonic()
        if worker is self._engine:
            actor = EngineActor.options(num_cpus=self._cpus(), num_gpus=self.gpus)  # type: ignore[attr-defined]
            worker.actor = actor.remote(self.pulse)
            worker.ready = worker.actor.start.remote(self.place, self._engine_order())
        else:
            judge = self.plan.sweep.judge
            gpus = self.gpus if judge.kind == "local" else 0
            actor = JudgeActor.options(num_cpus=self._cpus() / 2, num_gpus=gpus)  # type: ignore[attr-defined]
            worker.actor = actor.remote(self.pulse)
            base = self.plan.judge_base.key if self.plan.judge_base else None
            engine = self.plan.sweep.runtime.engine
            worker.ready = worker.actor.start.remote(self.place, judge, base, engine, self.threads, api_key(judge))

    def _is_ready(self, worker: _Worker) -> bool:
        done, _ = ray.wait([worker.ready], timeout=0)
        what = "engine" if worker is self._engine else "judge"
        if not done:
            if time.monotonic() - worker.started > READY_WITHIN:
                self.say(f"The {what} was not ready after {READY_WITHIN:.0f} s; starting it again.")
                self._drop(worker)
            return False
        try:
            sentence = ray.get(worker.ready)
        except (ray.exceptions.RayError, EnvironmentProblem, UserError) as problem:
            self.say(f"The {what} did not start: {_last_line(problem)}")
            self._drop(worker)
            return False
        worker.ready = None
        self.say(f"{what.capitalize()} ready in {time.monotonic() - worker.started:.0f} s: {sentence}")
        return True

    def _drop(self, worker: _Worker) -> None:
        if worker.actor is not None:
            ray.kill(worker.actor)
        worker.actor = worker.ready = worker.call = worker.step = None
        worker.loaded = ""

    def _claim(self, worker: _Worker) -> Step | None:
        if worker is self._judge:
            return self.board.claim("comparison")
        owner = self.plan.model_of_step
        loaded = worker.loaded

        def swaps(step: Step) -> int:
            return 0 if owner[step.key].key == loaded else 1

        step = self.board.claim("selection") or self.board.claim("generation_set", prefer=swaps)
        if step is not None:
            worker.loaded = owner[step.key].key
        return step

    def _end(self, step: Step, reference: Any) -> bool:
        """Take a call's outcome to the board; False when the actor behind it is gone."""
        try:
            ray.get(reference)
        except (RayActorError, WorkerCrashedError, ray.exceptions.OutOfMemoryError) as problem:
            self.say(f"{step.kind} {step.name}: its worker died ({_last_line(problem)}); trying again.")
            self.board.lost(step, _last_line(problem))
            return False
        except RayTaskError as problem:
            cause = problem.cause
            if isinstance(cause, WrongWeights):
                self.say(f"{step.kind} {step.name}: {cause}; starting a fresh engine.")
                self.board.lost(step, str(cause))
                return False
            if isinstance(cause, Corrupt):
                gone = self.board.reopen()
                self.say(f"{cause}: quarantined; making it again ({len(gone)} steps).")
                self.board.lost(step, str(cause))
            elif isinstance(cause, BudgetReached):
                self.over_budget = str(cause)
                self.board.stopping.set()
                self.board.lost(step, str(cause))
            elif isinstance(cause, Unreachable):
                self._outage(step, str(cause))
            elif isinstance(cause, EnvironmentProblem):
                self.board.give_up(step, str(cause))
            elif isinstance(cause, StepFailed | UserError):
                self.board.failed(step, str(cause))
            else:
                self.say(f"{step.kind} {step.name}: {_last_line(problem)}; trying again.")
                self.board.lost(step, str(problem))
        else:
            if step.kind in ("comparison", "translation"):
                self._outages = 0
            self.board.done(step)
        return True

    def _outage(self, step: Step, error: str) -> None:
        """A service is away: not the step's fault, and no other step that asks it would fare better."""
        self._outages += 1
        if self._outages < TRIES:
            self.say(f"{step.kind} {step.name}: {error}; trying again.")
            self.board.lost(step, error)
        else:
            self.board.give_up(step, error)

    # What the actors are told

    def _cpus(self) -> float:
        return max(0.5, self.threads / 2)

    def _engine_order(self) -> EngineOrder:
        sweep = self.plan.sweep
        longest = max(sweep.sampling.max_new_tokens, sweep.recipe.max_target_tokens)
        return EngineOrder(
            choice=sweep.runtime.engine,
            base=self.plan.base.key,
            method=sweep.recipe.method,
            max_model_len=sweep.recipe.max_input_tokens + longest + 8,
            max_rank=sweep.recipe.rank,
            settings=EngineSettings(threads=self.threads),
        )

    def _weights_job(self, model: Model) -> WeightsJob:
        tuned = model.fine_tune is not None
        return WeightsJob(
            name=model.name,
            base=self.plan.base.key,
            method=self.plan.sweep.recipe.method,
            fine_tune=model.fine_tune.key if model.fine_tune else None,
            selection=model.weights.key if tuned else None,
        )

    def _selection_job(self, step: Step) -> SelectionJob:
        model = self.plan.model_of_step[step.key]
        assert model.mixture is not None
        dev = tuple((key, code) for key, code in model.mixture.assignment.items() if key in self.plan.dev)
        recipe = self.plan.sweep.recipe
        return SelectionJob(
            step=step,
            weights=self._weights_job(model),
            dev=dev,
            corpora={code: self.plan.corpora[code].key for code in model.mixture.languages},
            template=self.plan.template,
            max_input_tokens=recipe.max_input_tokens,
            max_target_tokens=recipe.max_target_tokens,
        )

    def _generation_job(self, step: Step) -> GenerationJob:
        model = self.plan.model_of_step[step.key]
        language = step.name.rpartition(".")[2]
        sweep = self.plan.sweep
        return GenerationJob(
            step=step,
            weights=self._weights_job(model),
            model_key=model.key,
            corpus=self.plan.corpora[language].key,
            language=language,
            sampling=sweep.sampling,
            seed=sweep.seeds.sampling,
            template=self.plan.template,
            max_input_tokens=sweep.recipe.max_input_tokens,
        )

    def _comparison_job(self, step: Step) -> ComparisonJob:
        first, second = step.needs[:2]
        return ComparisonJob(
            step=step,
            baseline=first.key,
            model=second.key,
            corpus=second.needs[1].key,
            judge=self.plan.sweep.judge.label,
            account=account_of(self.plan, self.board.store),
        )


def _last_line(problem: BaseException) -> str:
    lines = str(problem).strip().splitlines() or [type(problem).__name__]
    return lines[-1]
