"""Services that translate, on loopback: what `tests.judge_server` answers with, in each engine's protocol."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.judge_server import Answer, Asked, says
from trainables.translators.specs import load_prompt

FINNISH = ("Tämä lause on kirjoitettu suomeksi", "Seuraava rivi kertoo jotakin muuta", "Kolmas asia on vielä kesken")
_MARK = re.compile(r"⟦\d+⟧|<x\d+/>")
Saying = Callable[[str], str]


def shouted(text: str) -> str:
    """Upper case, marks and lines kept."""
    kept = _MARK.findall(text)
    parts = [part.upper() for part in _MARK.split(text)]
    return "".join(part + mark for part, mark in zip(parts, [*kept, ""], strict=True))


def finnish(text: str) -> str:
    """Something in Finnish for every line, about as long, with the line's marks at its end."""
    return "\n".join(_finnish_line(line) if line.strip() else line for line in text.split("\n"))


def strings_of(asked: Asked) -> list[str]:
    """What a request wants translated, in either protocol."""
    if "contents" in asked.body:
        return list(asked.body["contents"])
    before, after = load_prompt("plain").split("{text}")
    return [asked.prompt[len(before) - len("{language}") + len(_language(asked)) :].removesuffix(after)]


def openai_says(asked: Asked, saying: Saying = shouted, delay: float = 0.0) -> Answer:
    """A chat completion."""
    return says(saying(strings_of(asked)[0]), 100, 50, delay)


def google_says(asked: Asked, saying: Saying = shouted, delay: float = 0.0) -> Answer:
    """A TranslateTextResponse."""
    said = [{"translatedText": saying(string), "model": asked.body["model"]} for string in strings_of(asked)]
    return Answer({"translations": said}, delay=delay)


def google_fails(status: int, message: str = "no", **headers: str) -> Answer:
    """An error as Google words it."""
    return Answer({"error": {"code": status, "message": message, "status": "X"}}, status, headers)


def cut_short(answer: Answer) -> Answer:
    """The same answer, broken off in the middle of its body."""
    import json

    whole = json.dumps(answer.body).encode()
    headers = {"content-length": str(len(whole)), "connection": "close"}
    return Answer(raw=whole[: len(whole) // 2], headers=headers)


def _language(asked: Asked) -> str:
    found = re.search(r"from English into (\w+)\.", asked.prompt)
    assert found is not None, asked.prompt
    return found[1]


def _finnish_line(line: str) -> str:
    words = FINNISH[len(line) % len(FINNISH)]
    many = max(1, round(len(line) / (len(words) + 2)))
    return " ".join([". ".join([words] * many) + ".", *_MARK.findall(line)])
