"""`sweeps/paper.yaml` is the paper's sweep: every number of appendix C and sections 2 and 3, where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.languages import MAIN12, SIX, SLAVIC
from orchestrator.plan import Plan
from orchestrator.studies import BaseStudy
from orchestrator.sweep import Sweep, load, shipped
from tests.tiny_models import random_model
from trainables.memory import Settled
from trainables.recipe import Recipe

PAPER = {
    "recipe.method": "full",
    "recipe.steps": 2000,
    "recipe.schedule": "constant",
    "recipe.learning_rate": 1e-5,
    "recipe.batch_size": 128,
    "recipe.dropout": 0.05,
    "recipe.max_input_tokens": 1024,
    "recipe.max_target_tokens": 512,
    "recipe.checkpoint_every": 200,
    "recipe.precision": "bf16",
    "sampling.temperature": 0.7,
    "sampling.top_p": 0.9,
    "sampling.max_new_tokens": 512,
    "corpus.source": "hub",
    "corpus.train": ["lima", "oasst1"],
    "corpus.eval": "alpacafarm",
    "corpus.train_count": 1000 + 3640,
    "corpus.dev_count": 250,
    "corpus.eval_count": 805 - 188,
    "judge.kind": "local",
    "judge.prompt": "figure9",
}


@pytest.fixture(scope="module")
def paper() -> Sweep:
    return load("paper").sweep


@pytest.mark.parametrize("name", PAPER)
def test_a_setting_has_the_papers_value(name: str) -> None:
    values = {setting.name: setting.value for setting in load("paper").settings}
    assert values[name] == PAPER[name]


def test_a_setting_left_out_of_a_sweep_has_the_papers_value(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(
        "name: short\ncorpus: {source: hub, languages: [en]}\nstudies: [{study: monolingual, languages: [en]}]"
    )
    values = {setting.name: setting.value for setting in load(str(file)).settings}
    ours = {name: value for name, value in PAPER.items() if not name.startswith("judge")}
    assert {name: values[name] for name in ours} == ours


def test_every_language_is_the_papers(paper: Sweep) -> None:
    assert set(paper.corpus.languages) == {*MAIN12, *SLAVIC}
    assert len(paper.corpus.languages) == 17


def test_checkpoints_are_ten_and_the_last_is_the_end(paper: Sweep) -> None:
    assert paper.recipe.checkpoint_steps == tuple(range(200, 2001, 200))


def test_dev_examples_are_trained_on_by_no_model() -> None:
    plan = Plan(load("paper"))
    assert len(plan.dev) == 250
    for model in plan.models:
        assert model.mixture is not None
        assert len(model.mixture.assignment) == 4640
        assert len(model.mixture.without(plan.dev)) == 4390


def test_studies_are_the_papers(paper: Sweep) -> None:
    studies: list[Any] = list(paper.studies)
    monolingual, twelve, six, permutations, pairs, slavic = studies
    assert set(monolingual.languages) == set(twelve.languages) == set(MAIN12)
    assert set(six.languages) == set(SIX)
    assert set(six.evaluate_in) == set(MAIN12)
    for study in (twelve, six):
        assert tuple(study.percents) == (0, *range(10, 101, 10))
        assert tuple(study.counts) == (40,)
    assert permutations.orders == (
        ("fi", "en", "ru", "it", "sw", "ar"),
        ("sw", "it", "ar", "en", "fi", "ru"),
        ("it", "fi", "en", "ar", "ru", "sw"),
    )
    assert set(permutations.evaluate_in) == {"cs", "et", "he", "hi", "es", "zh"}
    named = {frozenset(pair) for pair in (("es", "en"), ("zh", "ru"), ("ar", "et"), ("he", "cs"), ("fi", "it"))}
    assert {frozenset(pair) for pair in pairs.pairs} == named | {frozenset(("hi", "sw"))}
    assert (slavic.label, set(slavic.languages)) == ("slavic", set(SLAVIC))


def test_the_base_study_is_there_to_be_switched_on() -> None:
    text = shipped()["paper"].read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "study: base" in line)
    (study,) = yaml.safe_load(line.replace("# ", "", 1))
    assert set(BaseStudy.model_validate(study).languages) == set(MAIN12)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_optimizer_of_an_engine_is_the_papers(tmp_path: Path, stage: int) -> None:
    from trainables.tuning_model import load_for_tuning
    from trainables.world import join_world, start_engine

    base = random_model(tmp_path, 0)
    recipe: Recipe = load("paper").sweep.recipe
    model, applied = load_for_tuning(base, recipe, 0, "sdpa", False)
    engine = start_engine(model, recipe, Settled(stage, 4, False, False), join_world(), 32)
    try:
        (group,) = engine.basic_optimizer.param_groups
        assert type(engine.basic_optimizer).__name__ == "AdamW"
        assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-5, (0.9, 0.999), 0.0)
        assert engine.gradient_clipping() == 1.0
        assert engine.lr_scheduler is None
        assert engine.train_batch_size() == 128
    finally:
        engine.destroy()
    assert applied == {"layers": 2, "attention": 2, "residual": 4}
