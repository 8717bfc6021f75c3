"""From a sweep to every distinct step behind it.

The studies list models; behind the list is a smaller set of distinct fine-tunes, response sets and comparisons,
each with a key. A plan is pure: it needs the sweep (and a user's own files, whose content is part of the keys), no
built data, no network and no store. What is already done is another question, asked in `orchestrator.review`.

A key holds only what its step uses. Corpora are keyed per language, so another language moves no key of the
languages that were there; a mixture is keyed by its assignment without the dev examples, which are keyed with the
selection; how many prompts there are is left out of a step's *family*, so that a larger set takes over a smaller.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator
from typing import Any

from orchestrator.cells import Cells, Model, ScoreCell
from orchestrator.corpora import corpus_steps, model_of, translator_of
from orchestrator.corpus.base import Corpus
from orchestrator.corpus.tiny_statements import statements_payload
from orchestrator.grids import BASE, Grid, expand
from orchestrator.identity import Form, Step, digest_of_text, key_of
from orchestrator.inputs import open_corpus
from orchestrator.mixtures import Mixture, MixtureRule, dev_ids
from orchestrator.splits import Split
from orchestrator.sweep import LoadedSweep, Sweep
from trainables import generate, recipe, rouge
from trainables.base_models import BaseSource, parse_base
from trainables.batches import template_source
from trainables.errors import UserError

__all__ = ["Model", "Plan", "ScoreCell", "mixture_rows"]


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
            self.train_ids = tuple(self.corpus.train_ids())
            self.eval_ids = self.corpus.eval_ids()
        except UserError as problem:
            raise UserError(f"{loaded.source}: {problem}") from None
        self.corpora = self.corpus_steps.corpora
        self.dev = dev_ids(self.train_ids, sweep.corpus.dev_count, sweep.seeds.mixture)
        split = Split(self.train_ids, self.dev)
        self._corpus_payload = functools.cache(self.corpus.payload)
        self._mixture = functools.lru_cache(maxsize=16)(self._build)
        self._parts = functools.cache(lambda rule: split.of(self._mixture(rule)))
        self.models = [self._model(rule, seed) for seed in sweep.seeds.train for rule in self.grid.rules]
        if against_base := self.grid.studies_against_base:
            self.models.append(Model(rule=None, seed=None, names=(BASE,), studies=against_base, weights=self.base))
        by_rule = {(model.rule, model.seed): model for model in self.models}
        self._cells = Cells(by_rule, self.corpora, self._responses, self._verdicts, self.judge_base)
        for seed in sweep.seeds.train:
            self._cells.add(self.grid, seed)

    # What there is to do

    @functools.cached_property
    def cells(self) -> list[ScoreCell]:
        """The rows of the score table, in the order of the studies."""
        return [
            cell for seed in self.sweep.seeds.train for cell in self._cells.rows(self.grid, seed, self._suffix(seed))
        ]

    @functools.cached_property
    def steps(self) -> list[Step]:
        """Every distinct step, inputs before what needs them, baselines before other fine-tunes."""
        bases = {step.key: step for step in (self.base, self.judge_base, self.translator_base) if step}
        ordered = [*bases.values(), *self.corpus_steps.ordered]
        ordered += [model.fine_tune for model in self.models if model.fine_tune]
        ordered += [model.weights for model in self.models if model.fine_tune]
        ordered += [*self._cells.sets, *self._cells.comparisons]
        return list({step.key: step for step in ordered}.values())

    @property
    def translating(self) -> list[Step]:
        """The steps that translations take, inputs first; none where nothing is translated."""
        if not self.corpus_steps.translations:
            return []
        return [*([self.translator_base] if self.translator_base else []), *self.corpus_steps.ordered]

    def of_kind(self, kind: str) -> list[Step]:
        return self._of_kind.get(kind, [])

    @functools.cached_property
    def _of_kind(self) -> dict[str, list[Step]]:
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            found.setdefault(step.kind, []).append(step)
        return found

    def sets_of(self, model: Model) -> list[Step]:
        """The response sets of one model."""
        return self._cells.sets_of(model)

    def counts(self) -> dict[str, int]:
        """The size of the whole sweep, done or not."""
        comparisons = len(self._cells.comparisons)
        return {
            "listed_models": len(self.grid.listed) * len(self.sweep.seeds.train),
            "fine_tunes": sum(model.fine_tune is not None for model in self.models),
            "generation_sets": len(self._cells.sets),
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
        return owners | {step.key: model for model in self.models for step in self.sets_of(model)}

    def baseline_keys(self) -> set[str]:
        """Keys of the fine-tunes that others are compared with; they are tuned first."""
        return set(self._cells.baselines)

    # How steps are made up

    def _other_base(self, source: BaseSource) -> Step:
        """The step of a model that is not tuned."""
        step = _base_step(source)
        self.base_sources[step.key] = source
        return step

    def _model(self, rule: MixtureRule, seed: int) -> Model:
        sweep = self.sweep
        names = tuple(f"{name}{self._suffix(seed)}" for name in self.grid.names(rule))
        parts = self._parts(rule)
        corpora = {code: self.corpora[code] for code in rule.languages}
        fine_tune = Step(
            kind="fine_tune",
            name=names[0],
            needs=(self.base, *corpora.values()),
            payload={
                "version": recipe.RESULT_VERSION,
                "base": self.base.key,
                "corpus": {code: self._part(code, "train") for code in corpora},
                "mixture": {"counts": parts.trained.counts, "digest": parts.trained.digest},
                "recipe": {**sweep.recipe.identity(), "template": self.template},
                "seed": seed,
            },
        )
        selection = Step(
            kind="selection",
            name=names[0],
            needs=(fine_tune, *corpora.values()),
            payload={
                "version": rouge.RESULT_VERSION,
                "fine_tune": fine_tune.key,
                "dev": {"count": parts.dev.total, "digest": parts.dev.digest},
            },
        )
        return Model(
            rule=rule,
            seed=seed,
            names=names,
            studies=self.grid.studies(rule),
            weights=selection,
            fine_tune=fine_tune,
            build=functools.partial(self._mixture, rule),
        )

    def _suffix(self, seed: int) -> str:
        return f"-s{seed}" if len(self.sweep.seeds.train) > 1 else ""

    def _build(self, rule: MixtureRule) -> Mixture:
        return rule.build(self.train_ids, self.sweep.seeds.mixture, self.dev)

    def _responses(self, language: str) -> Form:
        """The form of the response sets in a language, which read the weights."""
        sweep = self.sweep
        return Form(
            "generation_set",
            {
                "version": generate.RESULT_VERSION,
                "corpus": self._part(language, "eval"),
                "sampling": sweep.sampling.identity(),
                "template": digest_of_text(self.template),
                "max_input_tokens": sweep.recipe.max_input_tokens,
                "seed": sweep.seeds.sampling,
            },
            reads={"weights": 0},
            counted={"prompts": sweep.corpus.eval_count},
        )

    def _verdicts(self, language: str) -> Form:
        """The form of the comparisons in a language, which read two response sets."""
        common: dict[str, Any] = {"judge": self.judge_payload}
        if self.sweep.judge.kind == "reference":
            common["references"] = self._part(language, "eval", "references")
        return Form("comparison", common, reads={"baseline": 0, "model": 1})

    def _part(self, language: str, *parts: str) -> str:
        """A digest of the parts of one language's corpus that a step reads, so that the other parts move no key."""
        unused = {"train", "eval", "references"} - set(parts)
        payload = self._corpus_payload(language)
        return key_of({name: value for name, value in payload.items() if name not in unused})


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
