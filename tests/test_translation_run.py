"""`pinch translate` as a process: killed, over budget, cut off, and gone on with; and a run on what it made."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import translations
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import Pinch
from tests.faults import Session, until
from tests.judge_server import JudgeServer, fails
from tests.tiny_models import random_model
from tests.translation_examples import PRICE, write_sweep
from tests.translation_server import finnish, google_says, openai_says, strings_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TEXTS = 2 * (16 * 2 + 6)
"""Two languages; 16 pairs and 6 prompts."""


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda number, asked: openai_says(asked, finnish)) as one:
        yield one


def session(sweep: Path, *overrides: str, command: str = "translate") -> Session:
    sets = [part for one in overrides for part in ("--set", one)]
    return Session(sweep, sweep.parent / "store", *sets, command=command)


def asked_for(server: JudgeServer) -> Counter[tuple[str, str]]:
    """(language, string) -> how often."""
    asked: Counter[tuple[str, str]] = Counter()
    for one in server.asked:
        to = one.body.get("targetLanguageCode") or ("fi" if "into Finnish" in one.prompt else "es")
        asked.update((to, string) for string in strings_of(one))
    return asked


def in_ledger(store: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (store / "ledger").glob("translation-*/*.jsonl"))


def test_a_killed_session_asks_for_no_text_twice(tmp_path: Path, server: JudgeServer) -> None:
    sweep = write_sweep(tmp_path, server, requests_per_minute=120)
    first = session(sweep)
    until(lambda: len(server.asked) >= 9 and in_ledger(tmp_path / "store") == len(server.asked), first)
    assert server.asked[8].at - server.asked[0].at >= 8 * 0.5 * 0.9, "one pace over both languages and all askers"
    first.kill()  # half a second lies between two requests, so none is under way
    before = len(server.asked)
    assert before == in_ledger(tmp_path / "store") < TEXTS
    again = session(sweep, "corpus.translator.requests_per_minute=null")
    assert again.wait() == 0, again.text()
    assert set(asked_for(server).values()) == {1}
    assert asked_for(server).total() == TEXTS
    assert "Translations in doubt: es 38 of 38 (38 language); fi 0 of 38." in again.text()
    store = Store(tmp_path / "store")
    assert len(store.entries("translation")) == 2
    assert {entry.name for entry in store.entries("corpus").values()} == {"hub-en", "hub-es", "hub-fi"}
    assert not (tmp_path / "store" / "mlflow.db").exists()
    third = session(sweep)
    assert third.wait() == 0, third.text()
    assert len(server.asked) == TEXTS, "what is done is done"


def test_a_session_killed_while_requests_are_under_way_repeats_no_more_than_these(
    tmp_path: Path, server: JudgeServer
) -> None:
    server.behave = lambda number, asked: openai_says(asked, finnish, delay=0.3)
    sweep = write_sweep(tmp_path, server)
    first = session(sweep)
    until(lambda: len(server.answered) >= 12, first)
    first.kill()
    time.sleep(0.5)
    at_kill = asked_for(server)
    again = session(sweep)
    assert again.wait() == 0, again.text()
    asked = asked_for(server)
    assert len(asked) == TEXTS
    twice = Counter({key: count - 1 for key, count in asked.items() if count > 1})
    assert twice.total() <= 4
    assert twice <= at_kill
    assert server.most_at_once <= 4


def test_translating_stops_at_its_limit_and_a_higher_one_pays_nothing_twice(
    tmp_path: Path, server: JudgeServer
) -> None:
    sweep = write_sweep(tmp_path, server, parallel=1)
    stopped = session(sweep, PRICE, "runtime.max_cost=1")  # a thousand characters
    assert stopped.wait() == 1, stopped.text()
    sent = sum(len(string) for asked in server.asked for string in strings_of(asked))
    assert 1000 <= sent < 1000 + 120, "what was under way is finished, and nothing more is sent"
    assert f"Stopped: paid work has cost {sent / 1000:.4f} of runtime.max_cost 1." in stopped.text()
    assert f"go on with: pinch translate {sweep} {shlex.join(['--set', PRICE])} --store" in stopped.text()
    before = len(server.asked)
    still = session(sweep, PRICE, "runtime.max_cost=1")
    assert still.wait() == 1, still.text()
    assert len(server.asked) == before, "what is spent is remembered"
    on = session(sweep, PRICE, "runtime.max_cost=100")
    assert on.wait() == 0, on.text()
    assert set(asked_for(server).values()) == {1}
    plan, store = Plan(load(str(sweep), [PRICE])), Store(tmp_path / "store")
    assert translations.cost_so_far(plan, store) == pytest.approx(
        sum(len(string) for asked in server.asked for string in strings_of(asked)) / 1000
    )


def test_requests_that_are_under_way_when_the_limit_is_reached_are_kept(tmp_path: Path, server: JudgeServer) -> None:
    slow = {True: 4.0, False: 2.0}  # so that the limit comes when both have begun
    server.behave = lambda number, asked: openai_says(asked, finnish, delay=slow["into Finnish" in asked.prompt])
    stopped = session(write_sweep(tmp_path, server), PRICE, "runtime.max_cost=1")
    assert stopped.wait() == 1, stopped.text()
    assert {language for language, _ in asked_for(server)} == {"es", "fi"}
    assert in_ledger(tmp_path / "store") == len(server.asked), "what was paid for and is lost"


def test_google_is_asked_in_batches_and_a_fault_in_one_repeats_no_other(tmp_path: Path, server: JudgeServer) -> None:
    server.behave = lambda number, asked: fails(503) if number == 1 else google_says(asked, finnish)
    sweep = write_sweep(tmp_path, server, "google")
    done = session(sweep)
    assert done.wait() == 0, done.text()
    assert len(server.asked) == 2 + 1
    assert sum(count - 1 for count in asked_for(server).values()) == 38
    assert len(asked_for(server)) == TEXTS


def test_a_service_that_is_away_ends_the_session_and_the_next_goes_on(tmp_path: Path) -> None:
    with JudgeServer() as server:
        sweep = write_sweep(tmp_path, server, parallel=1, tries=1)
        server.behave = lambda number, asked: openai_says(asked, finnish) if number < 5 else fails(502, "bad gateway")
        cut_off = session(sweep)
        assert cut_off.wait() == 3, cut_off.text()
        first, port = asked_for(server), server.port
    assert "gave no answer in 1 tries" in cut_off.text()
    assert in_ledger(tmp_path / "store") == 5
    with JudgeServer(lambda number, asked: openai_says(asked, finnish), port=port) as server:
        again = session(sweep)
        assert again.wait() == 0, again.text()
        assert len(asked_for(server)) == len(server.asked) == TEXTS - 5
    assert first.total() >= 5


def test_a_model_of_ones_own_translates_on_actors(tmp_path: Path, server: JudgeServer) -> None:
    folder = random_model(tmp_path / "causal", seed=3, chat=True)
    sweep = write_sweep(tmp_path, server)
    overrides = [f"corpus.translator={{engine: local, model: {folder}, architecture: causal}}"]
    overrides += ["corpus.train_count=3", "corpus.dev_count=1", "corpus.eval_count=2", "studies.0.languages=[en, fi]"]
    done = session(sweep, *overrides)
    text = done.text() if done.wait() else ""
    # a random model may well say nothing that can be used; it is asked all the same, and that is said
    assert not text or "translated none of 8 texts" in text
    assert in_ledger(tmp_path / "store") >= 8
    assert server.asked == []


def test_a_run_goes_on_from_translated_corpora_to_scores(tmp_path: Path, server: JudgeServer, pinch: Pinch) -> None:
    sweep = write_sweep(tmp_path, server)
    done = session(sweep, command="run")
    assert done.wait() == 0, done.text()
    assert set(asked_for(server).values()) == {1}
    assert "2 translation" in done.text()
    assert "Translations in doubt: es 38 of 38" in done.text()
    scores = pinch("scores", sweep, "--store", tmp_path / "store")
    assert "9 of 9 rows have a score" in scores.stderr


def test_a_sweep_without_translations_says_so(pinch: Pinch) -> None:
    refused = pinch("translate", "demo", check=2)
    assert "demo: nothing is translated: corpus.source is cldr" in refused.stderr
