"""Whether a sweep's remote judge can be asked, found out before days of fine-tunes and not after them.

A judge is asked for nothing here that costs anything. One that is away for a moment is waited for as patiently as in
the middle of judging; a key that is not there is the user's to put there, and is said before anything is written.

This module must never know what a judge is asked.
"""

from __future__ import annotations

from pydantic import SecretStr

from orchestrator.plan import Plan
from orchestrator.run.judging import ledger_name, ledger_of
from orchestrator.store import Store
from trainables.errors import EnvironmentProblem, Unreachable, UserError
from trainables.judges import RemoteJudge, api_key
from trainables.judges.remote import reach

_ONE_TRY = 10.0
"""Seconds in which a judge that is there says so."""


def remote_judge(plan: Plan, store: Store, retry_failed: bool = False) -> RemoteJudge | None:
    """The sweep's judge, if it is a remote one that will be asked; None where every verdict is there, or cannot be had.

    Args:
        retry_failed: steps whose failure is on record are tried again.
    """
    judge = plan.sweep.judge
    if not isinstance(judge, RemoteJudge):
        return None
    made = store.listings(plan.steps)
    lost = set() if retry_failed else set(store.failures())
    if lost:  # and what needs what failed
        for step in plan.steps:
            if step.key in made[step.kind]:
                lost.discard(step.key)
            elif any(needed.key in lost for needed in step.needs):
                lost.add(step.key)
    calls, kept = 2 * plan.sweep.corpus.eval_count, store.ledgers()
    for step in plan.of_kind("comparison"):
        if step.key in made["comparison"] or step.key in lost:
            continue
        there = max((one.facts.get("rows", 0) for one in made["comparison"].of_family(step.family)), default=0)
        if there < calls and ledger_name(step) in kept:
            there += len(ledger_of(store, step).read())
        if there < calls:
            return judge
    return None


def missing_key(plan: Plan, judge: RemoteJudge) -> str | None:
    """What to do about a variable that the sweep names and nobody has set; None where there is nothing to do.

    The default variable may be unset: many an endpoint wants no key, and one that does says so when it is greeted.
    """
    default = RemoteJudge.model_fields["api_key_env"].default
    if judge.api_key_env == default or api_key(judge) is not None:
        return None
    return (
        f"{plan.loaded.source}: judge.api_key_env: the environment variable {judge.api_key_env} is not set; put the "
        "judge's key into it, or leave api_key_env out where the endpoint wants none."
    )


def greet(plan: Plan, judge: RemoteJudge) -> str | None:
    """See once whether the judge is there; why not, in a sentence, where that may pass.

    Raises:
        UserError: it wants a key, and none is set. EnvironmentProblem: it does not take the key.
    """
    if (problem := missing_key(plan, judge)) is not None:
        raise UserError(problem)
    key = api_key(judge)
    try:
        reach_once(judge, key)
    except Unreachable as away:
        return str(away)
    except EnvironmentProblem as problem:
        if key is None:
            raise UserError(f"{plan.loaded.source}: {problem}") from None
        raise
    return None


def reach_once(judge: RemoteJudge, key: SecretStr | None) -> None:
    """Ask the judge whether it is there, once and without much patience.

    Raises:
        Unreachable: it did not answer. EnvironmentProblem: it does not take the key.
    """
    reach(judge.model_copy(update={"retries": 0, "timeout": min(_ONE_TRY, judge.timeout)}), key)


def wait_for(judge: RemoteJudge) -> None:
    """Wait for the judge, for as long as a call of it would be tried.

    Raises:
        EnvironmentProblem: it did not answer.
    """
    try:
        reach(judge, api_key(judge))
    except Unreachable as away:
        raise EnvironmentProblem(f"{away}; start it, or mend judge.base_url") from None
