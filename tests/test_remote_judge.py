"""The remote judge against endpoints that misbehave: what passes is waited for, what does not is said at once."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from traceback import format_exception
from typing import Any

import pytest
from pydantic import SecretStr

from tests.judge_server import Answer, Asked, JudgeServer, calls, fails, says
from trainables import patience
from trainables.endpoint import LONGEST
from trainables.errors import BudgetReached, EnvironmentProblem, Unreachable
from trainables.judges import (
    Call,
    RemoteJudge,
    Usage,
    Verdict,
    api_key,
    calls_for,
    open_judge,
)
from trainables.judges.cutting import CUT_MARK
from trainables.judges.prompt import load_prompt
from trainables.judges.remote import reach

FIGURE9 = load_prompt("figure9")
KEY = "planted-7f3a91-secret"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as one:
        yield one


def remote(server: JudgeServer, **settings: Any) -> RemoteJudge:
    return RemoteJudge(**{"model": "judge", "base_url": server.url, "concurrency": 1, "timeout": 5.0, **settings})


def judged(server: JudgeServer, count: int = 1, key: str | None = None, **settings: Any) -> list[Verdict]:
    judge = open_judge(remote(server, **settings), key=SecretStr(key) if key else None)
    return judge.judge(calls(count))


def once(bad: Answer) -> Any:
    """Badly the first time, well after that."""
    return lambda number, asked: bad if number == 0 else says("2")


# What goes right


def test_every_call_is_asked_greedily_and_answered_in_its_place(server: JudgeServer) -> None:
    server.behave = lambda number, asked: says("1" if "Question 1?" in asked.prompt else " 2\n")
    seen: list[tuple[int, int]] = []
    kept: list[Verdict] = []
    verdicts = open_judge(remote(server, concurrency=3)).judge(
        calls(3), lambda done, total: seen.append((done, total)), kept.append
    )
    assert [(v.instruction_id, v.order) for v in verdicts] == [(c.instruction_id, c.order) for c in calls(3)]
    assert [v.choice for v in verdicts] == [2, 2, 1, 1, 2, 2]
    assert sorted(kept, key=str) == sorted(verdicts, key=str)
    assert seen == [(done, 6) for done in range(1, 7)]
    assert all(v.seconds > 0 and v.usage == Usage(100, 1, "judge-2026") for v in verdicts)
    body = server.asked[0].body
    assert server.asked[0].path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0, 8)
    assert "seed" not in body
    assert {asked.prompt for asked in server.asked} == {
        FIGURE9.fill(call.instruction, call.first, call.second) for call in calls(3)
    }
    assert open_judge(remote(server)).judge([]) == []


def test_prompts_with_a_common_beginning_follow_one_another(server: JudgeServer) -> None:
    open_judge(remote(server)).judge(calls(5)[::2] + calls(5)[1::2])
    assert server.prompts() == sorted(server.prompts())


def test_a_prompt_that_is_no_chat_is_asked_as_plain_text_with_its_seed(server: JudgeServer, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "prompt.txt").write_text("{instruction}|{first}|{second}")
    (folder / "judge.yaml").write_text('chat: never\nplain_ending: "\\nBetter:"\nparse_tokens: 2\n')
    server.behave = lambda number, asked: Answer(
        {"object": "text_completion", "model": "m", "choices": [{"index": 0, "text": " 2", "finish_reason": "length"}]}
    )
    verdicts = judged(server, prompt=str(folder), seed=7)
    assert [v.choice for v in verdicts] == [2, 2]
    assert server.asked[0].path == "/v1/completions"
    assert server.asked[0].prompt == "Question 0?|no|yes\nBetter:"
    assert (server.asked[0].body["seed"], server.asked[0].body["max_tokens"]) == (7, 2)
    assert verdicts[0].usage == Usage(-(-len(server.asked[0].prompt) // 4), 1, "m"), "guessed where nothing is told"


def test_there_are_never_more_calls_under_way_than_allowed(server: JudgeServer) -> None:
    server.behave = lambda number, asked: says("1", delay=0.05)
    judged(server, 12, concurrency=3)
    assert server.most_at_once == 3
    assert len(server.asked) == 24


def test_requests_keep_their_pace_whoever_sends_them(server: JudgeServer) -> None:
    server.behave = once(fails(500))
    judged(server, 3, concurrency=4, requests_per_minute=600)
    times = sorted(asked.at for asked in server.asked)
    assert len(times) == 7
    assert times[-1] - times[0] >= 0.55
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > 0.05


def test_what_may_be_a_control_token_somewhere_is_none(server: JudgeServer) -> None:
    open_judge(remote(server)).judge([Call("i", "ab", "q<|im_end|>", "</s>[INST]fine", "<end_of_turn>{first}")])
    (text,) = server.prompts()
    assert not any(token in text for token in ("<|", "</s>", "[INST]", "<end_of_turn>"))
    assert "{first}" in text


def test_long_texts_are_cut_alike_in_both_orders_and_it_is_said(server: JudgeServer) -> None:
    long = "кот " * 4000
    verdicts = open_judge(remote(server)).judge(calls_for("i", "q", long, "short"))
    for asked in server.asked:
        assert len(asked.prompt.encode()) <= 4 * 3072
        assert CUT_MARK in asked.prompt
        assert "do not explain it" in asked.prompt
    assert verdicts[0].raw.startswith("1\n(cut, in bytes: first from 28000 to ")
    assert verdicts[0].raw.replace("first", "second") == verdicts[1].raw


# What passes


@pytest.mark.parametrize(
    "bad",
    [
        fails(429),
        fails(500),
        fails(503),
        fails(408),
        Answer(status=0),
        Answer(raw=b'{"choices": [{"mess'),
        Answer({"error": {"message": "upstream", "code": 502}}),
        Answer(raw=b"[" * 200_000),
        Answer(raw=b'{"choices": ' + b"9" * 5000 + b"}"),
        Answer(raw=b" " * (LONGEST + 1)),
        Answer(raw=gzip.compress(b" " * 5 * LONGEST), headers={"content-encoding": "gzip"}),
        Answer(raw=b"?", headers={"content-encoding": "zstd"}),
    ],
    ids=[
        "busy",
        "error",
        "unavailable",
        "timeout",
        "broken off",
        "cut short",
        "error in an answer's clothes",
        "brackets without end",
        "a number without end",
        "text without end",
        "packed text without end",
        "packed as nobody asked for",
    ],
)
def test_what_passes_by_itself_is_tried_again(server: JudgeServer, bad: Answer) -> None:
    server.behave = once(bad)
    verdicts = judged(server, retries=1)
    assert [v.choice for v in verdicts] == [2, 2]
    assert len(server.asked) == 3
    assert server.prompts()[0] == server.prompts()[1], "not a new question"


def test_a_server_that_says_when_is_asked_no_sooner(server: JudgeServer) -> None:
    server.behave = once(fails(429, retry_after="0.6"))
    judged(server)
    assert server.asked[1].at - server.asked[0].at >= 0.6


def test_a_server_that_names_a_date_is_asked_no_sooner(server: JudgeServer) -> None:
    due = int(time.time()) + 2
    server.behave = once(fails(503, retry_after=formatdate(due, usegmt=True)))
    judged(server)
    assert server.asked[1].at - server.asked[0].at > 0.5
    assert time.time() >= due


def test_waits_grow_where_the_server_says_nothing(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.1)
    server.behave = lambda number, asked: fails(500) if number < 3 else says("1")
    judged(server)
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(server.asked[:4])]
    assert gaps[0] < gaps[1] < gaps[2]
    assert sum(gaps) > 0.5


def test_a_call_that_hangs_is_given_up_and_asked_again(server: JudgeServer) -> None:
    server.behave = lambda number, asked: says("1", delay=3 if number == 0 else 0)
    began = time.monotonic()
    verdicts = judged(server, timeout=0.3)
    assert time.monotonic() - began < 2.5
    assert [v.choice for v in verdicts] == [1, 1]
    assert verdicts[1].seconds > 0.3 or verdicts[0].seconds > 0.3


def test_an_endpoint_that_is_away_for_longer_than_the_retries_is_said_to_be(server: JudgeServer) -> None:
    server.behave = lambda number, asked: fails(500, "out of order")
    with pytest.raises(Unreachable, match=r"gave no answer in 3 tries over \d+ s \(the last: 500: out of order\)"):
        judged(server, retries=2)
    assert len(server.asked) == 3
    with JudgeServer() as gone:
        spec = remote(gone, retries=1)
    with pytest.raises(Unreachable, match="gave no answer in 2 tries"):
        open_judge(spec).judge(calls(1))


# What cannot be read


@pytest.mark.parametrize(
    "empty",
    [
        says(None),
        says(""),
        says("Both are fine."),
        Answer({"choices": []}),
        Answer({"choices": [{}]}),
        Answer({"choices": [{"message": None}]}),
        Answer({}),
    ],
)
def test_what_cannot_be_read_is_asked_again_with_the_reminder(server: JudgeServer, empty: Answer) -> None:
    server.behave = once(empty)
    assert [v.choice for v in judged(server)] == [2, 2]
    assert len(server.asked) == 3
    first, again, _ = server.prompts()
    assert again == f"{first}\n{FIGURE9.settings.reminder}"


def test_what_can_never_be_read_is_stored_as_invalid_with_what_was_said_and_paid(server: JudgeServer) -> None:
    server.behave = lambda number, asked: says("They are 12 of a kind", 50, 6)
    (verdict, _) = judged(server)
    assert (verdict.choice, verdict.raw) == (None, "They are 12 of a kind")
    assert verdict.usage == Usage(150, 18, "judge-2026")
    assert len(server.asked) == 2 * FIGURE9.settings.tries


@pytest.mark.parametrize(("text", "choice"), [("Answer1", 1), ("Answer 2 is better", 2), ("0.1", None), ("12", None)])
def test_written_answers_are_read_by_the_rule_of_all_judges(server: JudgeServer, text: str, choice: int | None) -> None:
    server.behave = lambda number, asked: says(text)
    assert [v.choice for v in judged(server)] == [choice, choice]


def test_a_prompt_that_the_endpoint_will_not_read_is_invalid_and_the_others_go_on(server: JudgeServer) -> None:
    server.behave = lambda number, asked: (
        fails(400, "This model's maximum context length is 1 tokens") if "Question 1?" in asked.prompt else says("2")
    )
    kept: list[Verdict] = []
    verdicts = open_judge(remote(server)).judge(calls(3), keep=kept.append)
    assert [v.choice for v in verdicts] == [2, 2, None, None, 2, 2]
    assert verdicts[2].raw == "refused: 400: This model's maximum context length is 1 tokens"
    assert sorted(kept, key=str) == sorted(verdicts, key=str)
    assert len(server.asked) == 6, "asking again would not help"


def test_an_endpoint_that_will_read_no_prompt_at_all_is_set_up_wrongly(server: JudgeServer) -> None:
    server.behave = lambda number, asked: fails(400, "max_tokens exceeds the context window")
    kept: list[Verdict] = []
    with pytest.raises(EnvironmentProblem, match="answers no call at all"):
        open_judge(remote(server)).judge(calls(2), keep=kept.append)
    assert kept == []


# What does not pass


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (fails(401, "Incorrect API key"), r"does not take the key in MY_KEY \(401: Incorrect API key\); put a valid"),
        (fails(403), "does not take the key in MY_KEY"),
        (fails(404, "The model `judge` does not exist"), "does not know the model judge .* name one that it serves"),
        (fails(402, "Insufficient balance"), "the account at .* is used up"),
        (fails(429, "You exceeded your current quota", "insufficient_quota"), "the account at .* is used up"),
        (fails(400, "Unsupported parameter: 'max_tokens'"), "does not take the calls .*Unsupported parameter"),
        (Answer(raw=b"<html>hello</html>", headers={"content-type": "text/html"}), "does not speak OpenAI's interface"),
    ],
    ids=["key", "forbidden", "model", "payment", "quota", "parameter", "website"],
)
def test_what_does_not_pass_is_said_at_once_with_its_cure(server: JudgeServer, bad: Answer, words: str) -> None:
    server.behave = lambda number, asked: bad
    with pytest.raises(EnvironmentProblem, match=words) as problem:
        judged(server, 4, key=KEY, api_key_env="MY_KEY")
    assert len(server.asked) == 1
    assert "\n" not in str(problem.value)


def test_an_endpoint_that_wants_a_key_where_none_is_set_says_where_to_put_it(server: JudgeServer) -> None:
    server.behave = lambda number, asked: fails(401, "missing bearer")
    with pytest.raises(EnvironmentProblem, match=r"wants a key \(401: missing bearer\); put it into OPENAI_API_KEY"):
        judged(server)


def test_the_key_goes_to_the_endpoint_and_nowhere_else(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    spec = remote(server, api_key_env="MY_KEY")
    secret = api_key(spec)
    assert secret is not None
    assert KEY not in repr(secret) + repr(spec) + json.dumps(spec.payload())
    server.behave = lambda number, asked: says(f"1, says {asked.authorization}")
    caplog.set_level("DEBUG")
    verdicts = open_judge(spec, key=secret).judge(calls(1))
    assert server.asked[0].authorization == f"Bearer {KEY}"
    assert verdicts[0].raw == "1, says Bearer ***"
    for status in (401, 404, 400, 500):
        server.behave = lambda number, asked, status=status: fails(status, f"what is {asked.authorization}?")
        with pytest.raises(Exception, match=r"what is Bearer \*\*\*") as problem:
            open_judge(remote(server, retries=0), key=secret).judge(calls(1))
        assert KEY not in "".join(format_exception(problem.value))
    assert KEY not in caplog.text


# What is not believed


def test_an_answer_may_be_packed(server: JudgeServer) -> None:
    packed = gzip.compress(json.dumps(says("2").body).encode())
    server.behave = lambda number, asked: Answer(raw=packed, headers={"content-encoding": "gzip"})
    assert [v.choice for v in judged(server)] == [2, 2]


@pytest.mark.parametrize("told", [10**400, 10**9, 0, -5, 1.5])
def test_a_count_of_tokens_that_cannot_be_is_guessed(server: JudgeServer, told: Any) -> None:
    server.behave = lambda number, asked: says("2", told, told)
    (verdict, _) = judged(server)
    assert verdict.usage == Usage(-(-len(server.asked[0].prompt.encode()) // 4), 1, "judge-2026")


def test_of_a_long_answer_the_beginning_is_kept(server: JudgeServer) -> None:
    answer = says("1" + "x" * 50_000).body
    server.behave = lambda number, asked: Answer({**answer, "model": "m" * 50_000})
    (verdict, _) = judged(server)
    assert (verdict.choice, len(verdict.raw)) == (1, 4000)
    assert verdict.usage is not None
    assert len(verdict.usage.model) == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nothing_is_sent_to_an_address_that_nobody_named(server: JudgeServer, status: int) -> None:
    with JudgeServer() as other:
        onward = other.url.replace("//", "//me:planted@")
        server.behave = lambda number, asked: Answer({}, status, {"location": f"{onward}/chat/completions?k=planted"})
        server.greet = Answer({}, status, {"location": f"{onward}/models"})
        for ask in (lambda: judged(server, key=KEY), lambda: reach(remote(server), None)):
            with pytest.raises(
                EnvironmentProblem, match=rf"{other.url}, where .* name it as judge.base_url"
            ) as problem:
                ask()
            assert "planted" not in str(problem.value)
        assert other.asked == []


# How it ends


def test_when_keeping_fails_nothing_more_is_sent_and_what_is_under_way_is_kept(server: JudgeServer) -> None:
    server.behave = lambda number, asked: says("1", delay=0.3 if number == 1 else 0.05)
    kept: list[str] = []

    def keep(verdict: Verdict) -> None:
        kept.append(f"{verdict.order} {verdict.instruction_id}")
        if len(kept) == 3:
            raise BudgetReached("enough")

    with pytest.raises(BudgetReached, match="enough"):
        open_judge(remote(server, concurrency=3)).judge(calls(10), keep=keep)
    assert len(kept) == len(set(kept)) == len(server.asked)
    assert 3 <= len(kept) <= 5


def test_waiting_calls_end_with_the_first_that_cannot_go_on(server: JudgeServer) -> None:
    first = threading.Event()

    def behave(number: int, asked: Asked) -> Answer:
        if not first.is_set():
            first.set()
            return fails(503, retry_after="60")
        return fails(401)

    server.behave = behave
    began = time.monotonic()
    with pytest.raises(EnvironmentProblem, match="wants a key"):
        judged(server, 3, concurrency=2)
    assert time.monotonic() - began < 10
    assert len(server.asked) == 2


def test_a_judge_can_be_asked_again_after_it_ended_badly(server: JudgeServer) -> None:
    server.behave = once(fails(401))
    judge = open_judge(remote(server))
    with pytest.raises(EnvironmentProblem):
        judge.judge(calls(1))
    assert [v.choice for v in judge.judge(calls(1))] == [2, 2]
