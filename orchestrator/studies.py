"""The studies of a sweep file: what may be asked, checked as far as it can be without knowing the corpus.

A study is written as a reader of the paper would say it ("a pinch over these twelve languages"). Each kind
has a class here; ``orchestrator.grids`` works out the models and evaluation languages behind them. A study
that cannot mean anything is refused here, with the key, what was found, and the cure.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.languages import ENGLISH, SLAVIC, any_language
from trainables.errors import UserError, shown
from trainables.spec import NAME, Spec, identity

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_RESERVED = "base"


def _known_language(code: str) -> str:
    try:
        return any_language(code).code
    except UserError as error:
        raise ValueError(str(error)) from None


def _without_doubles(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value} is named {values.count(value)} times; name it once.")
    return values


def _a_percent(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"found {shown(value)}; a percent is a number from 0 to 100.")
    if not 0 <= value <= 100:
        raise ValueError(f"found {value}; a percent is a number from 0 to 100.")
    return int(value) if value == int(value) else value


def _a_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"found {shown(value)}; a count is a whole number of examples, 1 or more.")
    return value


def _a_label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError(f"found {name!r}; a study's name is made of letters, digits and -.")
    return name


def _a_model_name(name: str) -> str:
    if not _MODEL_NAME.fullmatch(name):
        raise ValueError(f"found {name!r}; a model's name is made of letters, digits and - _ . +.")
    if name == _RESERVED:
        raise ValueError(f"{name!r} is the name of the model that was not tuned; choose another.")
    return name


LanguageCode = Annotated[str, AfterValidator(_known_language)]
Languages = Annotated[tuple[LanguageCode, ...], Field(min_length=1), AfterValidator(_without_doubles)]
Percent = Annotated[int | float, BeforeValidator(_a_percent)]
Count = Annotated[int, BeforeValidator(_a_count)]
Label = Annotated[str, Field(max_length=NAME), AfterValidator(_a_label)]
ModelName = Annotated[str, Field(max_length=NAME), AfterValidator(_a_model_name)]


class _Study(Spec):
    """What all studies have."""

    name: Label | None = identity(None, description="label in tables and figures, where the usual one is taken")

    default_label: ClassVar[str]

    @property
    def label(self) -> str:
        """The study's name in tables and figures; unique in a sweep."""
        return self.name or self.default_label


class MonolingualStudy(_Study):
    """D_L for each language (figure 1)."""

    default_label: ClassVar[str] = "monolingual"
    study: Literal["monolingual"] = identity("monolingual")
    languages: Languages = identity()
    evaluate_in: Languages | None = identity(None, description="default: the languages themselves")


class SlavicStudy(_Study):
    """D_L for each of a group of related languages (figure 7): a monolingual study with a default group."""

    default_label: ClassVar[str] = "slavic"
    study: Literal["slavic"] = identity("slavic")
    languages: Languages = identity(SLAVIC)
    evaluate_in: Languages | None = identity(None, description="default: the languages themselves")


class PinchStudy(_Study):
    """English with more and more of other languages (figures 3 and 4)."""

    study: Literal["pinch"] = identity("pinch")
    languages: Languages = identity()
    percents: Annotated[tuple[Percent, ...], AfterValidator(_without_doubles)] = identity(
        tuple(range(0, 101, 10)), description="percent of the examples split evenly over the languages"
    )
    counts: Annotated[tuple[Count, ...], AfterValidator(_without_doubles)] = identity(
        (40,), description="that many examples over the languages that are not English"
    )
    evaluate_in: Languages | None = identity(None, description="default: the languages themselves")

    @property
    def label(self) -> str:
        return self.name or f"pinch-{len(self.languages)}"

    @model_validator(mode="after")
    def _pinches_something(self) -> PinchStudy:
        if ENGLISH not in self.languages:
            raise ValueError(
                f"languages: {', '.join(self.languages)} is without {ENGLISH}, which a pinch is mixed into; add it."
            )
        if len(self.languages) < 2:
            raise ValueError(f"languages: a pinch needs a language beside {ENGLISH}; add one.")
        if not self.percents and not self.counts:
            raise ValueError("percents and counts are both empty; name at least one level.")
        return self


class PairsStudy(_Study):
    """Two languages, each alone and half and half (figure 6), evaluated in languages that are neither."""

    default_label: ClassVar[str] = "pairs"
    study: Literal["pairs"] = identity("pairs")
    pairs: Annotated[tuple[tuple[LanguageCode, ...], ...], Field(min_length=1)] = identity()
    evaluate_in: Languages | None = identity(
        None,
        description="less those of the model's own pair; default: the languages of all pairs",
    )

    @model_validator(mode="after")
    def _pairs_of_two(self) -> PairsStudy:
        for pair in self.pairs:
            if len(pair) != 2 or pair[0] == pair[1]:
                raise ValueError(f"pairs: found [{', '.join(pair)}]; a pair is two different languages.")
            if not self.evaluated_for(pair):
                raise ValueError(
                    f"pairs: [{', '.join(pair)}] is left without a language to be evaluated in; give "
                    "evaluate_in a language that is neither of them."
                )
        _distinct_sets("pairs", self.pairs)
        return self

    def evaluated_for(self, pair: Sequence[str]) -> tuple[str, ...]:
        """The evaluation languages that are in neither half of the pair."""
        asked = self.evaluate_in or tuple(dict.fromkeys(code for pair in self.pairs for code in pair))
        return tuple(code for code in asked if code not in pair)


