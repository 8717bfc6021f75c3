"""The cells of a plan: which model answers in which language, and which of these answers are held against which.

A sweep of ten thousand models in a hundred languages has a million cells, two million steps. Everything here is done
once per cell, so what cells have in common is worked out per language (see :class:`orchestrator.identity.Form`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Mapping

from orchestrator.grids import BASE, Grid, Row
from orchestrator.identity import Form, Step
from orchestrator.mixtures import Mixture, MixtureRule


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
    build: Callable[[], Mixture] | None = None
    """Makes the mixture, which is too large to be kept for every model."""

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def key(self) -> str:
        """The model's key: its fine-tune's, or the base's."""
        return (self.fine_tune or self.weights).key

    @property
    def mixture(self) -> Mixture | None:
        """What it is tuned on; None for the base."""
        return None if self.build is None else self.build()


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


@contextlib.contextmanager
def _cycles_not_collected() -> Iterator[None]:
    """Millions of objects are made that all stay: to look through them for garbage takes as long as to make them."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class Cells:
    """Every distinct response set and comparison, and the rows of the score table they belong to."""

    def __init__(
        self,
        models: Mapping[tuple[MixtureRule | None, int | None], Model],
        corpora: Mapping[str, Step],
        responses: Callable[[str], Form],
        verdicts: Callable[[str], Form],
        judge_base: Step | None,
    ) -> None:
        """Args:
        models: by rule and seed; the model that was not tuned by None and None.
        responses: language -> the form of its response sets, which read the weights.
        verdicts: language -> the form of its comparisons, which read the baseline's set and the model's.
        """
        self._models, self._corpora, self._judge_base = models, corpora, judge_base
        self._response_forms = {code: responses(code) for code in corpora}
        self._verdict_forms = {code: verdicts(code) for code in corpora}
        self._sets: dict[str, dict[str, Step]] = {model.key: {} for model in models.values()}
        self._compared: dict[tuple[str, str], dict[str, Step]] = {}
        self.sets: list[Step] = []
        """In the order of the rows, a baseline's before what is compared with it."""
        self.comparisons: list[Step] = []
        self.baselines: dict[str, Model] = {}
        """By key, the models that others are compared with."""

    def add(self, grid: Grid, seed: int) -> None:
        """List what the grid asks of the models of one seed."""
        with _cycles_not_collected():
            self._add(grid, seed)

    def _add(self, grid: Grid, seed: int) -> None:
        for listed in grid.listed:
            model = self._models[listed.rule, seed]
            sets = self._sets[model.key]
            compared = self._compared.setdefault((model.key, listed.against), {})
            baselines = self._baselines(grid, listed.against, listed.evaluate_in, seed)
            for language, baseline in zip(listed.evaluate_in, baselines, strict=True):
                first = self._sets[baseline.key].get(language) or self._respond(baseline, language)
                second = sets.get(language) or self._respond(model, language)
                if language not in compared and baseline is not model:
                    compared[language] = self._compare(baseline, first, model, second, language)

    def rows(self, grid: Grid, seed: int, suffix: str) -> list[ScoreCell]:
        """The rows of the score table for one seed, which was added; ``suffix`` tells the seed in names."""
        cells = []
        for row in grid.rows:
            model = self._models[row.listed.rule, seed]
            baseline = self._models[row.baseline, None if row.baseline is None else seed]
            comparison = None if baseline is model else self._compared[model.key, row.listed.against][row.language]
            name = row.listed.name + suffix
            cells.append(ScoreCell(row, name, model, baseline, comparison, self._sets[model.key][row.language]))
        return cells

    def sets_of(self, model: Model) -> list[Step]:
        """The response sets of one model."""
        return list(self._sets[model.key].values())

    def _baselines(self, grid: Grid, against: str, languages: tuple[str, ...], seed: int) -> list[Model]:
        if against == BASE:
            found = [self._models[None, None]] * len(languages)
        else:
            found = [self._models[grid.baseline(code), seed] for code in languages]
        self.baselines.update({model.key: model for model in found})
        return found

    def _respond(self, model: Model, language: str) -> Step:
        step = Step(
            kind="generation_set",
            name=f"{model.name}.{language}",
            payload=self._response_forms[language],
            needs=(model.weights, self._corpora[language], *([model.fine_tune] if model.fine_tune else [])),
        )
        self._sets[model.key][language] = step
        self.sets.append(step)
        return step

    def _compare(self, baseline: Model, first: Step, model: Model, second: Step, language: str) -> Step:
        step = Step(
            kind="comparison",
            name=f"{model.name}.{language}" if baseline.rule else f"{model.name}.{language}.base",
            payload=self._verdict_forms[language],
            needs=(first, second, self._corpora[language], *([self._judge_base] if self._judge_base else [])),
        )
        self.comparisons.append(step)
        return step
