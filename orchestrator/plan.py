"""From a sweep to every distinct step behind it.

The studies list models; behind the list is a smaller set of distinct fine-tunes, response sets and comparisons,
each with a key. A plan is pure: it needs the sweep (and a user's own files, whose content is part of the keys), no
built data, no network and no store. What is already done is another question, asked in `orchestrator.review`.

A key holds only what its step uses. Corpora are keyed per language, so another language moves no key of the
languages that were there; a mixture is keyed by its assignment without the dev examples, which are keyed with the
selection; how many prompts there are is left out of a step's *family*, so that a larger set takes over a smaller.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterator
from typing import Any

from orchestrator.corpora import corpus_steps, model_of, translator_of
from orchestrator.corpus.base import Corpus
from orchestrator.corpus.tiny_statements import statements_payload
from orchestrator.grids import BASE, Grid, Row, expand
from orchestrator.identity import Step, digest_of_text, key_of
from orchestrator.inputs import open_corpus
from orchestrator.mixtures import Mixture, MixtureRule, dev_ids
from orchestrator.sweep import LoadedSweep, Sweep
from trainables import generate, recipe, rouge
from trainables.base_models import BaseSource, parse_base
from trainables.batches import template_source
from trainables.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """One model of the plan: a mixture tuned with one seed, or the base itself (no mixture, no fine-tune)."""

    rule: MixtureRule | None
    seed: int | None
    names: tuple[str, ...]
    studies: tuple[str, ...]
    weights: Step
    """The step whose result says which weights answer: the selection, or the base."""
    fine_tune: Step | None = None
    mixture: Mixture | None = None

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def key(self) -> str:
        """The model's key: its fine-tune's, or the base's."""
        return (self.fine_tune or self.weights).key


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreCell:
    """One row of the score table before it has a score."""

    row: Row
    name: str
    model: Model
    baseline: Model
    comparison: Step | None
    """None on the diagonal: 50 by definition, never judged."""
    generation_set: Step


