"""`pinch run`: plan, ask the store what is missing, and do that. It is also resume; there is no other session state.
`pinch translate` is the same with the steps that translations take, and no others.

The session owns the heartbeat, the Ray connection, the tuner's thread and the evaluation loop, and takes them down
in order: at the end, on Ctrl-C, or when something breaks.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal

from rich.console import Console

from orchestrator import outline
from orchestrator.exit_status import ExitStatus
from orchestrator.identity import Step
from orchestrator.keeping import Keeper
from orchestrator.plan import Plan
from orchestrator.review import explained, in_a_sentence
from orchestrator.run import judge_check
from orchestrator.run.board import Board, State
from orchestrator.run.canary import chain, sentence
from orchestrator.run.judging import account_of
from orchestrator.run.progress import Progress
from orchestrator.run.records import Recorder
from orchestrator.run.translating import flags_sentence
from orchestrator.saying import say
from orchestrator.scores.score_table import ScoreTable
from orchestrator.store import Corrupt, Store
from orchestrator.sweep import LoadedSweep
from orchestrator.translations import check_price
from trainables.errors import BudgetReached, EnvironmentProblem, UserError


def run(
    loaded: LoadedSweep,
    location: str,
    console: Console,
    address: str | None = None,
    retry_failed: bool = False,
    command: Literal["run", "translate"] = "run",
    session: str | None = None,
    expect: str | None = None,
) -> int:
    """Do what is missing of a sweep; returns the exit status (0 done, 1 some steps failed, 130 interrupted).

    Args:
        location: the store.
        address: a Ray cluster to run on; None starts Ray on this machine for the duration.
        retry_failed: try steps again whose failure is on record.
        command: ``translate`` does the translations alone, with what they need and what is put together from them.
        session: the id to work under, where somebody waits for its heartbeat; default: a new one.
        expect: the digest of the plan that was asked for, where it was made on another machine.

    Raises:
        UserError: bad input; nothing has been written then.
        EnvironmentProblem: no room on the disk, no Ray, no engine, no data, no judge.
    """
    plan = Plan(loaded)
    if expect is not None and plan.digest != expect:
        raise UserError(
            f"{loaded.source}: is another plan here ({plan.digest}) than where it was submitted ({expect}): the files "
            "it names differ, or the two machines' versions of Pinch; make them equal and submit again."
        )
    store = Store(location, session)
    account_of(plan, store)
    check_price(plan)
    steps = plan.steps if command == "run" else _translating(plan)
    judge = judge_check.remote_judge(plan, store, retry_failed) if command == "run" else None
    judge_away = judge_check.greet(plan, judge) if judge else None
    missing = [code for code, step in plan.corpus_steps.imports.items() if store.find(step.kind, step.key) is None]
    if missing:
        plan.corpus.prepare(missing)
    store.create()
    flags = f" --store {location}" if "PINCH_STORE" not in os.environ else ""
    again = f"pinch {command} {loaded.typed()}{flags}"
    if retry_failed:
        for step in steps:
            store.forget_failure(step.key)
    progress = Progress(console, loaded.sweep.name)
    keeper = Keeper(plan, store, progress.say)
    keeper.remember()
    board = Board(steps, store, progress.change)
    recorder = Recorder(plan, store, board) if command == "run" else None
    outline.keep(plan, store)
    if recorder and not board.unfinished():
        try:
            recorder.all()
        except Corrupt as spoiled:
            progress.say(board.quarantined(spoiled))
    if not board.unfinished():
        if recorder:
            recorder.close("FINISHED")
            keeper.sweep()
        _summary(plan, store, board, console, 0.0)
        return ExitStatus.SOME_FAILED if board.gaps() else ExitStatus.DONE
    if recorder:
        keeper.check_room()
    store.sessions.start(f"pinch {command} {loaded.sweep.name}")
    started = time.monotonic()
    progress.open(board)
    status, stopped = ExitStatus.DONE, ""
    try:
        with _terminated_like_interrupted():
            if judge and judge_away:
                progress.say(f"{judge_away}; waiting for it.")
                judge_check.wait_for(judge)
            _work(plan, store, board, progress, recorder, keeper, address)
        status = ExitStatus.SOME_FAILED if board.gaps() else ExitStatus.DONE
        if board.stopped:
            stopped = f"Stopped: {board.stopped}. Mend it and go on with: {again} --retry-failed"
    except KeyboardInterrupt:
        status = ExitStatus.INTERRUPTED
    except BudgetReached as problem:
        status = ExitStatus.SOME_FAILED
        higher = f"pinch {command} {loaded.typed(without='runtime.max_cost')}{flags} --set runtime.max_cost=..."
        stopped = f"Stopped: {problem}. What is paid for is kept; go on with: {higher}"
    except OSError as problem:
        raise EnvironmentProblem(
            f"{store.location}: {problem.strerror or problem}. What is published stays; mend it and go on with: {again}"
        ) from problem
    finally:
        board.stopping.set()
        progress.close()
        store.sessions.stop()
    if recorder:
        killed = status == ExitStatus.INTERRUPTED
        recorder.close("KILLED" if killed else "FINISHED", timeout=4.0 if killed else 30.0)
    _summary(plan, store, board, console, time.monotonic() - started)
    if stopped:
        say(console, stopped)
    if status == ExitStatus.INTERRUPTED:
        say(console, f"Interrupted. What is published stays; go on with: {again}")
    return status


def _work(
    plan: Plan,
    store: Store,
    board: Board,
    progress: Progress,
    recorder: Recorder | None,
    keeper: Keeper,
    address: str | None,
) -> None:
    from orchestrator.run import cluster
    from orchestrator.run.agenda import KINDS
    from orchestrator.run.crew import Crew
    from orchestrator.run.evaluation import Evaluation
    from orchestrator.run.gpus import Nodes
    from orchestrator.run.growth import Growth
    from orchestrator.run.jobs import Place
    from orchestrator.run.placement import Role
    from orchestrator.run.sizing import Sizing
    from orchestrator.run.tuning import LaneSettings, Tuning

    with cluster.connected(address) as room:
        shares = cluster.share(room, small=plan.base_source.kind == "tiny")
        progress.say(shares.sentence)
        place = Place(store.location, store.sessions.id)
        settings = LaneSettings(
            place=place,
            base=plan.base.key,
            template=plan.template,
            workers=shares.lane_workers,
            cpus_per_worker=shares.lane_cpus,
            threads=shares.lane_threads,
            silence=plan.sweep.runtime.silence,
            parallel=plan.sweep.runtime.parallel.model_copy(
                update={
                    "threads": shares.lane_threads,
                    "state_every": max(1, plan.sweep.recipe.checkpoint_every // 2),
                }
            ),
        )
        steps = board.steps
        first = chain(board) if _canary_wanted(plan, room.grows) else []
        if first:
            board.hold_back(first)
            progress.say(sentence(first, board))

        def heard(report: dict[str, Any]) -> None:
            step = steps.get(str(report.get("key")))
            if step and "lost" in report:
                progress.say(f"{step.kind} {step.name}: {in_a_sentence(report['lost'])}; trying again.")
            else:
                progress.fine_tune(step, report, plan.sweep.recipe.steps)

        nodes = Nodes() if shares.use_gpus else None
        crew = Crew(nodes, progress.say, growth=Growth() if room.grows else None)
        tuning = Tuning(plan, board, settings, crew, heard)
        evaluation = Evaluation(plan, board, place, crew, progress.say, shares.engine_threads)
        crew.held_back = lambda: evaluation.translators.need_the_machine
        sizing = Sizing(plan, board, nodes, progress.say)
        for role, post in {Role.LANE: tuning.post(sizing.lane), **evaluation.posts(sizing)}.items():
            if board.has(*KINDS[role]):  # translating has no fine-tunes, and no base to know the size of one from
                crew.add(role, post)
        recorded = 0
        try:
            while board.unfinished():
                if not (tuning.started or crew.held_back()) and board.unfinished("fine_tune") and sizing.lane():
                    tuning.start()
                if board.stopped:
                    return
                if board.broken:
                    raise EnvironmentProblem(f"{board.broken}. What is published stays; mend it and run again.")
                tuning.check()
                evaluation.pump(0.5)
                progress.inside(evaluation.listen())
                progress.tick()
                fresh, recorded = board.made[recorded:], len(board.made)
                for step in fresh:
                    try:
                        if recorder:
                            recorder.made(step)
                    except Corrupt as spoiled:
                        progress.say(board.quarantined(spoiled))
                    keeper.after(step)
                if evaluation.over_budget:
                    evaluation.finish_paid()
                    raise BudgetReached(evaluation.over_budget)
        finally:
            board.stopping.set()
            evaluation.stop()
            patience = 0.0 if board.unfinished() else 20.0
            tuning.join(patience)
            crew.stop(patience)


def _canary_wanted(plan: Plan, grows: bool) -> bool:
    """As the sweep says; unless it says, on a cluster of several nodes, or one that ``grows`` to several."""
    import ray

    wanted = plan.sweep.runtime.canary
    return grows or sum(node["Alive"] for node in ray.nodes()) > 1 if wanted == "auto" else wanted


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the session as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summary(plan: Plan, store: Store, board: Board, console: Console, seconds: float) -> None:
    """What was made, the best and worst cells, what is missing, and where to look."""

    made: dict[str, int] = {}
    for step in board.made:
        made[step.kind] = made.get(step.kind, 0) + 1
    what = ", ".join(f"{count} {kind}" for kind, count in made.items())
    what = what or ("this session made nothing" if seconds else "nothing was missing")
    say(console, f"{plan.sweep.name}: {what}" + (f", in {seconds / 60:.1f} min." if seconds else "."))
    if flags := flags_sentence(store, plan.corpus_steps.translations):
        say(console, flags)
    if plan.steps[-1].key in board.steps:
        _say_scores(plan, store, console)
    gaps = board.gaps()
    failed = [(f"{step.kind} {step.name}", error) for step, state, error in gaps if state is State.FAILED]
    blocked = Counter(error for _, state, error in gaps if state is State.BLOCKED)
    for line in explained(failed, blocked, most=8):
        say(console, f"  {line}")
    source = plan.loaded.typed()
    if gaps:
        say(console, f"  pinch status {source} lists them all.")
    if plan.steps[-1].key in board.steps:
        say(console, f"Look: pinch scores {source} | pinch report {source} | pinch ui    (store: {store.location})")


def _say_scores(plan: Plan, store: Store, console: Console) -> None:
    table = ScoreTable(plan, store)
    rows = table.rows()
    scored = [row for row in rows if row["if_score"] is not None]
    say(
        console,
        f"Scores: {len(scored)} of {len(rows)}, by judge {plan.sweep.judge.label}, base {plan.base_source.label}.",
    )
    judged = sorted((row for row in scored if row["n"]), key=lambda row: row["if_score"])
    for word, row in (("Best", judged[-1]), ("Worst", judged[0])) if judged else ():
        say(
            console,
            f"  {word} cell: {row['model']} in {row['eval_language']} against {row['baseline']}: "
            f"{row['if_score']:.1f} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]",
        )


def _translating(plan: Plan) -> list[Step]:
    """The steps that translations take.

    Raises:
        UserError: there are none.
    """
    if not plan.translating:
        raise UserError(
            f"{plan.loaded.source}: nothing is translated: corpus.source is {plan.sweep.corpus.source} in "
            f"{', '.join(plan.corpora)}; pinch run does the rest."
        )
    return plan.translating
