"""Whole runs with a remote judge, as processes: killed, over budget, locked out, cut off, and gone on with.

One sweep is answered once; every test judges a copy of it, so only comparisons are left to do.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from orchestrator.corpus.base import EVAL_FILE, read_examples
from orchestrator.plan import Plan
from orchestrator.run.actors import JudgeActor, Pulse
from orchestrator.run.jobs import Place
from orchestrator.run.judging import ComparisonJob, account_of, ledger_of
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.faults import Session, until
from tests.judge_server import JudgeServer, fails, says
from trainables.engines.contract import EngineSettings
from trainables.errors import BudgetReached
from trainables.judges import calls_for
from trainables.judges.prompt import load_prompt
from trainables.judges.remote import EndpointJudge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
CALLS = 4 * 6 * 2
"""Four comparisons of six instructions in two orders."""
PRICE = "runtime.prices={million_judge_tokens: {amount: 100, date: 2026-11-01}}"


@pytest.fixture
def place(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with a sweep file and a store that holds everything but a remote judge's verdicts, to judge in."""
    (tmp_path / "small.yaml").write_text(SMALL)
    shutil.copytree(undisturbed, tmp_path / "store")
    return tmp_path


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as one:
        yield one


def judge(url: str, **settings: object) -> str:
    """The override that names the judge behind a server."""
    asked = {"kind": "remote", "model": "judge", "base_url": url, "concurrency": 2, "timeout": 5, **settings}
    return f"judge={json.dumps(asked)}"


def run(place: Path, *overrides: str) -> Session:
    return Session(place / "small.yaml", place / "store", *(part for one in overrides for part in ("--set", one)))


def plan_of(place: Path, *overrides: str) -> Plan:
    return Plan(load(str(place / "small.yaml"), list(overrides)))


def prompts_of(plan: Plan, store: Path) -> Counter[str]:
    """Every prompt that judging the plan takes, as often as it takes it, from the texts in the store."""
    opened = Store(store)
    asker = EndpointJudge(plan.sweep.judge, load_prompt("figure9"))  # type: ignore[arg-type]
    prompts: Counter[str] = Counter()
    for step in plan.of_kind("comparison"):
        texts = []
        for needed in step.needs[:2]:
            entry = opened.find("generation_set", needed.key)
            assert entry is not None
            rows = pq.read_table(opened.root / entry.place / "responses.parquet").to_pylist()
            texts.append({row["instruction_id"]: row["text"] for row in rows})
        corpus = opened.find("corpus", step.needs[1].needs[1].key)
        assert corpus is not None
        for example in read_examples(opened.root / corpus.place / EVAL_FILE)[:6]:
            a, b = (of[example.id] for of in texts)
            prompts.update(asker.question(call).text for call in calls_for(example.id, example.instruction, a, b))
    assert prompts.total() == CALLS
    return prompts


def everything_is_judged_once(plan: Plan, store: Path) -> None:
    """Every comparison has every instruction in both orders, once, and no ledger is left."""
    opened = Store(store)
    for step in plan.of_kind("comparison"):
        entry = opened.find("comparison", step.key)
        assert entry is not None
        rows = pq.read_table(opened.root / entry.place / "verdicts.parquet").to_pylist()
        assert len(rows) == len({(row["instruction_id"], row["order"]) for row in rows}) == 12
        assert set(rows[0]) == {"instruction_id", "order", "choice", "raw", "seconds"}
    assert not list((store / "ledger").glob("comparison-*"))


def test_a_session_killed_in_the_middle_of_judging_asks_nothing_twice(place: Path, server: JudgeServer) -> None:
    server.behave = lambda number, asked: says("1" if len(asked.prompt) % 2 else "2", delay=0.2)
    first = run(place, judge(server.url))
    until(lambda: len(server.answered) >= 17, first)
    first.kill()
    time.sleep(0.5)
    sent, at_kill = len(server.asked), Counter(server.prompts())
    assert 17 <= sent < CALLS, "it was in the middle"
    again = run(place, judge(server.url))
    assert again.wait() == 0, again.text()
    plan = plan_of(place, judge(server.url))
    everything_is_judged_once(plan, place / "store")
    wanted, asked = prompts_of(plan, place / "store"), Counter(server.prompts())
    twice = asked - wanted
    assert asked.keys() == wanted.keys()
    assert twice.total() <= 2, "no more than were under way"
    assert twice <= at_kill
    assert server.most_at_once <= 2
    facts = [entry.facts for entry in Store(place / "store").entries("comparison").values()]
    paid = [fact for fact in facts if "prompt_tokens" in fact]
    assert sum(fact["prompt_tokens"] for fact in paid) == 100 * CALLS
    assert sum(fact["completion_tokens"] for fact in paid) == CALLS
    assert all(fact["models"] == ["judge-2026"] and "cost" not in fact for fact in paid)


