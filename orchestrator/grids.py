"""The grid behind the studies: every model they list, what it is tuned on, and where it is evaluated.

:func:`expand` reads the studies for a corpus of a given size. The result keeps two things apart. What was
*listed* is a table for people: a model is listed as often as studies name it, and every listing has its rows
of scores (79 models and 769 rows in the paper). What there is *to do* is that table without its repetitions:
56 mixtures, 579 cells of (model, language) to generate, 562 comparisons; plus what is not listed and yet
needed, the model tuned on D_L wherever something is evaluated in L.

Both follow from mixture rules, without an example id, so that a plan costs nothing. This room must never know
recipes, seeds of training, judges, or what is stored already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from orchestrator.mixtures import MixtureRule
from orchestrator.studies import (
    AnyStudy,
    BaseStudy,
    CustomStudy,
    MonolingualStudy,
    PairsStudy,
    PermutationsStudy,
    PinchStudy,
    SlavicStudy,
    distinct_labels,
)
from trainables.errors import UserError

BASE = "base"
"""The name of the model that was not tuned."""


@dataclass(frozen=True)
class Listed:
    """One model as one study lists it."""

    study: str
    """The study's label."""
    kind: str
    """The kind of study: the word that the sweep file has for ``study:``."""
    name: str
    """The model's name in this study; a mixture can have other names in others."""
    rule: MixtureRule
    """What it is tuned on."""
    evaluate_in: tuple[str, ...]
    """Languages, in the order the study names them."""
    seen_in: tuple[str, ...]
    """Languages in which a score counts as seen: the mixture's, or in a pinch study the study's."""
    percent: float | None = None
    """Pinch studies: percent of the examples that are split; for a level given by count, 100 count / N."""
    count: int | None = None
    """Pinch studies: the count, where the level is given by one."""
    group: str = ""
    """What the study averages over: permutations, the number of languages; pairs, the pair (``en+es``)."""
    against: Literal["monolingual", "base"] = "monolingual"
    """What it is compared with: the model tuned on D_L for each L, or the model that was not tuned."""


class Row(NamedTuple):
    """One row of the score table: a listed model in one evaluation language."""

    listed: Listed
    language: str
    baseline: MixtureRule | None
    """None is the model that was not tuned."""

    @property
    def seen(self) -> bool:
        """Whether the language counts as seen in tuning."""
        return self.language in self.listed.seen_in

    @property
    def diagonal(self) -> bool:
        """A baseline against itself: 50 by definition, never judged."""
        return self.listed.rule == self.baseline


class Cell(NamedTuple):
    """One set of responses to generate."""

    model: MixtureRule | None
    """None is the model that was not tuned."""
    language: str


class Comparison(NamedTuple):
    """One judged comparison, model B against baseline A."""

    baseline: MixtureRule | None
    model: MixtureRule
    language: str


