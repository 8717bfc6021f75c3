"""Comparisons: two response sets, judged side by side in both orders, and what that costs where it costs money.

A paid verdict is put into a ledger the moment it arrives and looked up there before anything is asked, so a session
that is killed loses the calls under way and no other. The ledger belongs to the comparison's *family*, as verdicts
do, and goes when what it holds is published. Where ``runtime.max_cost`` is set, no call is made once what the plan's
translations and comparisons have cost, published or not, reaches it; calls under way by then are finished, and paid.

This module must never know how a judge comes to its verdict.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.identity import Step
from orchestrator.ledger import Ledger
from orchestrator.plan import Plan
from orchestrator.run.jobs import Place, attempt, entry_of, eval_examples, rows_of, unwritable
from orchestrator.store import Store
from orchestrator.translations import cost_so_far
from trainables.errors import BudgetReached, UserError

VERDICTS = pa.schema(
    [
        ("instruction_id", pa.string()),
        ("order", pa.string()),
        ("choice", pa.int8()),
        ("raw", pa.string()),
        ("seconds", pa.float64()),
    ]
)
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """What paid judging costs, what it has cost, and what it may. Prices are per million tokens; None is unknown."""

    prompt: float | None
    completion: float | None
    spent: float = 0.0
    """By the plan's translations and comparisons before this was handed out; counted only where there is a limit."""
    limit: float | None = None

    def cost(self, rows: Iterable[Mapping[str, Any]]) -> float:
        """What verdicts, or the facts of comparisons, cost by the tokens they name; 0 without a price."""
        return sum(
            (
                row.get("prompt_tokens", 0) * (self.prompt or 0)
                + row.get("completion_tokens", 0) * (self.completion or 0)
            )
            / 1e6
            for row in rows
        )

    def check(self, more: float = 0.0) -> None:
        """Raises:
        BudgetReached: when nothing more may be spent.
        """
        if self.limit is not None and self.spent + more >= self.limit:
            raise BudgetReached(f"paid work has cost {self.spent + more:.4f} of runtime.max_cost {self.limit:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonJob:
    """Two response sets in one language, to be judged side by side."""

    step: Step
    baseline: str
    model: str
    corpus: str
    judge: str
    """The judge's label, recorded with the verdicts."""
    account: Account | None = None
    """None where judging costs nothing."""


def account_of(plan: Plan, store: Store) -> Account | None:
    """What the plan's judging has cost so far; None where it costs nothing.

    Raises:
        UserError: a limit without a price.
    """
    sweep = plan.sweep
    if not sweep.judge.paid:
        return None
    limit, prices = sweep.runtime.max_cost, sweep.runtime.prices
    price = prices.get("million_judge_tokens")
    written = prices.get("million_judge_output_tokens", price)
    if limit is not None and price is None:
        raise UserError(
            f"{plan.loaded.source}: runtime.max_cost {limit:g} cannot be watched without a price; add "
            "runtime.prices.million_judge_tokens: {amount: ..., date: ...}, or leave max_cost out."
        )
    account = Account(
        prompt=price.amount if price else None, completion=written.amount if written else None, limit=limit
    )
    if limit is None:
        return account
    published, kept = store.listing("comparison"), store.ledgers()
    spent = cost_so_far(plan, store)
    for step in plan.of_kind("comparison"):
        made = published.get(step.key)
        if made:
            spent += account.cost([made.facts])
        elif ledger_name(step) in kept:
            spent += account.cost(ledger_of(store, step).read().values())
    return dataclasses.replace(account, spent=spent)


def ledger_of(store: Store, step: Step) -> Ledger:
    """Where the verdicts of a comparison's family wait until they are published."""
    return store.ledger(ledger_name(step))


def ledger_name(step: Step) -> str:
    """Its name."""
    return f"comparison-{step.family[:16]}"


def compare(
    place: Place,
    job: ComparisonJob,
    judge: Any,
    progress: Callable[[int, int], None],
    ending: Callable[[], bool] = lambda: False,
) -> None:
    """Judge every instruction in both orders; verdicts that are published, or paid for, are taken as they are.

    Args:
        ending: whether a limit was reached elsewhere, so that nothing more is to be asked.

    Raises:
        BudgetReached: the account's limit came first, or ``ending``; what was judged is in the ledger.
    """
    store = place.open()
    started = time.monotonic()
    calls = _calls(store, job)
    published = _published(store, job.step)
    ledger = ledger_of(store, job.step) if job.account else None
    made = {key: row for key, row in (ledger.read() if ledger else {}).items() if key not in published}
    missing = [call for call in calls if _key(call) not in published and _key(call) not in made]
    made |= _ask(missing, store, job, judge, ledger, progress, ending)
    verdicts = published | made
    new = [made[_key(call)] for call in calls if _key(call) in made]
    with attempt(store, job.step) as out:
        table = pa.Table.from_pylist([verdicts[_key(call)] for call in calls], VERDICTS)
        pq.write_table(table, out / "verdicts.parquet")
        facts = {
            "rows": len(calls),
            "judge": job.judge,
            "taken_over": len(calls) - len(new),
            "seconds": round(time.monotonic() - started, 2),
        }
        if job.account:
            facts |= _paid_facts(job.account, new)
        store.publish(job.step, out, facts)
    if ledger:
        ledger.remove({_key(call) for call in calls})  # what a larger comparison of the family was told stays


def _calls(store: Store, job: ComparisonJob) -> list[Any]:
    from trainables.judges import calls_for

    first, second = _responses(store, job.baseline), _responses(store, job.model)
    return [
        call
        for example in eval_examples(store, job.corpus, len(second))
        for call in calls_for(example.id, example.instruction, first[example.id], second[example.id], example.response)
    ]


def _ask(
    calls: list[Any],
    store: Store,
    job: ComparisonJob,
    judge: Any,
    ledger: Ledger | None,
    progress: Callable[[int, int], None],
    ending: Callable[[], bool],
) -> dict[str, Row]:
    """The verdicts on these calls, each in the ledger before it counts."""
    fresh: dict[str, Row] = {}

    def within_budget() -> None:
        if job.account and len(fresh) < len(calls):
            job.account.check(job.account.cost(fresh.values()))
            if ending():
                raise BudgetReached("paid work has cost what it may")

    def keep(verdict: Any) -> None:
        row = _row(verdict)
        if ledger:
            with unwritable(store):
                ledger.add(_key(verdict), row)
        fresh[_key(verdict)] = row
        within_budget()

    within_budget()
    try:
        if calls:
            judge.judge(calls, progress, keep)
    except BudgetReached:
        within_budget()  # what was under way is paid for by now; perhaps it was all there was
    return fresh


def _paid_facts(account: Account, rows: list[Row]) -> dict[str, Any]:
    """What the new verdicts took; ``models`` are the names under which the endpoint answered."""
    facts: dict[str, Any] = {name: sum(row[name] for row in rows) for name in ("prompt_tokens", "completion_tokens")}
    facts["models"] = sorted({row["model"] for row in rows if row["model"]})
    if account.prompt is not None:
        facts["cost"] = round(account.cost([facts]), 6)
    return facts


def _key(one: Any) -> str:
    """A call's, or its verdict's, key in a comparison."""
    return f"{one.order} {one.instruction_id}"


def _row(verdict: Any) -> Row:
    row = {name: getattr(verdict, name) for name in VERDICTS.names}
    return row | (dataclasses.asdict(verdict.usage) if verdict.usage else {})


def _responses(store: Store, key: str) -> dict[str, str]:
    """Instruction id -> text."""
    rows = pq.read_table(store.use(entry_of(store, "generation_set", key)) / "responses.parquet").to_pylist()
    return {row["instruction_id"]: row["text"] for row in rows}


def _published(store: Store, step: Step) -> dict[str, Row]:
    """What comparisons of the same family have."""
    known: dict[str, Row] = {}
    for entry in store.relatives(step):
        for row in rows_of(store, entry, "verdicts.parquet"):
            known.setdefault(f"{row['order']} {row['instruction_id']}", row)
    return known
