"""A plan needs no data, no network and no store, and comes to the paper's numbers."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from orchestrator.cost import estimate
from orchestrator.export.licences import licences
from orchestrator.plan import Plan, mixture_rows
from orchestrator.store import Store
from orchestrator.sweep import load, shipped
from tests.conftest import Pinch
from tests.page_example import finished_store
from trainables.errors import UserError


def test_the_papers_sweep_comes_to_the_papers_numbers(pinch: Pinch) -> None:
    plan = json.loads(pinch("plan", "paper", "--json").stdout)
    counts = {name: value for name, value in plan.items() if isinstance(value, int)}
    assert counts == {
        "listed_models": 79,
        "fine_tunes": 56,
        "generation_sets": 579,
        "comparisons": 562,
        "judge_calls": 693508,
    }
    assert len(plan["models"]) == 56
    assert len({model["key"] for model in plan["models"]}) == 56
    steps = Counter(step["kind"] for step in plan["steps"])
    assert steps["fine_tune"] == steps["selection"] == 56
    assert steps["generation_set"] == 579
    assert steps["comparison"] == 562
    assert {step["action"] for step in plan["steps"]} == {"run"}
    assert all(len(step["key"]) == 64 for step in plan["steps"])


def test_what_another_base_took_says_nothing_of_this_one(tmp_path: Path) -> None:
    tiny = Plan(load("demo"))
    store = Store(tmp_path / "store")
    store.create()
    for kind in ("base", "corpus", "fine_tune", "selection", "generation_set"):
        step = tiny.of_kind(kind)[0]
        store.publish(step, store.attempt(step), {"seconds": 2.0})
    larger = Plan(load("demo", ["seeds.sampling=1", "seeds.train=[1]"]))
    kinds = {"selection": 10, "generation_set": 36}
    assert estimate(larger, store, kinds).seconds == {"selection": 20.0, "generation_set": 72.0}
    for other, missing in (
        (Plan(load("gemma-270m")), kinds),
        (Plan(load("paper")), {**kinds, "base": 2, "corpus": 17}),
    ):
        assert set(estimate(other, store, missing).seconds.values()) == {None}


def test_base_adds_twelve_sets_and_144_comparisons(pinch: Pinch) -> None:
    plan = Plan(load("paper-tiny"))
    assert plan.counts()["generation_sets"] == 579 + 12
    assert plan.counts()["comparisons"] == 562 + 144
    assert len(plan.cells) == 769 + 144


def test_forty_examples_of_the_paper_are_forty(pinch: Pinch) -> None:
    rows = list(csv.DictReader(io.StringIO(pinch("mixture", "paper", "pinch-12-n40").stdout)))
    assert len(rows) == len({row["id"] for row in rows}) == 4640
    counts = Counter(row["language"] for row in rows)
    assert counts.pop("en") == 4600
    assert sum(counts.values()) == 40
    assert set(counts.values()) == {3, 4}
    dev = Plan(load("paper")).dev
    assert not [row for row in rows if row["language"] != "en" and row["id"] in dev]


def test_a_model_is_found_by_any_name_and_by_its_key() -> None:
    plan = Plan(load("demo"))
    by_name = plan.find_model("pinch-4-p100")
    assert by_name is plan.find_model("uniform-en+es+fi+ru")
    assert by_name is plan.find_model(by_name.key[:8])
    with pytest.raises(UserError, match="is not one of"):
        plan.find_model("mono-xx")


def test_baselines_come_first() -> None:
    plan = Plan(load("paper"))
    fine_tunes = [model for model in plan.models if model.fine_tune]
    baselines = plan.baseline_keys()
    first = [model.key in baselines for model in fine_tunes]
    assert first == sorted(first, reverse=True)


def test_every_seed_is_a_model_with_a_baseline_of_its_own() -> None:
    plan = Plan(load("demo", ["seeds.train=[0, 1]"]))
    assert plan.counts()["fine_tunes"] == 20
    assert {model.name for model in plan.models} >= {"mono-fi-s0", "mono-fi-s1"}
    for cell in plan.cells:
        assert cell.baseline.seed == cell.model.seed
    keys = {step.key for step in Plan(load("demo")).of_kind("fine_tune")}
    assert keys <= {step.key for step in plan.of_kind("fine_tune")}, "the first seed's models stay what they were"


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_sweep_has_a_plan(name: str) -> None:
    plan = Plan(load(name))
    assert plan.sweep.name == name
    assert plan.steps


def test_inputs_come_before_what_needs_them() -> None:
    seen: set[str] = set()
    for step in Plan(load("demo", ["judge={kind: local, model: tiny}"])).steps:
        assert all(needed.key in seen for needed in step.needs), step.name
        seen.add(step.key)


def test_a_plan_names_the_terms_of_every_input(pinch: Pinch) -> None:
    told = json.loads(pinch("plan", "paper", "--json").stdout)["licences"]
    inputs = {licence["name"]: (licence["what"], licence["terms"].partition(",")[0]) for licence in told}
    assert inputs == {
        "LIMA": ("training examples", "CC BY-NC-SA"),
        "OpenAssistant Conversations (OASST1)": ("training examples", "Apache-2.0"),
        "AlpacaFarm evaluation data": ("evaluation prompts", "CC BY-NC 4.0"),
        "google-nmt": ("translator, behind an endpoint", "the terms of Google Cloud"),
        "Qwen/Qwen2.5-7B": ("base model", "Apache-2.0"),
        "Qwen/Qwen2.5-14B-Instruct": ("judge", "Apache-2.0"),
    }
    pages = ("https://huggingface.co/", "https://cloud.google.com/")
    assert all(licence["url"].startswith(pages) for licence in told)
    said = pinch("plan", "paper", "--set", "corpus.train=[lima]", "--set", "corpus.train_count=1000").stderr
    assert "LIMA (training examples): CC BY-NC-SA" in said
    assert "OASST1" not in said


def test_what_cannot_be_known_of_an_input_is_said_to_be_the_users_to_look_up(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    save_file({}, tmp_path / "model" / "model.safetensors")
    told = licences(Plan(load("demo", [f"judge={{kind: local, model: {tmp_path / 'model'}}}"])))
    assert [licence.what for licence in told] == ["all examples", "base model", "judge"]
    assert told[-1].terms.startswith("yours to look up")


def test_planning_writes_nothing(pinch: Pinch, tmp_path: Path) -> None:
    for command in (["plan", "demo"], ["status", "demo"], ["scores", "demo"], ["mixture", "demo", "mono-fi"]):
        pinch(*command)
    assert list((tmp_path / "here").iterdir()) == []


def test_every_setting_says_where_it_came_from(pinch: Pinch) -> None:
    printed = pinch("plan", "demo", "--settings", "--set", "recipe.steps=7").stdout
    settings = {row["setting"]: row for row in csv.DictReader(io.StringIO(printed))}
    assert settings["recipe.steps"] == {"setting": "recipe.steps", "value": "7", "from": "--set recipe.steps=7"}
    assert settings["recipe.batch_size"]["from"].endswith("demo.yaml")
    assert settings["runtime.keep"] == {"setting": "runtime.keep", "value": '"all"', "from": "default"}


def test_settings_for_programs_are_json(pinch: Pinch) -> None:
    told = json.loads(pinch("plan", "demo", "--json", "--settings", "--set", "recipe.steps=7").stdout)["settings"]
    assert {"setting": "recipe.steps", "value": 7, "from": "--set recipe.steps=7"} in told
    assert {"setting": "runtime.max_cost", "value": None, "from": "default"} in told


def test_the_mixture_of_the_base_is_refused() -> None:
    plan = Plan(load("paper-tiny"))
    with pytest.raises(UserError, match="not tuned"):
        list(mixture_rows(plan.find_model("base")))


def test_a_cost_counts_every_gpu_that_a_step_holds(small: Path, tmp_path: Path) -> None:
    _, store = finished_store(small, tmp_path / "store")
    price = "runtime.prices={gpu_hour: {amount: 3, date: 2026-11-01}}"
    one = estimate(Plan(load(str(small), [price])), store, {"fine_tune": 2, "selection": 2, "comparison": 5})
    four = Plan(load(str(small), [price, "runtime.gpus_per_fine_tune=4", "runtime.gpus_per_engine=2"]))
    many = estimate(four, store, {"fine_tune": 2, "selection": 2, "comparison": 5})
    assert one.gpu_cost == pytest.approx((2 * 15 + 2 * 1) / 3600 * 3), "a reference judge takes no GPU"
    assert many.gpu_cost == pytest.approx((2 * 15 * 4 + 2 * 1 * 2) / 3600 * 3)
