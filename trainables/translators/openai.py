"""A language model behind any server that speaks OpenAI's interface, asked to translate one string a request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pydantic import SecretStr

from trainables.endpoint import Endpoint, Unanswerable, Where
from trainables.patience import Turn, each
from trainables.translators.engine import Answer, Keep, Target
from trainables.translators.specs import OpenAITranslator, load_prompt

FEWEST_TOKENS, TOKENS_PER_CHARACTER = 256, 2
"""How much may be written: in some scripts a translation takes two tokens for a character of English."""


class OpenAIEngine:
    """See :class:`trainables.translators.engine.Engine`. It holds no connection between two calls."""

    def __init__(self, spec: OpenAITranslator, key: SecretStr | None, turn: Turn, parallel: int) -> None:
        self._prompt, self._parallel = load_prompt(spec.prompt), parallel
        where = Where(
            role="corpus.translator",
            url=spec.base_url,
            key=key,
            key_name=spec.api_key_env,
            settings="corpus.translator.temperature",
        )
        options = {} if spec.temperature is None else {"temperature": spec.temperature}
        self._endpoint = Endpoint(where, spec.model, True, options, spec.tries, spec.timeout, turn)

    def translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        asyncio.run(self._translate(strings, target, keep))

    def close(self) -> None:
        """Nothing is held."""

    async def _translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        async def work(string: str) -> None:
            keep({string: await self._answer(string, target)})

        async with self._endpoint.open():
            await each(strings, work, min(self._parallel, len(strings)), self._endpoint.end)

    async def _answer(self, string: str, target: Target) -> Answer:
        """An answer that was cut short is none: its end would be missing."""
        prompt = filled(self._prompt, string, target)
        most = FEWEST_TOKENS + TOKENS_PER_CHARACTER * len(string)
        try:
            reply = await self._endpoint.ask(prompt, most, len(string))
        except Unanswerable as problem:
            return Answer("", 0, refused=str(problem))
        text = "" if reply.cut else reply.text
        return Answer(text, len(string), reply.prompt_tokens, reply.completion_tokens, reply.model)


def filled(prompt: str, string: str, target: Target) -> str:
    """A prompt with its places filled: ``{language}``, ``{code}`` and, once, ``{text}``."""
    before, after = prompt.split("{text}")
    before, after = (part.replace("{language}", target.name).replace("{code}", target.code) for part in (before, after))
    return before + string + after
