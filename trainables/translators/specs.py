"""Which translator a sweep names, and what of it determines a translation.

Addresses, projects, rates and retries are how the work is done; the engine, its model and its prompt's *text* are
what comes out. A service may change a model under the same name without a word: ``revision`` is a word of the
user's own (a month, say), and another word is another translation. An engine is one file beside this one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from trainables.addresses import Address, Host, KeyName
from trainables.base_models import BaseSource, parse_base
from trainables.errors import UserError
from trainables.paths import Named
from trainables.spec import Spec, identity, runtime

RESULT_VERSION = 1
"""Raised when the same text and engine are to give another translation (what is protected, how texts are cut)."""

PROMPTS = Path(__file__).parent / "prompts"


class _Remote(Spec):
    """What every service behind an address has: a pace, and patience."""

    paid: ClassVar[bool] = True
    whole: ClassVar[bool] = True
    """Whether a text keeps its lines in the engine."""
    limit: ClassVar[int] = 6000
    """Characters one string may have; a longer text is asked for line by line."""

    revision: str = identity("", description="a word of your own (a month, say); another word is another translation")
    parallel: int = runtime(16, ge=1, description="requests under way at once, over all languages")
    requests_per_minute: int | None = runtime(None, ge=1, description="over all languages; null: no limit")
    characters_per_minute: int | None = runtime(None, ge=1, description="over all languages; null: no limit")
    timeout: float = runtime(120.0, gt=0, description="seconds one request may take")
    tries: int = runtime(6, ge=1, description="how often a request is sent before the step is given up for now")


class GoogleTranslator(_Remote):
    """Google Cloud Translation, the third version of its interface."""

    engine: Literal["google"] = identity("google")
    model: str = identity("nmt", description="nmt, translation-llm, or projects/.../models/... for one of your own")
    project: str | None = runtime(None, description="the project that pays; default: that of your credentials")
    location: str = runtime("global", description="translation-llm and your own models need a region: us-central1")
    endpoint: Host | None = runtime(None, description="another host (translate-eu.googleapis.com), or an http:// one")
    requests_per_minute: int | None = runtime(3000, ge=1, description="over all languages; null: no limit")
    characters_per_minute: int | None = runtime(3_000_000, ge=1, description="over all languages; null: no limit")

    def payload(self) -> dict[str, Any]:
        """What determines a translation."""
        return {**self.identity(), "result_version": RESULT_VERSION}

    @property
    def label(self) -> str:
        """The translator's name in tables and paths."""
        return plain_name(f"google-{self.model.rpartition('/')[2]}")


class OpenAITranslator(_Remote):
    """A language model behind any server that speaks OpenAI's chat interface."""

    engine: Literal["openai"] = identity("openai")
    model: str = identity(description="the model's name, as the server knows it")
    prompt: Named = identity("plain", description="a shipped prompt, or the path of a text with {language} and {text}")
    temperature: float | None = identity(0.0, ge=0, description="null: not sent, for models that refuse it")
    base_url: Address = runtime("https://api.openai.com/v1", description="such as http://localhost:8000/v1")
    api_key_env: KeyName = runtime("OPENAI_API_KEY", description="NAME of the environment variable that holds the key")

    def payload(self) -> dict[str, Any]:
        """What determines a translation; the prompt counts by its text.

        Raises:
            UserError: no such prompt.
        """
        return {**self.identity(), "prompt": load_prompt(self.prompt), "result_version": RESULT_VERSION}

    @property
    def label(self) -> str:
        """The translator's name in tables and paths."""
        return plain_name(f"openai-{self.model}")


class LocalTranslator(Spec):
    """A model on this machine or cluster: one that was made to translate, or a causal one that is asked to."""

    paid: ClassVar[bool] = False
    engine: Literal["local"] = identity("local")
    model: Named = identity(description="a folder or hub name[@revision]; a causal one may be any base")
    architecture: Literal["seq2seq", "causal"] = identity("seq2seq")
    prompt: Named | None = identity(
        None, description="what the model is shown: a path or shipped name; default: plain if causal, else the text"
    )
    batch_size: int = runtime(16, ge=1, description="texts the model reads at once")

    def payload(self) -> dict[str, Any]:
        """What determines a translation: the model's identity and the prompt's text.

        Raises:
            UserError: no such model or prompt.
        """
        return {
            "engine": self.engine,
            "model": self.source.payload(),
            "architecture": self.architecture,
            "prompt": self.prompt_text,
            "result_version": RESULT_VERSION,
        }

    @property
    def whole(self) -> bool:
        """Whether a text keeps its lines in the model: sequence-to-sequence models lose them."""
        return self.architecture == "causal"

    @property
    def limit(self) -> int:
        """Characters one string may have; a longer line is cut where a sentence ends."""
        return 1500 if self.architecture == "causal" else 1000

    @property
    def source(self) -> BaseSource:
        """Where the model comes from.

        Raises:
            UserError: not a model, or one that is not sequence-to-sequence where that is asked for.
        """
        try:
            source = parse_base(self.model)
        except UserError as problem:
            raise UserError(f"corpus.translator.model: {str(problem).removeprefix('base: ')}") from None
        if self.architecture == "seq2seq" and source.kind not in ("folder", "hub"):
            raise UserError(
                f"corpus.translator.model: {self.model} is a causal model; set corpus.translator.architecture: causal"
            )
        return source

    @property
    def prompt_text(self) -> str:
        """What the model is shown, with its places {language}, {code} and {text}."""
        if self.prompt is not None:
            return load_prompt(self.prompt)
        return load_prompt("plain") if self.architecture == "causal" else "{text}"

    @property
    def label(self) -> str:
        """The translator's name in tables and paths."""
        return plain_name(f"local-{self.source.label}")


TranslatorSpec = Annotated[GoogleTranslator | OpenAITranslator | LocalTranslator, Field(discriminator="engine")]
"""``corpus.translator`` in a sweep file, told apart by ``engine``."""


def load_prompt(name_or_path: str) -> str:
    """The text of a shipped prompt by name, or of a file by path.

    Raises:
        UserError: no such prompt, or it lacks ``{text}``.
    """
    path = PROMPTS / f"{name_or_path}.txt"
    if "/" in name_or_path or not path.is_file():
        path = Path(name_or_path).expanduser()
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        names = ", ".join(sorted(file.stem for file in PROMPTS.glob("*.txt")))
        raise UserError(
            f"corpus.translator.prompt: {name_or_path!r} is neither a shipped prompt ({names}) nor a text file in UTF-8"
        ) from None
    if text.count("{text}") != 1:
        raise UserError(f"{path}: {{text}} stands there {text.count('{text}')} times; it must stand there once")
    return text


def plain_name(text: str) -> str:
    """A name that may be part of a file's: letters, digits, dot, dash."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")