@dataclass(frozen=True)
class Grid:
    """What the studies of a sweep ask for, for a corpus of ``train_count`` examples."""

    listed: tuple[Listed, ...]
    train_count: int

    def baseline(self, language: str) -> MixtureRule:
        """D_L of this corpus."""
        known = self._baselines.get(language)
        if known is None:
            known = self._baselines[language] = MixtureRule.monolingual(language, self.train_count)
        return known

    @cached_property
    def _baselines(self) -> dict[str, MixtureRule]:
        return {}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the score table, in the order of the studies.

        A model that a study lists twice (permutations end in the same set) has its rows twice.
        """
        return tuple(
            Row(model, code, None if model.against == BASE else self.baseline(code))
            for model in self.listed
            for code in model.evaluate_in
        )

    @cached_property
    def languages_against(self) -> dict[str, tuple[str, ...]]:
        """``monolingual`` and ``base`` -> the languages with rows against it, in the order of the rows."""
        found: dict[str, dict[str, None]] = {}
        for model in self.listed:
            found.setdefault(model.against, {}).update(dict.fromkeys(model.evaluate_in))
        return {against: tuple(codes) for against, codes in found.items()}

    @cached_property
    def rules(self) -> tuple[MixtureRule, ...]:
        """The distinct mixtures to tune on: first the baselines of all rows, then the others."""
        baselines = map(self.baseline, self.languages_against.get("monolingual", ()))
        return tuple(dict.fromkeys([*baselines, *(model.rule for model in self.listed)]))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The distinct sets of responses to generate, each baseline before what is compared with it."""
        cells = (
            cell
            for row in self.rows
            for cell in (Cell(row.baseline, row.language), Cell(row.listed.rule, row.language))
        )
        return tuple(dict.fromkeys(cells))

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The distinct comparisons to judge; a model is not compared with itself."""
        judged = (row for row in self.rows if not row.diagonal)
        return tuple(dict.fromkeys(Comparison(row.baseline, row.listed.rule, row.language) for row in judged))

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """Every language that is tuned on or evaluated in, sorted."""
        tuned = {code for rule in self.rules for code in rule.languages}
        return tuple(sorted(tuned.union(*self.languages_against.values())))

    def names(self, rule: MixtureRule) -> tuple[str, ...]:
        """The names of a mixture: the one it has in every sweep (``mono-fi``), then what studies call it."""
        standard = rule.standard_name(self.train_count)
        listed = [model.name for model in self._listings.get(rule, [])]
        return tuple(dict.fromkeys([standard, *listed] if standard else listed))

    def studies(self, rule: MixtureRule) -> tuple[str, ...]:
        """The labels of the studies that list a mixture; none for a baseline that is only needed."""
        return tuple(dict.fromkeys(model.study for model in self._listings.get(rule, [])))

    @cached_property
    def studies_against_base(self) -> tuple[str, ...]:
        """The labels of the studies that compare with the model that was not tuned."""
        return tuple(dict.fromkeys(model.study for model in self.listed if model.against == BASE))

    @cached_property
    def _listings(self) -> dict[MixtureRule, list[Listed]]:
        found: dict[MixtureRule, list[Listed]] = {}
        for model in self.listed:
            found.setdefault(model.rule, []).append(model)
        return found


def expand(
    studies: Sequence[AnyStudy],
    *,
    train_count: int,
    dev_count: int,
    corpus_languages: Collection[str] | None = None,
) -> Grid:
    """The grid behind ``studies`` for a corpus of ``train_count`` examples, ``dev_count`` of them held out.

    Raises:
        UserError: for a language that the corpus does not have (where ``corpus_languages`` says which it
            has), a count or a custom mixture larger than the corpus, one label for two studies, or one model
            name for two mixtures.
    """
    try:
        distinct_labels(tuple(studies))
    except ValueError as error:
        raise UserError(f"studies: {error}") from None
    listed = [model for study in studies for model in _models(study, train_count, dev_count)]
    if corpus_languages is not None:
        for model in listed:
            _check_languages(model, frozenset(corpus_languages))
    _check_names(listed, train_count)
    return Grid(tuple(listed), train_count)


def _models(study: AnyStudy, total: int, dev_count: int) -> Iterator[Listed]:
    if isinstance(study, MonolingualStudy | SlavicStudy):
        for code in study.languages:
            rule = MixtureRule.monolingual(code, total)
            yield _listed(study, f"mono-{code}", rule, study.evaluate_in or study.languages)
    elif isinstance(study, BaseStudy):
        for code in study.languages:
            rule = MixtureRule.monolingual(code, total)
            yield _listed(study, f"mono-{code}", rule, study.languages, against="base")
    elif isinstance(study, PinchStudy):
        yield from _pinches(study, total, dev_count)
    elif isinstance(study, PermutationsStudy):
        for order in study.orders:
            for size in range(1, len(order) + 1):
                yield _uniform(study, order[:size], total, study.evaluate_in, group=str(size))
    elif isinstance(study, PairsStudy):
        for pair in study.pairs:
            for languages in ((pair[0],), (pair[1],), pair):
                evaluate_in = study.evaluated_for(pair)
                yield _uniform(study, languages, total, evaluate_in, group="+".join(sorted(pair)))
    elif isinstance(study, CustomStudy):
        for name, counts in study.mixtures.items():
            _check_custom(f"study {study.label}: mixtures.{name}", sum(counts.values()), total, dev_count)
            yield _listed(study, name, MixtureRule.of_counts(counts), study.evaluate_in)


def _pinches(study: PinchStudy, total: int, dev_count: int) -> Iterator[Listed]:
    evaluate_in = study.evaluate_in or study.languages
    levels: list[Listed] = []
    for percent in study.percents:
        rule = MixtureRule.pinch_share(study.languages, percent, total)
        name = f"{study.label}-p{percent}"
        levels.append(_listed(study, name, rule, evaluate_in, seen_in=study.languages, percent=percent))
    for count in study.counts:
        if count > total - dev_count:
            raise UserError(
                f"study {study.label}: counts: {count} examples are asked for, but {total - dev_count} are "
                f"left of corpus.train_count {total} beside {dev_count} dev examples; lower the count or "
                "raise train_count."
            )
        rule = MixtureRule.pinch_count(study.languages, count, total)
        name = f"{study.label}-n{count}"
        level = _listed(
            study, name, rule, evaluate_in, seen_in=study.languages, percent=100 * count / total, count=count
        )
        levels.append(level)
    yield from sorted(levels, key=lambda level: (level.percent or 0, level.count is not None))


def _uniform(study: AnyStudy, languages: Sequence[str], total: int, evaluate_in: tuple[str, ...], group: str) -> Listed:
    codes = sorted(languages)
    name = f"uniform-{'+'.join(codes)}" if len(codes) > 1 else f"mono-{codes[0]}"
    return _listed(study, name, MixtureRule.uniform(codes, total), evaluate_in, group=group)


def _listed(
    study: AnyStudy,
    name: str,
    rule: MixtureRule,
    evaluate_in: tuple[str, ...],
    *,
    seen_in: tuple[str, ...] | None = None,
    percent: float | None = None,
    count: int | None = None,
    group: str = "",
    against: Literal["monolingual", "base"] = "monolingual",
) -> Listed:
    return Listed(
        study=study.label,
        kind=study.study,
        name=name,
        rule=rule,
        evaluate_in=evaluate_in,
        seen_in=rule.languages if seen_in is None else seen_in,
        percent=percent,
        count=count,
        group=group,
        against=against,
    )


def _check_custom(where: str, asked: int, total: int, dev_count: int) -> None:
    if asked > total:
        raise UserError(
            f"{where}: the counts add up to {asked} examples, but corpus.train_count is {total}; lower them "
            f"to {total} at most (dev examples are counted)."
        )
    if asked == 1 and dev_count:
        raise UserError(f"{where}: found 1 example, which leaves none to choose a checkpoint by; give 2 or more.")


def _check_languages(model: Listed, available: Collection[str]) -> None:
    for code in (*model.rule.languages, *model.seen_in, *model.evaluate_in):
        if code not in available:
            raise UserError(
                f"study {model.study}: names {code}, but corpus.languages has only "
                f"{', '.join(sorted(available))}; add {code} there or take it out of the study."
            )


def _check_names(listed: Sequence[Listed], total: int) -> None:
    named: dict[str, Listed] = {}
    for model in listed:
        other = named.setdefault(model.name, model)
        if other.rule != model.rule:
            raise UserError(
                f"study {model.study}: {model.name} is also the name of another mixture in study "
                f"{other.study}; give one of them another name."
            )
        taken = model.kind == "custom" and model.name.startswith(("mono-", "uniform-"))
        if taken and model.name != model.rule.standard_name(total):
            raise UserError(
                f"study {model.study}: mixtures.{model.name}: names that begin with mono- and uniform- say "
                "what is mixed, and this is another mixture; give it another name."
            )
