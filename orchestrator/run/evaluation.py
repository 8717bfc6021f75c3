"""Everything but fine-tuning: inputs are built, checkpoints selected, responses drawn and compared as soon as they can.

One loop, no stages: whenever an engine or a judge is free, the board is asked for a step it can do. A model's selection
and response sets are preferred in the order that swaps weights least. A worker that dies is ended, and its step given
back to the board; the crew brings up another.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from orchestrator.identity import Step
from orchestrator.plan import Model, Plan
from orchestrator.run.actors import EngineActor, EngineOrder, JudgeActor, Pulse, build_base, build_corpus
from orchestrator.run.agenda import Order
from orchestrator.run.board import TRIES, Board
from orchestrator.run.crew import Crew, Member, Post, gpus_on, last_line, on_node
from orchestrator.run.jobs import GenerationJob, Place, SelectionJob, WeightsJob
from orchestrator.run.judging import ComparisonJob, account_of
from orchestrator.run.placement import Demand, Role, Seat, Size
from orchestrator.run.sizing import Sizing
from orchestrator.run.translators import Translators, assemble_corpus
from orchestrator.store import Corrupt
from trainables.engines.contract import EngineSettings, WrongWeights
from trainables.errors import BudgetReached, EnvironmentProblem, StepFailed, Unreachable, UserError
from trainables.judges import api_key

FINISHES_WITHIN = 120.0
"""Seconds that paid requests under way have to be answered when no more may be sent."""


class Evaluation:
    """Feeds engines, judges and input tasks from the board; `pump` is called again and again by the session."""

    def __init__(
        self, plan: Plan, board: Board, place: Place, crew: Crew, say: Callable[[str], None], threads: int
    ) -> None:
        self.plan, self.board, self.place, self.crew, self.say = plan, board, place, crew, say
        self.threads = threads
        self.order = Order.of(plan)
        self.pulse = Pulse.remote()  # type: ignore[attr-defined]
        self._tasks: dict[Any, Step] = {}
        self._corpus = ray.put(plan.corpus)
        self.translators = Translators(plan, board, place, self.pulse, threads)
        self._outages = 0
        # A judge elsewhere is waited for as its own settings say.
        self._local = (Role.ENGINE, *([Role.JUDGE] if plan.sweep.judge.kind != "remote" else []))
        self.over_budget: str | None = None
        """Set when paid work has cost what it may: the run ends with this sentence."""

    def posts(self, sizing: Sizing) -> dict[Role, Post]:
        """How the crew fills the roles that are fed from here."""

        def post(role: Role, size: Callable[[], Size | None], hire: Callable[[str, Seat], tuple[Any, Any]]) -> Post:
            return Post(
                size=size,
                hire=hire,
                demand=lambda: self._demand(role),
                give_up=lambda why: self._give_up(role, why),
                failed=self._did_not_start,
            )

        return {
            Role.ENGINE: post(Role.ENGINE, sizing.engine, self._hire_engine),
            Role.JUDGE: post(Role.JUDGE, sizing.judge, self._hire_judge),
        }

    def pump(self, timeout: float) -> None:
        """Start what can start, then wait up to ``timeout`` seconds for something to end."""
        self._start_inputs()
        self.crew.settle(busy=bool(self._tasks))
        for role in (Role.ENGINE, Role.JUDGE):
            while (worker := self.crew.take(role)) and self._feed(worker):
                pass
        members = self.crew.members(Role.ENGINE, Role.JUDGE)
        calls = {member.call: member for member in members if member.call is not None}
        waiting = [*self._tasks, *calls, *(member.ready for member in members if member.ready is not None)]
        if not waiting:
            time.sleep(timeout)
            return
        ended, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        if not ended:
            ended, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        for reference in ended:
            if reference in self._tasks:
                step = self._tasks.pop(reference)
                if step.kind == "translation":
                    self.translators.ended()
                self._end(step, reference)
            elif reference in calls:
                member = calls[reference]
                sound = self._end(member.step, reference, member)
                self.crew.give_back(member, sound)

    def listen(self) -> dict[str, tuple[float, float]]:
        """Step key -> (done, total) of the calls in progress; empty when nobody answers in time.

        An engine or a judge that has been silent for too long is ended, and its step tried again with another.
        """
        try:
            said = ray.get(self.pulse.read.remote(), timeout=1)
        except (ray.exceptions.RayError, TimeoutError):
            return {}
        now, silence = time.monotonic(), self.plan.sweep.runtime.silence
        for member in self.crew.members(*self._local):
            if member.step is None or member.call is None:
                continue
            step = member.step
            if member.said != (step.key, said.get(step.key)):
                member.said, member.heard = (step.key, said.get(step.key)), now
            elif now - member.heard > silence:
                self.say(f"{step.kind} {step.name}: no word from its {member.role} for {silence:.0f} s; trying again.")
                self.board.lost(step, f"no word from its {member.role} for {silence:.0f} s (runtime.silence)")
                self.crew.give_back(member, sound=False)
        return said

    def finish_paid(self) -> None:
        """Have nothing more sent, and wait for what was: that is paid for."""
        judges = [judge for judge in self.crew.members(Role.JUDGE) if judge.call is not None]
        for judge in judges if self.plan.sweep.judge.paid else []:
            judge.actor.end.remote()
        deadline = time.monotonic() + FINISHES_WITHIN
        while self._paid_for() and time.monotonic() < deadline:
            self.pump(0.5)

    def _paid_for(self) -> bool:
        """Whether requests are under way that cost something."""
        translated = any(step.kind == "translation" for step in self._tasks.values())
        judged = any(judge.call is not None for judge in self.crew.members(Role.JUDGE))
        return translated or (judged and self.plan.sweep.judge.paid)

    def stop(self) -> None:
        """End who translates; engines and judges are the crew's."""
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

    # Engines and judges

    def _demand(self, role: Role) -> Demand:
        demand = self.board.demand(role, self.order.model_of)
        if not self.crew.uses_gpus and demand.left:  # nothing is held back from anyone: it comes up early
            demand = dataclasses.replace(demand, soon=max(1, demand.soon))
        return demand

    def _hire_engine(self, name: str, seat: Seat) -> tuple[Any, Any]:
        options = {"num_cpus": self._cpus(), **on_node(seat)}
        actor: Any = EngineActor.options(**options).remote(self.pulse)  # type: ignore[attr-defined]
        return actor, actor.start.remote(self.place, self._engine_order(gpus_on(seat)))

    def _hire_judge(self, name: str, seat: Seat) -> tuple[Any, Any]:
        judge = self.plan.sweep.judge
        options = {"num_cpus": self._cpus() / 2, "max_concurrency": 2 if judge.paid else 1, **on_node(seat)}
        actor: Any = JudgeActor.options(**options).remote(self.pulse)  # type: ignore[attr-defined]
        base = self.plan.judge_base.key if self.plan.judge_base else None
        settings = EngineSettings(threads=self.threads, max_sequences=32, gpus=gpus_on(seat))
        engine = self.plan.sweep.runtime.engine
        return actor, actor.start.remote(self.place, judge, base, engine, settings, api_key(judge))

    def _feed(self, worker: Member) -> bool:
        """Give a worker its next step; False when there is none."""
        step = self.order.next(self.board.claim, worker.role, worker.loaded)
        if step is None:
            self.crew.give_back(worker)
            return False
        worker.step, worker.loaded = step, self.order.model_of(step)
        if step.kind == "comparison":
            worker.call = worker.actor.compare.remote(self.place, self._comparison_job(step))
        elif step.kind == "selection":
            worker.call = worker.actor.select.remote(self.place, self._selection_job(step))
        else:
            worker.call = worker.actor.generate.remote(self.place, self._generation_job(step))
        return True

    def _give_up(self, role: Role, why: str) -> None:
        while step := self.order.next(self.board.claim, role):
            self.board.lost(step, why)

    def _did_not_start(self, problem: BaseException) -> None:
        """Its model may have been spoiled: that is made again before another worker starts."""
        if isinstance(problem, RayTaskError) and isinstance(problem.cause, Corrupt):
            self.say(self.board.quarantined(problem.cause))

    def _end(self, step: Step, reference: Any, worker: Member | None = None) -> bool:
        """Take a call's outcome to the board; False when the actor behind it is gone."""
        try:
            ray.get(reference)
        except RayTaskError as problem:
            cause = problem.cause
            if isinstance(cause, WrongWeights):
                self.say(f"{step.kind} {step.name}: {cause}; starting a fresh engine.")
                self.board.lost(step, str(cause))
                return False
            if isinstance(cause, Corrupt):
                self.say(self.board.quarantined(cause))
                self.board.lost(step, str(cause))
            elif isinstance(cause, BudgetReached):
                self.over_budget = self.over_budget or str(cause)
                self.board.stopping.set()
                self.board.lost(step, str(cause))
            elif isinstance(cause, Unreachable):
                self._outage(step, str(cause))
            elif isinstance(cause, EnvironmentProblem):
                self.board.give_up(step, str(cause))
            elif isinstance(cause, StepFailed | UserError):
                self.board.failed(step, str(cause))
            else:
                # It may be the worker that is broken, and the next step would fare no better with it.
                self.say(f"{step.kind} {step.name}: {last_line(problem)}; trying again with a fresh worker.")
                self.board.lost(step, str(problem))
                return False
        except RayError as problem:
            self.say(f"{step.kind} {step.name}: its worker died ({last_line(problem)}); trying again.")
            blameless = worker is not None and self.crew.on_lost_node(worker)
            self.board.lost(step, last_line(problem), blameless)
            return False
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
        """Of an engine; beside a GPU it is that which counts, and must not wait for a core."""
        return 0 if self.crew.uses_gpus else max(0.5, self.threads / 2)

    def _engine_order(self, gpus: int) -> EngineOrder:
        sweep = self.plan.sweep
        longest = max(sweep.sampling.max_new_tokens, sweep.recipe.max_target_tokens)
        return EngineOrder(
            choice=sweep.runtime.engine,
            base=self.plan.base.key,
            method=sweep.recipe.method,
            max_model_len=sweep.recipe.max_input_tokens + longest + 8,
            max_rank=sweep.recipe.rank,
            settings=EngineSettings(threads=self.threads, gpus=gpus),
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