class Plan:
    """Every step of a sweep, deduplicated, in an order in which inputs come first."""

    def __init__(self, loaded: LoadedSweep) -> None:
        """Works the plan out.

        Raises:
            UserError: when the studies do not fit the corpus, or the base, template or files are not usable.
        """
        sweep = loaded.sweep
        self.loaded = loaded
        self.sweep: Sweep = sweep
        try:
            self.corpus: Corpus = open_corpus(sweep.corpus, needs_references=sweep.judge.kind == "reference")
            self.grid: Grid = expand(
                sweep.studies,
                train_count=sweep.corpus.train_count,
                dev_count=sweep.corpus.dev_count,
                corpus_languages=sweep.corpus.languages,
            )
            self.base_source: BaseSource = parse_base(sweep.base)
            self.base = _base_step(self.base_source)
            self.base_sources = {self.base.key: self.base_source}
            self.judge_base: Step | None = None
            if sweep.judge.kind == "local":
                self.judge_base = self._other_base(parse_base(sweep.judge.model))
            self.translator = translator_of(sweep.corpus)
            source = model_of(self.translator)
            self.translator_base = self._other_base(source) if source else None
            self.corpus_steps = corpus_steps(self.corpus, sweep.corpus, self.grid.languages, self.translator_base)
            self.template = template_source(sweep.recipe.template)
            self.judge_payload = sweep.judge.payload()
            self.train_ids = self.corpus.train_ids()
            self.eval_ids = self.corpus.eval_ids()
        except UserError as problem:
            raise UserError(f"{loaded.source}: {problem}") from None
        self.corpora = self.corpus_steps.corpora
        self.dev = dev_ids(self.train_ids, sweep.corpus.dev_count, sweep.seeds.mixture)
        self.models = [self._model(rule, seed) for seed in sweep.seeds.train for rule in self.grid.rules]
        self._by_rule = {(model.rule, model.seed): model for model in self.models}
        if any(cell.model is None for cell in self.grid.cells):
            self.models.append(
                Model(rule=None, seed=None, names=(BASE,), studies=self._base_studies(), weights=self.base)
            )
        self._sets: dict[tuple[str, str], Step] = {}
        self._comparisons: dict[tuple[str, str], Step] = {}
        self.cells = [self._cell(row, seed) for seed in sweep.seeds.train for row in self.grid.rows]

    # What there is to do

    @functools.cached_property
    def steps(self) -> list[Step]:
        """Every distinct step, inputs before what needs them, baselines before other fine-tunes."""
        bases = {step.key: step for step in (self.base, self.judge_base, self.translator_base) if step}
        ordered = [*bases.values(), *self.corpus_steps.ordered]
        ordered += [model.fine_tune for model in self.models if model.fine_tune]
        ordered += [model.weights for model in self.models if model.fine_tune]
        ordered += self._sets.values()
        ordered += self._comparisons.values()
        return ordered

    @property
    def translating(self) -> list[Step]:
        """The steps that translations take, inputs first; none where nothing is translated."""
        if not self.corpus_steps.translations:
            return []
        return [*([self.translator_base] if self.translator_base else []), *self.corpus_steps.ordered]

    def of_kind(self, kind: str) -> list[Step]:
        return [step for step in self.steps if step.kind == kind]

    def counts(self) -> dict[str, int]:
        """The size of the whole sweep, done or not."""
        comparisons = len(self._comparisons)
        return {
            "listed_models": len(self.grid.listed) * len(self.sweep.seeds.train),
            "fine_tunes": sum(model.fine_tune is not None for model in self.models),
            "generation_sets": len(self._sets),
            "comparisons": comparisons,
            "judge_calls": comparisons * 2 * self.sweep.corpus.eval_count,
        }

    @functools.cached_property
    def digest(self) -> str:
        """16 hex digits for all of its steps: two machines that agree on it mean the same sweep."""
        return key_of({"steps": sorted(step.key for step in self.steps)})[:16]

    def find_model(self, name: str) -> Model:
        """A model by any of its names, or by at least 8 hex digits of its key.

        Raises:
            UserError: no such model, or several.
        """
        found = [model for model in self.models if name in model.names]
        if not found and len(name) >= 8 and all(digit in "0123456789abcdef" for digit in name):
            found = [model for model in self.models if model.key.startswith(name)]
        if len(found) != 1:
            known = ", ".join(dict.fromkeys(label for model in self.models for label in model.names))
            near = difflib.get_close_matches(name, known.split(", "), n=1)
            hint = f" Did you mean {near[0]}?" if near and not found else ""
            problem = "names several models; give more digits" if found else f"is not one of {known}"
            raise UserError(f"{self.loaded.source}: model {name} {problem}.{hint}")
        return found[0]

    @functools.cached_property
    def model_of_step(self) -> dict[str, Model]:
        """Step key -> the model it belongs to (fine-tunes, selections and generation sets)."""
        owners = {step.key: model for model in self.models for step in (model.fine_tune, model.weights) if step}
        by_key = {model.key: model for model in self.models}
        owners.update({step.key: by_key[key] for (key, _), step in self._sets.items()})
        return owners

    def baseline_keys(self) -> set[str]:
        """Keys of the fine-tunes that others are compared with; they are tuned first."""
        return {cell.baseline.key for cell in self.cells}

    # How steps are made up

    def _other_base(self, source: BaseSource) -> Step:
        """The step of a model that is not tuned."""
        step = _base_step(source)
        self.base_sources[step.key] = source
        return step

    def _model(self, rule: MixtureRule, seed: int) -> Model:
        sweep = self.sweep
        mixture = rule.build(self.train_ids, sweep.seeds.mixture, self.dev)
        suffix = f"-s{seed}" if len(sweep.seeds.train) > 1 else ""
        names = tuple(f"{name}{suffix}" for name in self.grid.names(rule))
        trained = mixture.without(self.dev)
        corpora = {code: self.corpora[code] for code in mixture.languages}
        fine_tune = Step(
            kind="fine_tune",
            name=names[0],
            needs=(self.base, *corpora.values()),
            payload={
                "version": recipe.RESULT_VERSION,
                "base": self.base.key,
                "corpus": {code: self._part(code, "train") for code in corpora},
                "mixture": {"counts": _counts(trained), "digest": key_of(trained)},
                "recipe": {**sweep.recipe.identity(), "template": self.template},
                "seed": seed,
            },
        )
        dev = {key: code for key, code in mixture.assignment.items() if key in self.dev}
        selection = Step(
            kind="selection",
            name=names[0],
            needs=(fine_tune,),
            payload={
                "version": rouge.RESULT_VERSION,
                "fine_tune": fine_tune.key,
                "dev": {"count": len(dev), "digest": key_of(dev)},
            },
        )
        return Model(
            rule=rule,
            seed=seed,
            names=names,
            studies=self.grid.studies(rule),
            weights=selection,
            fine_tune=fine_tune,
            mixture=mixture,
        )

    def _cell(self, row: Row, seed: int) -> ScoreCell:
        model = self._by_rule[row.listed.rule, seed]
        if row.baseline is None:
            baseline = self.models[-1]
        else:
            baseline = self._by_rule[row.baseline, seed]
        first = self._generation_set(baseline, row.language)
        second = self._generation_set(model, row.language)
        comparison = None if row.diagonal else self._comparison(baseline, first, model, second, row.language)
        suffix = f"-s{seed}" if len(self.sweep.seeds.train) > 1 else ""
        return ScoreCell(row, f"{row.listed.name}{suffix}", model, baseline, comparison, second)

    def _generation_set(self, model: Model, language: str) -> Step:
        known = self._sets.get((model.key, language))
        if known is not None:
            return known
        sweep = self.sweep
        family = {
            "version": generate.RESULT_VERSION,
            "weights": model.weights.key,
            "corpus": self._part(language, "eval"),
            "sampling": sweep.sampling.identity(),
            "template": digest_of_text(self.template),
            "max_input_tokens": sweep.recipe.max_input_tokens,
            "seed": sweep.seeds.sampling,
        }
        step = Step(
            kind="generation_set",
            name=f"{model.name}.{language}",
            needs=(model.weights, self.corpora[language]),
            payload={**family, "prompts": sweep.corpus.eval_count},
            family_payload=family,
        )
        self._sets[model.key, language] = step
        return step

    def _comparison(self, baseline: Model, first: Step, model: Model, second: Step, language: str) -> Step:
        known = self._comparisons.get((first.key, second.key))
        if known is not None:
            return known
        common: dict[str, Any] = {"judge": self.judge_payload}
        if self.sweep.judge.kind == "reference":
            common["references"] = self._part(language, "eval", "references")
        step = Step(
            kind="comparison",
            name=f"{model.name}.{language}" if baseline.rule else f"{model.name}.{language}.base",
            needs=(first, second) if self.judge_base is None else (first, second, self.judge_base),
            payload={**common, "baseline": first.key, "model": second.key},
            family_payload={**common, "baseline": first.family, "model": second.family},
        )
        self._comparisons[first.key, second.key] = step
        return step

    def _part(self, language: str, *parts: str) -> str:
        """A digest of the parts of one language's corpus that a step reads, so that the other parts move no key."""
        unused = {"train", "eval", "references"} - set(parts)
        payload = self.corpus.payload(language)
        return key_of({name: value for name, value in payload.items() if name not in unused})

    def _base_studies(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.listed.study for row in self.grid.rows if row.baseline is None))


def mixture_rows(model: Model) -> Iterator[tuple[str, str]]:
    """(id, language) of a model's mixture, sorted by id.

    Raises:
        UserError: for the base, which was not tuned on anything.
    """
    if model.mixture is None:
        raise UserError(f"{model.name}: was not tuned, so it has no mixture; name a tuned model.")
    yield from sorted(model.mixture.assignment.items())


def _base_step(source: BaseSource) -> Step:
    payload = source.payload()
    if source.needs_statements:
        payload = {**payload, "statements": statements_payload()}
    return Step(kind="base", name=source.label, payload=payload)


def _counts(assignment: dict[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for code in assignment.values():
        counts[code] = counts.get(code, 0) + 1
    return dict(sorted(counts.items()))
