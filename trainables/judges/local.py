"""The local judge: a language model on an engine reads both answers and is held to one digit.

The answer is the likelier of the two tokens that spell 1 and 2, which is greedy decoding (paper section 2) restricted
to what the prompt demands: no verdict is lost to chatter. Which tokens these are depends on the tokenizer and on how
the prompt ends (some spell " 1" as one token, some as two), so it is found by spelling out both continuations of the
very prompt. Where they differ in more than one token, the model writes freely and its answer is parsed. What cannot
be read is asked once more with the prompt's reminder (more often would be no use: decoding is greedy), and then has no
choice.

A prompt longer than the judge's limit has its texts cut (:mod:`trainables.judges.cutting`), which ``raw`` says.

Prompts are asked in the order of their tokens, so that those with a common beginning follow one another and the
engine's prefix cache reads it once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.batches import CHAT, prompt_ids, template_text
from trainables.errors import UserError
from trainables.generate import Engine, Prompt, Sampling
from trainables.judges.calls import Call, Choice, Verdict, parsed
from trainables.judges.cutting import NoRoom, fitted
from trainables.judges.prompt import JudgePrompt, control_tokens, defused


@dataclass(frozen=True)
class Question:
    """A call as tokens. ``options``: the ids that say 1 and 2 after them, None where the answer is to be parsed."""

    token_ids: list[int]
    options: tuple[int, int] | None
    cut: str


class ModelJudge:
    """See :class:`trainables.judges.calls.Judge`. It owns its engine and closes it."""

    def __init__(self, engine: Engine, prompt: JudgePrompt) -> None:
        self._engine = engine
        self._writer = Writer(engine.tokenizer, prompt, engine.max_model_len - prompt.settings.parse_tokens)
        self._tries = prompt.settings.tries
        self._parse = Sampling(temperature=0, max_new_tokens=prompt.settings.parse_tokens)

    def judge(
        self,
        calls: Sequence[Call],
        on_progress: Callable[[int, int], None] | None = None,
        keep: Callable[[Verdict], None] | None = None,
    ) -> list[Verdict]:
        """One verdict per call; ``seconds`` is the total divided by the calls, for they are answered together."""
        started = time.perf_counter()
        questions = [self._writer.question(call) for call in calls]
        order = sorted(range(len(calls)), key=lambda place: questions[place].token_ids)
        said: dict[int, tuple[Choice | None, str]] = {}

        def progress(done: int, _: int) -> None:
            if on_progress:
                on_progress(finished + done, len(calls))

        for options in dict.fromkeys(questions[place].options for place in order):
            places = [place for place in order if questions[place].options == options]
            finished = len(said)
            if options is None:
                said |= self._written({place: questions[place] for place in places}, progress)
            else:
                chosen = self._engine.choose([questions[place].token_ids for place in places], options, progress)
                for place, token in zip(places, chosen, strict=True):
                    said[place] = (1, "1") if token == options[0] else (2, "2")
        if self._tries > 1 and (unread := [place for place in order if said[place][0] is None]):
            said |= self._written({place: self._writer.question(calls[place], again=True) for place in unread}, None)
        seconds = (time.perf_counter() - started) / max(1, len(calls))
        verdicts = [
            Verdict(call.instruction_id, call.order, said[place][0], said[place][1] + questions[place].cut, seconds)
            for place, call in enumerate(calls)
        ]
        for verdict in verdicts if keep else ():
            keep(verdict)  # type: ignore[misc]
        return verdicts

    def _written(
        self, questions: dict[int, Question], on_progress: Callable[[int, int], None] | None
    ) -> dict[int, tuple[Choice | None, str]]:
        prompts = [Prompt(str(place), question.token_ids) for place, question in questions.items()]
        responses = self._engine.generate(prompts, self._parse, on_progress)
        return {int(response.id): (parsed(response.text), response.text) for response in responses}

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class Writer:
    """Turns calls into token ids of at most ``limit``; knows the tokenizer, not the model."""

    def __init__(self, tokenizer: Any, prompt: JudgePrompt, limit: int) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._limit = min(limit, prompt.settings.max_prompt_tokens)
        self._control = control_tokens(tokenizer)
        self._chat = prompt.settings.chat == "auto" and bool(getattr(tokenizer, "chat_template", None))
        self._template = template_text(CHAT, tokenizer) if self._chat else None

    def question(self, call: Call, again: bool = False) -> Question:
        """The call's prompt, its texts cut where it would be too long; with the reminder when it is asked ``again``.

        Raises:
            UserError: the prompt is too long even without its texts.
        """
        texts = {
            "instruction": defused(call.instruction, self._control),
            "first": defused(call.first, self._control),
            "second": defused(call.second, self._control),
        }
        ids, options = self._tokens(texts, again)
        if len(ids) <= self._limit:
            return Question(ids, options, "")
        try:
            texts, cut = fitted(
                texts,
                self._limit,
                "tokens",
                measure=lambda texts: len(self._tokens(texts, again)[0]),
                length=lambda text: len(self._encode(text)),
                beginning=self._beginning,
            )
        except NoRoom:
            raise UserError(
                f"judge: the prompt {self._prompt.name} alone takes more than {self._limit} tokens of this model; "
                "raise max_prompt_tokens in its judge.yaml or name a judge with a longer context"
            ) from None
        ids, options = self._tokens(texts, again)
        return Question(ids, options, cut)

    def _tokens(self, texts: dict[str, str], again: bool) -> tuple[list[int], tuple[int, int] | None]:
        text = self._prompt.fill(**texts, again=again)
        text = self._template.prompt(text) if self._template else text + self._prompt.settings.plain_ending
        return answer_options(self._tokenizer, text, leads=("", " ") if self._chat else (" ", ""))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _beginning(self, text: str, count: int) -> str:
        ids = self._encode(text)[:count]
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)).rstrip("\ufffd")


def answer_options(tokenizer: Any, text: str, leads: Sequence[str]) -> tuple[list[int], tuple[int, int] | None]:
    """The ids of a prompt and the two ids of which the next one says 1 or 2.

    ``leads`` are what may stand before the digit, the likeliest first. The ids returned are those that both spelled-out
    continuations share, so they may hold a token of the lead. None where two single tokens cannot decide.
    """
    for lead in leads:
        one, two = (prompt_ids(tokenizer, f"{text}{lead}{digit}") for digit in "12")
        shared = next((place for place, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), 0)
        if shared and len(one) == len(two) == shared + 1:
            return one[:shared], (one[-1], two[-1])
    return prompt_ids(tokenizer, text), None
