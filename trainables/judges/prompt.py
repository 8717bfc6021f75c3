"""A judge's prompt is data: a folder with ``prompt.txt`` and ``judge.yaml``.

The texts it is filled with are other people's words. They may contain braces, ``Answer1:`` or a chat model's control
tokens; none of that may change the prompt's structure. So places are filled in one pass that never looks at what was
filled in, and control tokens inside the texts are spelled so that no tokenizer takes them for its own.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from trainables.addresses import private
from trainables.errors import UserError, shown
from trainables.plain_yaml import read_file
from trainables.spec import Spec, identity, runtime

SHIPPED = Path(__file__).parent / "prompts"
PLACES = ("instruction", "first", "second")
_PLACE = re.compile(r"\{(" + "|".join(PLACES) + r")\}")


class PromptSettings(Spec):
    """The content of ``judge.yaml``."""

    description: str = runtime("")
    source: str = runtime("")
    chat: Literal["auto", "never"] = identity("auto", description="use the tokenizer's chat template where it has one")
    plain_ending: str = identity(
        "\nBetter answer:", description="what follows the prompt where there is no chat template"
    )
    max_prompt_tokens: int = identity(3072, ge=64, description="longer prompts have their texts cut")
    parse_tokens: int = identity(8, ge=1, description="written where the model cannot be held to one digit")
    tries: int = identity(3, ge=1, description="how often a call is asked until its answer can be read")
    reminder: str = identity(
        "Answer with nothing but the digit 1 or 2.", description="stands under the prompt when it is asked again"
    )


@dataclass(frozen=True)
class JudgePrompt:
    """A prompt's ``name``, its ``text`` with the places {instruction}, {first} and {second}, and its settings."""

    name: str
    text: str
    settings: PromptSettings

    def payload(self) -> dict[str, Any]:
        """What determines a verdict: text and settings, not the name."""
        return {"text": self.text, **self.settings.identity()}

    def fill(self, instruction: str, first: str, second: str, again: bool = False) -> str:
        """The prompt with its three texts in place, whatever they contain; asked ``again``, the reminder under it."""
        texts = {"instruction": instruction, "first": first, "second": second}
        filled = _PLACE.sub(lambda place: texts[place[1]], self.text)
        return f"{filled}\n{self.settings.reminder}" if again else filled


def load_prompt(name_or_path: str) -> JudgePrompt:
    """A shipped prompt by name, or a folder by path.

    Raises:
        UserError: no such prompt, a place missing or doubled, or a key of ``judge.yaml`` that is not one.
    """
    folder = SHIPPED / name_or_path
    if "/" in name_or_path or not folder.is_dir():
        folder = Path(name_or_path).expanduser()
    if not (folder / "prompt.txt").is_file():
        names = sorted(entry.name for entry in SHIPPED.iterdir() if entry.is_dir())
        raise UserError(
            f"judge.prompt: {name_or_path!r} is neither a shipped judge prompt ({', '.join(names)}) nor a folder with "
            "prompt.txt and judge.yaml"
        )
    try:
        text = (folder / "prompt.txt").read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{folder / 'prompt.txt'}: cannot be read ({problem}); give a text file in UTF-8") from None
    for place in PLACES:
        count = text.count(f"{{{place}}}")
        if count != 1:
            raise UserError(
                f"{folder / 'prompt.txt'}: {{{place}}} stands there {count} times; it must stand there once"
            )
    return JudgePrompt(folder.name, text, _settings(folder / "judge.yaml"))


def _settings(file: Path) -> PromptSettings:
    if not file.is_file():
        return PromptSettings()
    content = read_file(file) or {}
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold keys and values; found {type(content).__name__}")
    for key in content:
        if key not in PromptSettings.model_fields:
            near = difflib.get_close_matches(str(key), PromptSettings.model_fields, 1)
            known = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(PromptSettings.model_fields)}"
            raise UserError(f"{file}: unknown key {shown(key)}; {known}")
    try:
        return PromptSettings(**content)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"]))
        found = "" if private(where, first["input"]) else f", found {shown(first['input'])}"
        raise UserError(f"{file}: {where}: {first['msg']}{found}") from problem


def defused(text: str, control_tokens: list[str]) -> str:
    """``text`` in which no control token of the judge's tokenizer is left: ``<|im_end|>`` becomes ``< |im_end|>``."""
    for token in control_tokens:
        if len(token) > 1:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def control_tokens(tokenizer: Any) -> list[str]:
    """The strings a tokenizer reads as control tokens, longest first."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))