def test_a_run_stops_at_its_limit_and_a_higher_one_goes_on_without_paying_twice(
    place: Path, server: JudgeServer, pinch: Pinch
) -> None:
    server.behave = lambda number, asked: says("2", prompt_tokens=990, completion_tokens=10)  # 0.1 a call
    asked = [judge(server.url), PRICE]
    stopped = run(place, *asked, "runtime.max_cost=1.45")
    assert stopped.wait() == 1, stopped.text()
    assert 15 <= len(server.asked) <= 16, "what was under way is finished, and nothing more is sent"
    spent = f"{len(server.asked) * 0.1:.4f}"
    assert f"Stopped: paid work has cost {spent} of runtime.max_cost 1.45." in stopped.text()
    cure = stopped.text().split("go on with: ")[1].splitlines()[0]
    given = shlex.join(["--set", asked[0], "--set", asked[1]])
    assert cure == f"pinch run {place}/small.yaml {given} --store {place}/store --set runtime.max_cost=..."
    assert len(list((place / "store" / "ledger").glob("comparison-*"))) == 1
    before = len(server.asked)
    still = run(place, *asked, "runtime.max_cost=1.45")
    assert still.wait() == 1, still.text()
    assert len(server.asked) == before, "what is spent is remembered"
    assert f"paid work has cost {spent}" in still.text()
    on = run(place, *asked, "runtime.max_cost=100")
    assert on.wait() == 0, on.text()
    plan = plan_of(place, *asked)
    assert Counter(server.prompts()) == prompts_of(plan, place / "store")
    everything_is_judged_once(plan, place / "store")
    entries = Store(place / "store").entries("comparison")
    costs = [entries[step.key].facts["cost"] for step in plan.of_kind("comparison")]
    assert sum(costs) == pytest.approx(0.1 * CALLS)
    scores = pinch("scores", place / "small.yaml", "--store", place / "store", "--set", asked[0])
    assert "6 of 6 rows have a score (judge remote-judge" in scores.stderr


def test_a_judge_that_is_told_to_end_asks_nothing_more_and_keeps_what_it_asked(
    place: Path, server: JudgeServer
) -> None:
    server.behave = lambda number, asked: says("1", delay=0.5)
    plan, where = plan_of(place, judge(server.url), PRICE), Place(str(place / "store"), "test")
    step, store = plan.of_kind("comparison")[0], where.open()
    baseline, model = step.needs[:2]
    account = account_of(plan, store)
    corpus = model.needs[1].key
    job = ComparisonJob(step=step, baseline=baseline.key, model=model.key, corpus=corpus, judge="j", account=account)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        pulse: Any = Pulse.remote()  # type: ignore[attr-defined]
        actor: Any = JudgeActor.options(max_concurrency=2).remote(pulse)  # type: ignore[attr-defined]
        ray.get(actor.start.remote(where, plan.sweep.judge, None, None, EngineSettings(), None))
        judging = actor.compare.remote(where, job)
        while len(server.answered) < 2:
            time.sleep(0.01)
        ray.get(actor.end.remote())
        with pytest.raises(BudgetReached):
            ray.get(judging)
    finally:
        ray.shutdown()
    assert 2 <= len(server.asked) <= 6
    assert len(ledger_of(store, step).read()) == len(server.asked) == len(server.answered)


def test_a_limit_without_a_price_is_refused_before_anything_starts(place: Path, pinch: Pinch) -> None:
    sets = ["--set", judge("http://127.0.0.1:9/v1"), "--set", "runtime.max_cost=1"]
    refused = pinch("run", place / "small.yaml", "--store", place / "new", *sets, check=2)
    assert "add runtime.prices.million_judge_tokens" in refused.stderr
    assert not (place / "new").exists()
    assert '"judge_calls": 48' in pinch("plan", place / "small.yaml", "--json", *sets).stdout, "no network is needed"


def test_an_endpoint_that_is_away_ends_the_run_and_the_next_one_goes_on(place: Path) -> None:
    with JudgeServer() as server:
        server.behave = lambda number, asked: says("1") if number < 5 else fails(502, "bad gateway")
        cut_off = run(place, judge(server.url, retries=1, concurrency=1))
        assert cut_off.wait() == 3, cut_off.text()
        assert len(server.asked) == 5 + 3 * 2
        port = server.port
    assert cut_off.text().count("gave no answer in 2 tries") == 3
    assert "What is published stays; mend it and run again." in cut_off.text()
    assert not list((place / "store" / "failures").glob("*.json")), "no comparison is to blame"
    with JudgeServer(port=port) as server:
        again = run(place, judge(server.url))
        assert again.wait() == 0, again.text()
        assert len(server.asked) == CALLS - 5
    everything_is_judged_once(plan_of(place, judge(server.url)), place / "store")


def test_the_key_is_found_nowhere_afterwards(place: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "planted-b41c07-secret"
    scratch = Path(tempfile.mkdtemp(prefix="pk", dir="/tmp"))  # Ray's sockets need a short path
    monkeypatch.setenv("RAY_TMPDIR", str(scratch))
    monkeypatch.setenv("JUDGE_KEY", key)
    try:
        server.behave = lambda number, asked: fails(401, f"no such key: {asked.authorization}")
        refused = run(place, judge(server.url, api_key_env="JUDGE_KEY"))
        assert refused.wait() == 3, refused.text()
        assert len(server.asked) <= 2, "a wrong key is not tried again"
        assert server.asked[0].authorization == f"Bearer {key}"
        assert "does not take the key in JUDGE_KEY (401: no such key: Bearer ***); put a valid one" in refused.text()
        server.behave = lambda number, asked: says(f"1 {asked.authorization}")
        done = run(place, judge(server.url, api_key_env="JUDGE_KEY"))
        assert done.wait() == 0, done.text()
        assert any(scratch.rglob("*.log")) or any(scratch.rglob("*.out"))
        found = [
            path
            for folder in (place, scratch)
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and key.encode() in path.read_bytes()
        ]
        assert found == []
        table = pq.read_table(next((place / "store" / "comparison").glob("*/verdicts.parquet")))
        assert {"raw"} <= set(table.column_names)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    assert os.environ["JUDGE_KEY"] == key
