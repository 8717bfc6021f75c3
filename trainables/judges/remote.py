"""The remote judge: a language model behind an endpoint, asked over the network.

Several calls are under way at once, and never more than ``concurrency``. Every verdict is handed over the moment it is
there, because it has been paid for; when the judging ends early, for whatever reason, nothing more is sent, and what
is under way is waited for and handed over too. An answer that is not 1 or 2 is asked again with the prompt's reminder,
``tries`` times in all, and then stands without a choice.

The model's tokenizer is not known here. Lengths are counted in bytes of UTF-8, and whatever begins a control token
somewhere is spelled so that it is none. Whether a prompt is a turn in a chat or plain text is its setting ``chat``,
as for a local judge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from trainables.endpoint import BYTES_PER_TOKEN, Endpoint, Unanswerable, Where
from trainables.errors import EnvironmentProblem, UserError
from trainables.judges.calls import Call, Usage, Verdict, parsed
from trainables.judges.cutting import NoRoom, fitted
from trainables.judges.prompt import JudgePrompt, defused, load_prompt
from trainables.judges.specs import RemoteJudge
from trainables.patience import Pace, each

CONTROL = ["<|", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]"]
"""How control tokens begin, or are spelled, in the tokenizers of common chat models."""
RAW = 4000
"""Characters of what a judge said that are kept; it was asked for one digit."""


@dataclass(frozen=True)
class Question:
    """A call as text, for the first time and for when it is asked again."""

    text: str
    again: str
    cut: str


class EndpointJudge:
    """See :class:`trainables.judges.calls.Judge`. It holds no connection between two rounds of calls."""

    def __init__(self, spec: RemoteJudge, prompt: JudgePrompt, key: SecretStr | None = None) -> None:
        self._spec, self._prompt = spec, prompt
        self._chat = prompt.settings.chat == "auto"
        where = Where(
            role="judge",
            url=spec.base_url,
            key=key,
            key_name=spec.api_key_env,
            settings="the settings in the prompt's judge.yaml",
        )
        options = {"temperature": 0} | ({} if spec.seed is None else {"seed": spec.seed})
        turn = Pace(spec.requests_per_minute).turn
        self._endpoint = Endpoint(where, spec.model, self._chat, options, spec.retries + 1, spec.timeout, turn)
        self._answers = False

    def judge(
        self,
        calls: Sequence[Call],
        on_progress: Callable[[int, int], None] | None = None,
        keep: Callable[[Verdict], None] | None = None,
    ) -> list[Verdict]:
        """One verdict per call, asked in the order of the prompts, so that common beginnings follow one another.

        Raises:
            EnvironmentProblem: the endpoint refuses the key, the model or the settings; with the cure.
            Unreachable: it did not answer for longer than the retries last.
            UserError: the prompt is too long even without its texts.
        """
        return asyncio.run(self._judge(calls, on_progress, keep))

    def reach(self) -> None:
        """See that somebody is there, for nothing.

        Raises:
            EnvironmentProblem: the endpoint does not take the key, or wants one; with the cure.
            Unreachable: it did not answer for longer than the retries last.
        """

        async def reach() -> None:
            async with self._endpoint.open():
                await self._endpoint.reach()

        asyncio.run(reach())

    def close(self) -> None:
        """Nothing is held."""

    async def _judge(
        self,
        calls: Sequence[Call],
        on_progress: Callable[[int, int], None] | None,
        keep: Callable[[Verdict], None] | None,
    ) -> list[Verdict]:
        questions = [self.question(call) for call in calls]
        order = sorted(range(len(calls)), key=lambda place: questions[place].text)
        verdicts: dict[int, Verdict] = {}
        refused: list[Verdict] = []  # until one call is answered: that the endpoint is not the one that is wrong

        def take(place: int, verdict: Verdict) -> None:
            verdicts[place] = verdict
            self._answers = self._answers or _answered(verdict)
            refused.append(verdict)
            while self._answers and refused:
                one = refused.pop()
                if keep:
                    keep(one)

        async def work(place: int) -> None:
            take(place, await self._verdict(calls[place], questions[place]))
            if on_progress:
                on_progress(len(verdicts), len(calls))

        async with self._endpoint.open():
            await each(order, work, min(self._spec.concurrency, len(calls)), self._endpoint.end)
        if refused:
            raise EnvironmentProblem(
                f"judge: {self._spec.base_url} answers no call at all ({refused[0].raw}); mend judge.model or the "
                "settings in the prompt's judge.yaml"
            )
        return [verdicts[place] for place in range(len(calls))]

    async def _verdict(self, call: Call, question: Question) -> Verdict:
        """Ask until the answer can be read, or no more."""
        started = time.perf_counter()
        choice, said, used = None, "", Usage(0, 0, "")
        for number in range(self._prompt.settings.tries):
            try:
                reply = await self._endpoint.ask(
                    question.again if number else question.text, self._prompt.settings.parse_tokens
                )
            except Unanswerable as problem:
                said = f"refused: {problem}"
                break
            used = Usage(
                used.prompt_tokens + reply.prompt_tokens,
                used.completion_tokens + reply.completion_tokens,
                reply.model,
            )
            choice, said = parsed(reply.text), reply.text[:RAW]
            if choice is not None:
                break
        seconds = time.perf_counter() - started
        return Verdict(call.instruction_id, call.order, choice, said + question.cut, seconds, used)

    def question(self, call: Call) -> Question:
        """The call's prompt, its texts cut where it would be too long.

        Raises:
            UserError: the prompt is too long even without its texts.
        """
        texts = {name: defused(getattr(call, name), CONTROL) for name in ("instruction", "first", "second")}
        limit = self._prompt.settings.max_prompt_tokens
        try:
            texts, cut = fitted(
                texts,
                limit * BYTES_PER_TOKEN,
                "bytes",
                measure=lambda texts: len(self._text(texts, again=True).encode()),
                length=lambda text: len(text.encode()),
                beginning=lambda text, count: text.encode()[:count].decode(errors="ignore"),
            )
        except NoRoom:
            raise UserError(
                f"judge: the prompt {self._prompt.name} alone takes more than {limit} tokens; raise max_prompt_tokens "
                "in its judge.yaml"
            ) from None
        return Question(self._text(texts, again=False), self._text(texts, again=True), cut)

    def _text(self, texts: dict[str, str], again: bool) -> str:
        text = self._prompt.fill(**texts, again=again)
        return text if self._chat else text + self._prompt.settings.plain_ending


def reach(spec: RemoteJudge, key: SecretStr | None) -> None:
    """As :meth:`EndpointJudge.reach`, of the judge a spec names."""
    EndpointJudge(spec, load_prompt(spec.prompt), key).reach()


def _answered(verdict: Verdict) -> bool:
    return bool(verdict.usage and verdict.usage.model)