class PermutationsStudy(_Study):
    """Uniform over the first 1, 2, ... languages of each order (figure 5, table 4)."""

    default_label: ClassVar[str] = "permutations"
    study: Literal["permutations"] = identity("permutations")
    orders: Annotated[tuple[tuple[LanguageCode, ...], ...], Field(min_length=1)] = identity()
    evaluate_in: Languages = identity()

    @model_validator(mode="after")
    def _orders_of_distinct_languages(self) -> PermutationsStudy:
        for order in self.orders:
            if not order:
                raise ValueError("orders: found an empty order; name its languages.")
            twice = [code for code in dict.fromkeys(order) if order.count(code) > 1]
            if twice:
                raise ValueError(f"orders: [{', '.join(order)}] names {twice[0]} twice; name each language once.")
            if self.orders.count(order) > 1:
                raise ValueError(f"orders: [{', '.join(order)}] is listed twice; list it once.")
        return self


class BaseStudy(_Study):
    """The monolingual models against the model that was not tuned (figure 10), in all the languages."""

    default_label: ClassVar[str] = "base"
    study: Literal["base"] = identity("base")
    languages: Languages = identity()


class CustomStudy(_Study):
    """Mixtures given by their counts, dev examples included; they may use fewer examples than there are."""

    default_label: ClassVar[str] = "custom"
    study: Literal["custom"] = identity("custom")
    mixtures: Annotated[dict[ModelName, dict[LanguageCode, Count]], Field(min_length=1)] = identity()
    evaluate_in: Languages = identity()

    @model_validator(mode="after")
    def _mixes_something(self) -> CustomStudy:
        for name, counts in self.mixtures.items():
            if not counts:
                raise ValueError(f"mixtures.{name}: found no language; give counts such as {{en: 400, fi: 80}}.")
        return self


STUDIES: dict[str, type[_Study]] = {
    "monolingual": MonolingualStudy,
    "pinch": PinchStudy,
    "pairs": PairsStudy,
    "permutations": PermutationsStudy,
    "slavic": SlavicStudy,
    "base": BaseStudy,
    "custom": CustomStudy,
}
"""The kinds of study, by the word that the sweep file has for ``study:``."""


def _known_study(written: Any) -> Any:
    """Refuse an unknown kind of study or key with the nearest known one, before pydantic sees it."""
    if isinstance(written, _Study) or not isinstance(written, dict):
        return written
    if "study" not in written:
        raise ValueError(f"a study needs the key study; known: {', '.join(STUDIES)}.")
    kind = written["study"]
    if not isinstance(kind, str) or kind not in STUDIES:
        raise ValueError(f"unknown study {shown(kind)}{_did_you_mean(kind, STUDIES)} known: {', '.join(STUDIES)}.")
    keys = STUDIES[kind].model_fields
    for key in written:
        if key not in keys:
            known = ", ".join(name for name in keys if name != "study")
            raise ValueError(f"unknown key {shown(key)} in a {kind} study{_did_you_mean(key, keys)} known: {known}.")
    return written


def _did_you_mean(found: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(found), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ";"


def _distinct_sets(key: str, groups: tuple[tuple[str, ...], ...]) -> None:
    seen: set[frozenset[str]] = set()
    for group in groups:
        if frozenset(group) in seen:
            raise ValueError(f"{key}: [{', '.join(group)}] is listed twice; list it once.")
        seen.add(frozenset(group))


AnyStudy = MonolingualStudy | PinchStudy | PairsStudy | PermutationsStudy | SlavicStudy | BaseStudy | CustomStudy
Study = Annotated[AnyStudy, Field(discriminator="study"), BeforeValidator(_known_study)]
"""A study as a field of the sweep file; validate one alone with ``pydantic.TypeAdapter(Study)``."""


def distinct_labels(studies: tuple[AnyStudy, ...]) -> tuple[AnyStudy, ...]:
    """The studies as they are.

    Raises:
        ValueError: when two have one label, for rows of scores are told apart by it.
    """
    labels = [study.label for study in studies]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"{labels.count(label)} studies are called {label!r}; give all but one of them another name "
                "with the key name."
            )
    return studies


Studies = Annotated[tuple[Study, ...], Field(min_length=1), AfterValidator(distinct_labels)]
"""The studies of a sweep: at least one, each with a label of its own."""
