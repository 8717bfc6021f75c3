"""The sweep file: what a user asks for, validated, and where each setting came from.

A sweep names a corpus, a base model, a recipe, sampling, a judge, seeds and studies; ``runtime`` says how to run
it and never what comes out. Unknown keys are refused with the nearest known one. Relative paths in a sweep are
relative to the folder `pinch` is run in.

This module must never know how steps are keyed, stored or run.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import re
import shlex
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, ValidationError, field_validator, model_validator

from orchestrator.languages import Language, any_language, language
from orchestrator.studies import Studies
from orchestrator.sweep_errors import explain
from trainables.addresses import private
from trainables.errors import UserError, cut
from trainables.judges import JudgeSpec, ReferenceJudge
from trainables.parallel import Parallel
from trainables.paths import Named, looked_for
from trainables.plain_yaml import NotYaml, read_file, read_text
from trainables.recipe import Recipe
from trainables.sampling import Sampling
from trainables.spec import NAME, Spec, identity, runtime
from trainables.translators import GoogleTranslator, TranslatorSpec


class _CorpusSpec(Spec):
    languages: tuple[str, ...] = identity(min_length=1)
    train_count: int = identity(4640, ge=1, description="examples in every training set, dev ones included")
    dev_count: int = identity(250, ge=1, description="of these, held out to select the checkpoint")
    eval_count: int = identity(617, ge=1, description="eval instructions per language")

    look_up: ClassVar[Callable[[str], Language]] = language
    """Which languages there can be; raises UserError for others."""

    @field_validator("languages")
    @classmethod
    def _known_and_distinct(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            try:
                cls.look_up(code)
            except UserError as problem:
                raise ValueError(str(problem)) from None
        return distinct(codes, "languages")

    @model_validator(mode="after")
    def _dev_is_a_part(self) -> _CorpusSpec:
        if self.dev_count >= self.train_count:
            raise ValueError(
                f"dev_count {self.dev_count} leaves nothing of train_count {self.train_count} to train on; lower it."
            )
        return self


class CldrSource(_CorpusSpec):
    """Instructions made from Unicode CLDR; needs no data."""

    source: Literal["cldr"] = identity("cldr")


class FilesSource(_CorpusSpec):
    """A user's own parallel files, in any languages."""

    look_up: ClassVar[Callable[[str], Language]] = any_language
    source: Literal["files"] = identity("files")
    train: Named = identity(description="JSONL or Parquet with id, language, instruction, response")
    eval: Named = identity(description="the same; responses may be left out unless the judge is reference")


class HubSource(_CorpusSpec):
    """The paper's public data in English, translated."""

    source: Literal["hub"] = identity("hub")
    train: tuple[Literal["lima", "oasst1"], ...] = identity(("lima", "oasst1"), min_length=1)
    eval: Literal["alpacafarm"] = identity("alpacafarm")
    revisions: dict[Literal["lima", "oasst1", "alpacafarm"], str] = identity(
        {}, description="another commit of the hub than the one that is pinned here"
    )
    copies: dict[Literal["lima", "oasst1", "alpacafarm"], Named] = identity(
        {}, description="your own file in the same form (.json, .jsonl, .parquet), instead of the hub's"
    )
    translator: TranslatorSpec = identity(GoogleTranslator())

    @field_validator("train")
    @classmethod
    def _distinct_sources(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(names, "train")


CorpusSpec = Annotated[CldrSource | FilesSource | HubSource, Discriminator("source")]


class Seeds(Spec):
    """One seed per source of chance."""

    mixture: int = identity(0, ge=0, description="which examples are in which language; which are dev")
    train: tuple[Annotated[int, "seed"], ...] = identity((0,), min_length=1, description="one fine-tune each")
    sampling: int = identity(0, ge=0)

    @field_validator("train")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0:
            raise ValueError(f"seed {min(seeds)} is negative; use 0 or more.")
        return distinct(seeds, "train")


class Price(Spec):
    """What something costs, and on which day it did."""

    amount: float = runtime(ge=0)
    date: datetime.date = runtime()


Keep = Literal["all", "best", "scores"]
"""What stays of a model's checkpoints, see `orchestrator.keeping`."""


class Runtime(Spec):
    """How the work is done; nothing here changes a result's key."""

    engine: Literal["auto", "vllm", "transformers"] = runtime("auto")
    gpus_per_fine_tune: Literal["auto"] | Annotated[int, "GPUs"] = runtime("auto")
    gpus_per_engine: Literal["auto"] | Annotated[int, "GPUs"] = runtime("auto", description="in one node")
    gpus_per_judge: Literal["auto"] | Annotated[int, "GPUs"] = runtime("auto", description="of a local judge, likewise")
    zero_stage: Literal["auto"] | Literal[0, 1, 2, 3] = runtime("auto")
    micro_batch: Literal["auto"] | Annotated[int, "examples"] = runtime("auto")
    offload: Literal["auto"] | bool = runtime("auto", description="gradients and optimizer in main memory")
    gradient_checkpointing: Literal["auto"] | bool = runtime("auto", description="activations are computed twice")
    canary: Literal["auto"] | bool = runtime("auto", description="one comparison first; auto: on several nodes")
    silence: float = runtime(1800, gt=0, description="seconds a lane, engine or judge may say nothing; then, another")
    keep: Keep = runtime("all", description="what stays on disk; see pinch gc")
    max_cost: float | None = runtime(None, ge=0, description="in the currency of prices")
    prices: dict[
        Literal["gpu_hour", "million_judge_tokens", "million_judge_output_tokens", "million_characters"], Price
    ] = runtime({}, description="million_judge_tokens counts for what a judge writes too, unless that has its own")

    @field_validator("gpus_per_fine_tune", "gpus_per_engine", "gpus_per_judge", "micro_batch")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f"{value} is not 1 or more; use auto or a positive number.")
        return value

    @property
    def parallel(self) -> Parallel:
        """How a fine-tune is laid out in memory."""
        return Parallel(
            zero_stage=self.zero_stage,
            micro_batch=self.micro_batch,
            offload=self.offload,
            gradient_checkpointing=self.gradient_checkpointing,
        )


