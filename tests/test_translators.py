"""Engines that translate, against real services that misbehave: what passes is waited for, what does not is said."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from tests.judge_server import Answer, Asked, JudgeServer, fails
from tests.translation_server import cut_short, google_fails, google_says, openai_says, shouted, strings_of
from trainables import patience
from trainables.errors import BudgetReached, EnvironmentProblem, Unreachable
from trainables.translators import Answer as Translated
from trainables.translators import Engine, GoogleTranslator, OpenAITranslator, Target, open_translator
from trainables.translators.courses import Courses, digest
from trainables.translators.engine import packed
from trainables.translators.google import CHARACTERS, STRINGS

FINNISH = Target("fi", "Finnish")
KEY = "planted-19c2e7-secret"
SAYS: dict[str, Callable[..., Answer]] = {"openai": openai_says, "google": google_says}
FAILS: dict[str, Callable[..., Answer]] = {"openai": fails, "google": google_fails}
protocols = pytest.mark.parametrize("protocol", ["openai", "google"])


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as one:
        yield one


def opened(server: JudgeServer, protocol: str, **settings: Any) -> Engine:
    unpaced = {"requests_per_minute": None, "characters_per_minute": None}
    asked = {"parallel": 2, "timeout": 5.0, "tries": 3, **unpaced, **settings}
    if protocol == "openai":
        return open_translator(OpenAITranslator(model="m", base_url=server.url, **asked), key=SecretStr(KEY))
    return open_translator(GoogleTranslator(endpoint=f"http://127.0.0.1:{server.port}", **asked))


def translated(engine: Engine, strings: list[str]) -> dict[str, str]:
    """What was kept; a string kept twice is an error."""
    kept: dict[str, str] = {}

    def keep(answers: Mapping[str, Translated]) -> None:
        assert not kept.keys() & answers.keys()
        kept.update({string: answer.text for string, answer in answers.items()})

    engine.translate(strings, FINNISH, keep)
    return kept


def well(protocol: str, *bad: Answer) -> Callable[[int, Asked], Answer]:
    """Badly at first, well after that."""
    return lambda number, asked: bad[number] if number < len(bad) else SAYS[protocol](asked)


# What goes right


@protocols
def test_every_string_is_translated_and_asked_for_once(server: JudgeServer, protocol: str) -> None:
    server.behave = well(protocol)
    strings = [f"Line {number}\nand ⟦{number}⟧" for number in range(100)]
    assert translated(opened(server, protocol), strings) == {string: shouted(string) for string in strings}
    assert Counter(string for asked in server.asked for string in strings_of(asked)) == Counter(strings)
    assert len(server.asked) == (100 if protocol == "openai" else 1)


def test_google_is_asked_in_its_own_words(server: JudgeServer) -> None:
    server.behave = well("google")
    translated(opened(server, "google", project="p", location="us-central1", model="translation-llm"), ["One."])
    asked = server.asked[0]
    parent = "projects/p/locations/us-central1"
    assert asked.path.split("?")[0] == f"/v3/{parent}:translateText"
    assert asked.body == {
        "contents": ["One."],
        "mimeType": "text/plain",
        "sourceLanguageCode": "en",
        "targetLanguageCode": "fi",
        "model": f"{parent}/models/general/translation-llm",
    }
    assert not asked.authorization, "nobody's credentials go to an http:// endpoint"


def test_google_gets_no_more_in_a_request_than_it_takes(server: JudgeServer) -> None:
    server.behave = well("google")
    strings = [f"{number} " + "x" * (number * 7 % 900) for number in range(400)]
    translated(opened(server, "google"), strings)
    for asked in server.asked:
        assert len(strings_of(asked)) <= STRINGS
        assert sum(map(len, strings_of(asked))) <= CHARACTERS
    assert list(packed(["a" * 9, "b"], 5, 3)) == [["a" * 9], ["b"]], "one string alone may be longer"


def test_a_chat_model_is_asked_for_one_string_with_its_prompt_and_settings(server: JudgeServer) -> None:
    server.behave = well("openai")
    translated(opened(server, "openai"), ["Say {language} or {text}."])
    body = server.asked[0].body
    assert server.asked[0].path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 256 + 2 * 25)
    assert "from English into Finnish" in server.asked[0].prompt
    assert server.asked[0].prompt.endswith("\n\nSay {language} or {text}.")
    translated(opened(server, "openai", temperature=None), ["One"])
    assert "temperature" not in server.asked[1].body


def test_an_answer_that_was_cut_off_is_none(server: JudgeServer) -> None:
    def behave(number: int, asked: Asked) -> Answer:
        answer = openai_says(asked)
        answer.body["choices"][0]["finish_reason"] = "length"
        return answer

    server.behave = behave
    assert translated(opened(server, "openai"), ["One"]) == {"One": ""}


def test_a_text_that_a_service_refuses_is_none_and_costs_nothing(server: JudgeServer) -> None:
    kept: dict[str, Translated] = {}
    server.behave = lambda number, asked: (
        fails(400, "flagged by the content filter") if "Two" in asked.prompt else openai_says(asked)
    )
    opened(server, "openai").translate(["One", "Two"], FINNISH, kept.update)
    assert kept["Two"] == Translated("", 0, refused="400: flagged by the content filter")
    assert kept["One"] == Translated("ONE", 3, 100, 50, "judge-2026")


@protocols
def test_there_are_never_more_requests_under_way_than_allowed(server: JudgeServer, protocol: str) -> None:
    server.behave = lambda number, asked: SAYS[protocol](asked, delay=0.05)
    strings = [f"{number} " + "x" * 4000 for number in range(9)]
    translated(opened(server, protocol, parallel=3), strings)
    assert server.most_at_once == 3
    assert len(server.asked) == 9


@protocols
def test_requests_and_characters_keep_their_pace(server: JudgeServer, protocol: str) -> None:
    server.behave = well(protocol)
    strings = [f"{number} " + "x" * 3000 for number in range(6)]
    translated(opened(server, protocol, parallel=4, requests_per_minute=600), strings)
    times = [asked.at for asked in server.asked]
    assert times[-1] - times[0] >= 0.45
    server.asked.clear()
    translated(opened(server, protocol, parallel=4, characters_per_minute=3_600_000), strings)
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(server.asked)]
    assert sum(gaps) >= 5 * 0.05 * 0.9
    server.asked.clear()
    translated(opened(server, protocol, parallel=4), strings)
    assert server.asked[-1].at - server.asked[0].at < 0.2, "and no other"


# What passes


@protocols
@pytest.mark.parametrize("fault", ["busy", "error", "unavailable", "broken off", "cut short", "no JSON", "empty"])
def test_what_passes_by_itself_is_tried_again(server: JudgeServer, protocol: str, fault: str) -> None:
    bad = {
        "busy": FAILS[protocol](429),
        "error": FAILS[protocol](500),
        "unavailable": FAILS[protocol](503),
        "broken off": Answer(status=0),
        "cut short": cut_short(Answer({"translations": [{"translatedText": "ABC"}], "choices": []})),
        "no JSON": Answer(raw=b'{"translations": [{"transl'),
        "empty": Answer({"error": {"message": "upstream"}}) if protocol == "openai" else Answer({"translations": []}),
    }[fault]
    server.behave = well(protocol, bad)
    assert translated(opened(server, protocol, parallel=1), ["One", "Two"]) == {"One": "ONE", "Two": "TWO"}
    assert len(server.asked) == (3 if protocol == "openai" else 2)
    assert strings_of(server.asked[0]) == strings_of(server.asked[1])


@protocols
def test_a_server_that_says_when_is_asked_no_sooner(server: JudgeServer, protocol: str) -> None:
    server.behave = well(protocol, FAILS[protocol](429, retry_after="0.6"))
    translated(opened(server, protocol), ["One"])
    assert server.asked[1].at - server.asked[0].at >= 0.6


@protocols
def test_waits_grow_where_the_server_says_nothing(
    server: JudgeServer, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.1)
    server.behave = well(protocol, *[FAILS[protocol](500)] * 3)
    translated(opened(server, protocol, tries=4), ["One"])
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(server.asked)]
    assert gaps[0] < gaps[1] < gaps[2]


@protocols
def test_a_request_that_hangs_is_given_up_and_sent_again(server: JudgeServer, protocol: str) -> None:
    server.behave = lambda number, asked: SAYS[protocol](asked, delay=3 if number == 0 else 0)
    began = time.monotonic()
    assert translated(opened(server, protocol, timeout=0.4), ["One"]) == {"One": "ONE"}
    assert time.monotonic() - began < 2.5
    assert len(server.asked) == 2


@protocols
def test_a_service_that_is_away_is_said_to_be_and_what_it_answered_is_kept(server: JudgeServer, protocol: str) -> None:
    server.behave = lambda number, asked: SAYS[protocol](asked) if number < 2 else FAILS[protocol](502, "bad gateway")
    strings = [f"{number} " + "x" * 4000 for number in range(5)]
    kept: dict[str, Translated] = {}
    with pytest.raises(Unreachable, match=r"corpus\.translator: http.* gave no answer in 3 tries .*bad gateway"):
        opened(server, protocol, parallel=1).translate(strings, FINNISH, kept.update)
    assert list(kept) == strings[:2]
    assert len(server.asked) == 2 + 3
    with JudgeServer() as gone:
        engine = opened(gone, protocol, tries=2)
    with pytest.raises(Unreachable, match="gave no answer in 2 tries"):
        translated(engine, ["One"])


# What does not pass


@protocols
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_does_not_pass_is_said_at_once_with_its_cure(server: JudgeServer, protocol: str, status: int) -> None:
    server.behave = lambda number, asked: FAILS[protocol](status, f"wrong: {asked.authorization}!")
    told = "Anonymous credentials" if (protocol, status) == ("google", 401) else rf"{status}: wrong: .*!"
    with pytest.raises(EnvironmentProblem, match=rf"corpus\.translator: .*{told}.*; ") as problem:
        translated(opened(server, protocol, parallel=1), ["One", "Two"])
    assert len(server.asked) == 1
    assert KEY not in str(problem.value)
    assert "\n" not in str(problem.value)


def test_google_without_credentials_says_how_to_get_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(EnvironmentProblem, match="gcloud auth application-default login"):
        open_translator(GoogleTranslator())


@protocols
def test_when_keeping_fails_nothing_more_is_sent_and_what_is_under_way_is_kept(
    server: JudgeServer, protocol: str
) -> None:
    server.behave = lambda number, asked: SAYS[protocol](asked, delay=0.3 if number == 1 else 0.05)
    kept: list[str] = []

    def keep(answers: Mapping[str, Translated]) -> None:
        kept.extend(answers)
        if len(kept) == 3:
            raise BudgetReached("enough")

    with pytest.raises(BudgetReached, match="enough"):
        opened(server, protocol, parallel=3).translate([f"{n} " + "x" * 4000 for n in range(12)], FINNISH, keep)
    assert len(kept) == len(set(kept)) == len(server.asked)
    assert 3 <= len(kept) <= 5


@protocols
def test_a_turn_that_is_refused_ends_the_work_before_the_request(server: JudgeServer, protocol: str) -> None:
    server.behave = well(protocol)
    turns = iter([4001, 4001])
    told: list[int] = []
    lock = threading.Lock()

    async def turn(characters: int) -> float:
        with lock:
            told.append(characters)
            if next(turns, None) is None:
                raise BudgetReached("enough")
        return 0.0

    spec = {
        "openai": OpenAITranslator(model="m", base_url=server.url),
        "google": GoogleTranslator(endpoint=f"http://127.0.0.1:{server.port}"),
    }[protocol]
    kept: dict[str, Translated] = {}
    with pytest.raises(BudgetReached):
        open_translator(spec, turn=turn, parallel=1).translate(
            [f"{n}" + "x" * 4000 for n in range(5)], FINNISH, kept.update
        )
    assert len(kept) == len(server.asked) == 2
    assert told == [4001] * 3


# With what must survive


@protocols
def test_code_addresses_braces_and_lines_survive_a_service(server: JudgeServer, protocol: str) -> None:
    text = "Call `f(x)` now:\n\n```python\nf(x)  # here\n```\n- see https://a.b/c and {0}\n  Bye"
    server.behave = lambda number, asked: SAYS[protocol](
        asked, lambda string: shouted(string) if number else shouted(string).replace("⟦0⟧", "")
    )
    courses, known = Courses([text], whole=True, limit=1000), {}
    engine = opened(server, protocol)
    while wanted := courses.wanted(known):
        known |= {digest(string): answer for string, answer in translated(engine, wanted).items()}
    assert courses.done[text].text == (
        "CALL `f(x)` NOW:\n\n```python\nf(x)  # here\n```\n- SEE https://a.b/c AND {0}\n  BYE"
    )
    assert courses.done[text].left == 0
    assert len(server.asked) == 2, "only the line that lost its mark was asked for again"
