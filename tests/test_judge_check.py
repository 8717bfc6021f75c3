"""A remote judge that cannot be asked is found out before the first fine-tune, and only where it is needed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.plan import Plan
from orchestrator.run.judge_check import greet, remote_judge, wait_for
from orchestrator.run.judging import ledger_of
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.judge_server import Answer, JudgeServer, fails
from tests.object_servers import free_port
from tests.page_example import finished_store
from trainables.errors import EnvironmentProblem, UserError
from trainables.judges import RemoteJudge

NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as one:
        yield one


def judged_by(url: str, **settings: object) -> str:
    """The override that names the judge behind an address."""
    return f"judge={json.dumps({'kind': 'remote', 'model': 'judge', 'base_url': url, 'retries': 1, **settings})}"


def judge_of(plan: Plan) -> RemoteJudge:
    assert isinstance(plan.sweep.judge, RemoteJudge)
    return plan.sweep.judge


def test_a_named_variable_that_is_not_set_is_bad_input(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    said = pinch(
        *("run", small, "--store", tmp_path / "store", "--set", judged_by(NOBODY, api_key_env="MY_JUDGE_KEY")), check=2
    ).stderr
    assert f"{small}: judge.api_key_env: the environment variable MY_JUDGE_KEY is not set" in said
    assert not (tmp_path / "store").exists()


def test_an_endpoint_that_wants_a_key_where_none_is_set_is_bad_input(
    small: Path, pinch: Pinch, tmp_path: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.greet = fails(401, "missing bearer")
    said = pinch("run", small, "--store", tmp_path / "store", "--set", judged_by(server.url), check=2).stderr
    assert f"{small}: judge: {server.url} wants a key (401: missing bearer); put it into OPENAI_API_KEY" in said
    assert not (tmp_path / "store").exists()
    assert server.asked == [], "nothing that costs anything"


def test_a_judge_that_does_not_answer_ends_the_run_before_anything_is_made(
    small: Path, pinch: Pinch, tmp_path: Path
) -> None:
    said = pinch("run", small, "--store", tmp_path / "store", "--set", judged_by(NOBODY), check=3).stderr
    assert f"judge: {NOBODY} gave no answer in 1 tries" in said, "first once"
    assert f"judge: {NOBODY} gave no answer in 2 tries" in said, "then as long as a call would be tried"
    assert "start it, or mend judge.base_url" in said
    kinds = [folder.name for folder in (tmp_path / "store").iterdir() if folder.name in ("attempts", "base", "corpus")]
    assert kinds == []


def test_a_judge_that_is_away_for_a_moment_is_waited_for(small: Path) -> None:
    port = free_port()
    plan = Plan(load(str(small), [judged_by(f"http://127.0.0.1:{port}/v1", retries=6)]))
    said = greet(plan, judge_of(plan))
    assert said is not None and "gave no answer in 1 tries" in said
    coming: list[JudgeServer] = []
    later = threading.Timer(1.0, lambda: coming.append(JudgeServer(port=port)))
    later.start()
    try:
        wait_for(judge_of(plan))
        assert len(coming) == 1, "not before it was there"
    finally:
        later.join()
        coming[0].__exit__()


@pytest.mark.parametrize(
    "answer",
    [*map(fails, (403, 404, 429, 500, 501)), fails(401, "Missing scopes: api.model.read"), Answer(raw=b"<html>")],
)
def test_whatever_an_endpoint_says_shows_that_it_is_there(small: Path, server: JudgeServer, answer: Answer) -> None:
    server.greet = answer
    plan = Plan(load(str(small), [judged_by(server.url)]))
    assert greet(plan, judge_of(plan)) is None


@pytest.mark.parametrize("answer", [fails(502), fails(503), fails(504), Answer(status=0)])
def test_a_gateway_or_a_broken_connection_shows_that_it_is_away(
    small: Path, server: JudgeServer, answer: Answer
) -> None:
    server.greet = answer
    plan = Plan(load(str(small), [judged_by(server.url)]))
    assert "gave no answer" in (greet(plan, judge_of(plan)) or "")


def test_a_key_that_is_not_taken_is_said_at_once_and_not_repeated(
    small: Path, server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", "planted-1")
    server.greet = fails(401, "no such key: planted-1")
    plan = Plan(load(str(small), [judged_by(server.url, api_key_env="MY_JUDGE_KEY")]))
    with pytest.raises(EnvironmentProblem, match=r"does not take the key in MY_JUDGE_KEY .*\*\*\*") as problem:
        greet(plan, judge_of(plan))
    assert "planted-1" not in str(problem.value)
    monkeypatch.delenv("MY_JUDGE_KEY")
    with pytest.raises(UserError, match="MY_JUDGE_KEY is not set"):
        greet(plan, judge_of(plan))


def test_a_judge_is_looked_for_only_where_a_verdict_is_missing_that_can_be_had(small: Path, tmp_path: Path) -> None:
    plan = Plan(load(str(small), [judged_by(NOBODY)]))
    empty = Store(tmp_path / "empty")
    assert remote_judge(plan, empty) == plan.sweep.judge
    assert remote_judge(Plan(load(str(small))), empty) is None, "another kind of judge"
    small.write_text(f"{SMALL}{yaml.safe_dump({'judge': plan.sweep.judge.model_dump()})}")
    same, store = finished_store(small, tmp_path / "store")
    assert same.digest == plan.digest
    assert remote_judge(plan, store) is None, "all is judged"
    fewer = Plan(load(str(small), [judged_by(NOBODY), "corpus.eval_count=4"]))
    assert fewer.of_kind("comparison")[0].key != plan.of_kind("comparison")[0].key
    assert remote_judge(fewer, store) is None, "all of it was judged as part of more"
    more = Plan(load(str(small), [judged_by(NOBODY), "corpus.eval_count=8"]))
    assert remote_judge(more, store) is not None
    for step in plan.of_kind("fine_tune"):
        empty.record_failure(step, "NaN")
    assert remote_judge(plan, empty) is None, "every comparison is behind a failure"
    assert remote_judge(plan, empty, retry_failed=True) is not None


def test_a_judge_is_not_looked_for_where_every_verdict_was_paid_for(small: Path, tmp_path: Path) -> None:
    plan, store = Plan(load(str(small), [judged_by(NOBODY)])), Store(tmp_path / "store")
    for step in plan.of_kind("comparison"):
        ledger_of(store, step).extend({f"{order} i{n}": {"choice": 1} for n in range(6) for order in ("ab", "ba")})
    assert remote_judge(plan, store) is None