class Sweep(Spec):
    """A whole sweep, as asked for."""

    name: str = runtime(max_length=NAME, description="letters, digits and -; becomes the MLflow experiment")
    corpus: CorpusSpec = identity()
    base: Named = identity("tiny")
    recipe: Recipe = identity(Recipe())
    sampling: Sampling = identity(Sampling())
    judge: JudgeSpec = identity(ReferenceJudge())
    seeds: Seeds = identity(Seeds())
    studies: Studies = identity()
    runtime: Runtime = runtime(Runtime())

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
            raise ValueError(f"{name!r} is not a plain name; use letters, digits and - only.")
        return name


@dataclasses.dataclass(frozen=True)
class Setting:
    """One resolved setting: ``recipe.steps``, its value, and where it came from."""

    name: str
    value: Any
    origin: str


@dataclasses.dataclass(frozen=True)
class LoadedSweep:
    """A validated sweep with the record of where each setting came from."""

    sweep: Sweep
    source: str
    settings: tuple[Setting, ...]
    overrides: tuple[str, ...] = ()

    def typed(self, without: str = "") -> str:
        """The sweep as a shell is told it: ``demo --set recipe.steps=50``, without a setting to be given anew."""
        kept = [override for override in self.overrides if override.partition("=")[0] != without]
        return shlex.join([self.source, *(word for override in kept for word in ("--set", override))])


def shipped() -> dict[str, Path]:
    """The sweeps that come with Pinch: name -> file."""
    folder = Path(str(resources.files("sweeps")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(sweep: str, overrides: list[str] | None = None) -> LoadedSweep:
    """Read a sweep by path (ends in .yaml) or shipped name, with ``a.b=value`` overrides applied.

    Raises:
        UserError: naming the file, the key, what was found, and the cure.
    """
    path = _locate(sweep)
    raw = _read(path)
    changed: dict[str, str] = {}
    for override in overrides or []:
        changed[_apply(raw, override)] = _as_typed(override)
    try:
        validated = Sweep.model_validate(raw)
    except ValidationError as problem:
        raise UserError(explain(problem, raw, str(sweep), changed)) from None
    flat = dict(_flatten(validated.model_dump(mode="json")))
    given = dict(_flatten(raw))

    def origin(name: str) -> str:
        for setting, source in changed.items():
            if name == setting or name.startswith(setting + "."):
                return source
        return str(path) if name in given else "default"

    settings = tuple(Setting(name, value, origin(name)) for name, value in flat.items())
    return LoadedSweep(validated, str(sweep), settings, tuple(overrides or ()))


def distinct(items: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """The items as they are.

    Raises:
        ValueError: when one is named twice.
    """
    for item in items:
        if items.count(item) > 1:
            raise ValueError(f"{what} names {item!r} twice; name it once.")
    return items


def _locate(sweep: str) -> Path:
    if sweep.endswith((".yaml", ".yml")):
        try:
            path = looked_for(sweep)
        except ValueError as problem:
            raise UserError(f"SWEEP: {problem}") from None
        if not path.is_file():
            raise UserError(f"{sweep}: there is no such file; give the path of a sweep file or a shipped name.")
        return path
    known = shipped()
    if sweep not in known:
        near = difflib.get_close_matches(sweep, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"{sweep}: no sweep of this name is shipped ({', '.join(known)}); a path must end in .yaml.{hint}"
        )
    return known[sweep]


def _read(path: Path) -> dict[str, Any]:
    raw = read_file(path)
    if not isinstance(raw, dict):
        found = "is empty" if raw is None else f"holds a {type(raw).__name__}, not keys and values"
        raise UserError(f"{path}: {found}; copy a shipped sweep, such as {shipped()['demo']}, and change it.")
    return raw


def _as_typed(override: str) -> str:
    """An override as it was given, for messages; what may be a key somebody put in the wrong place is not repeated."""
    if private(override, override):
        override = re.split(r"[^\w.-]", override, maxsplit=1)[0] + "=..."
    return f"--set {cut(override, 200)}"


def _apply(raw: dict[str, Any], override: str) -> str:
    name, equals, text = override.partition("=")
    said = _as_typed(override)
    if not equals or not name:
        raise UserError(f"{said}: is not of the form a.b=value; write for example --set recipe.steps=50.")
    try:
        value = read_text(text)
    except NotYaml as problem:
        raise UserError(f"{said}: is not a YAML value ({problem}); quote it.") from None
    parts = name.split(".")
    target: Any = raw
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(target, list):
            if part not in map(str, range(len(target))):
                raise UserError(f"{said}: {'.'.join(parts[:depth])} has items 0 to {len(target) - 1}.")
            if last:
                target[int(part)] = value
            else:
                target = target[int(part)]
        elif isinstance(target, dict):
            if last:
                target[part] = value
            else:
                target = target.setdefault(part, {})
        else:
            raise UserError(f"{said}: {'.'.join(parts[:depth])} is a single value and has nothing in it.")
    return name


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flatten(item, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from _flatten(item, f"{prefix}.{position}")
    else:
        yield prefix, value
