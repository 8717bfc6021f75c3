"""What makes two steps the same."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from orchestrator.identity import KEY_SCHEMA, Form, Step, differences, key_of
from orchestrator.plan import Plan
from orchestrator.sweep import Sweep, load
from trainables.spec import Spec

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_a_key_survives_being_written_and_read_back(payload: dict[str, Any]) -> None:
    assert key_of(json.loads(json.dumps(payload))) == key_of(payload)


def test_a_step_whose_key_is_known_travels_to_another_process() -> None:
    base = Step(kind="base", name="tiny", payload={"model": "tiny"})
    form = Form("generation_set", {"sampling": {"seed": 0}}, {"weights": 0}, {"prompts": 6})
    step = Step(kind="generation_set", name="m.fi", payload=form, needs=(base,))
    known = (step.key, step.family, step.payload, step.folder)
    there = pickle.loads(pickle.dumps(step))
    assert (there.key, there.family, there.payload, there.folder) == known
    fresh = Step(kind="generation_set", name="m.fi", payload=there._form, needs=there.needs)
    assert (fresh.key, fresh.family) == known[:2], "worked out there"


@given(st.dictionaries(st.text(), json_values, min_size=2, max_size=6))
def test_a_key_does_not_depend_on_the_order_of_fields(payload: dict[str, Any]) -> None:
    assert key_of(dict(reversed(list(payload.items())))) == key_of(payload)


def test_one_and_one_point_zero_are_one_value() -> None:
    assert key_of({"rate": 1}) == key_of({"rate": 1.0})


def test_a_folder_is_called_like_its_step_as_far_as_a_file_system_goes() -> None:
    payload = {"a": 1}
    key = Step(kind="fine_tune", name="x", payload=payload).key
    usual = "uniform-ar+cs+en+es+et+fi+he+hi+it+ru+sw+zh.base"
    longest = "uniform-" + "+".join(f"l{number}" for number in range(91))
    for name, kept in ((usual, usual), ("a" * 120, "a" * 120), (longest, longest[:120]), ("ä" * 70 + "x", "ä" * 60)):
        assert Step(kind="fine_tune", name=name, payload=payload).folder == f"{kept}-{key[:16]}"


def test_what_json_cannot_say_has_no_key() -> None:
    with pytest.raises(Exception, match=r"(?i)nan|float|domain"):
        key_of({"rate": float("nan")})


def test_a_field_without_a_role_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="neither identity"):

        class Careless(Spec):
            size: int = 3


def _specs(model: type[BaseModel], seen: set[type]) -> None:
    if model in seen:
        return
    seen.add(model)
    for field in model.model_fields.values():
        stack = [field.annotation]
        while stack:
            kind = stack.pop()
            stack.extend(get_args(kind))
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                _specs(kind, seen)


def test_every_field_of_every_spec_in_a_sweep_is_classified() -> None:
    seen: set[type] = set()
    _specs(Sweep, seen)
    assert len(seen) >= 14
    for spec in seen:
        assert issubclass(spec, Spec), f"{spec.__name__} is not a Spec"
        for name, field in spec.model_fields.items():
            assert isinstance(field.json_schema_extra, dict), f"{spec.__name__}.{name}"
            assert field.json_schema_extra["role"] in ("identity", "runtime")


def _keys(*overrides: str, sweep: str = "demo") -> set[str]:
    return {step.key for step in Plan(load(sweep, list(overrides))).steps}


RUNTIME = (
    "name=other",
    "runtime.engine=transformers",
    "runtime.gpus_per_fine_tune=2",
    "runtime.gpus_per_engine=2",
    "runtime.gpus_per_judge=2",
    "runtime.zero_stage=3",
    "runtime.micro_batch=4",
    "runtime.offload=true",
    "runtime.gradient_checkpointing=true",
    "runtime.keep=scores",
    "runtime.canary=true",
    "runtime.silence=60",
    "runtime.max_cost=10",
    "runtime.prices={gpu_hour: {amount: 2, date: 2026-11-01}}",
)
IDENTITY = (
    "recipe.steps=99",
    "recipe.batch_size=16",
    "recipe.learning_rate=1.0e-3",
    "recipe.dropout=0.1",
    "recipe.max_input_tokens=100",
    "recipe.max_target_tokens=50",
    "recipe.checkpoint_every=25",
    "recipe.precision=fp32",
    "recipe.method=lora",
    "sampling.temperature=0.5",
    "sampling.top_p=0.8",
    "sampling.max_new_tokens=40",
    "seeds.mixture=1",
    "seeds.train=[1]",
    "seeds.sampling=1",
    "corpus.train_count=1500",
    "corpus.dev_count=30",
    "corpus.eval_count=47",
    "judge={kind: local, model: tiny}",
)


@pytest.mark.parametrize("override", RUNTIME)
def test_runtime_settings_move_no_key(override: str) -> None:
    assert _keys(override) == _keys()


@pytest.mark.parametrize("override", IDENTITY)
def test_identity_settings_move_keys(override: str) -> None:
    assert _keys(override) != _keys()


def test_the_runtime_settings_tested_are_all_there_are() -> None:
    tested = {override.split("=")[0].removeprefix("runtime.") for override in RUNTIME} - {"name"}
    assert tested == set(Sweep.model_fields["runtime"].default.model_dump())


def test_the_order_of_languages_moves_no_key() -> None:
    assert _keys("studies.0.languages=[ru,fi,es,en]", "studies.1.languages=[fi,en,ru,es]") == _keys()


def test_a_fifth_language_tunes_no_monolingual_model_again() -> None:
    before = Plan(load("demo"))
    after = Plan(
        load(
            "demo",
            ["corpus.languages=[en,es,fi,ru,sw]", "studies.0.languages=[en,es,fi,ru,sw]"],
        )
    )
    keys = {step.key for step in after.steps}
    for model in before.models:
        assert model.fine_tune is not None
        assert model.fine_tune.key in keys
    new = [step for step in after.of_kind("fine_tune") if step.key not in {s.key for s in before.steps}]
    assert [step.name for step in new] == ["mono-sw"]


def test_another_judge_is_another_comparison_and_nothing_else() -> None:
    changed = _keys("judge={kind: local, model: tiny}") - _keys()
    plan = Plan(load("demo", ["judge={kind: local, model: tiny}"]))
    assert {step.kind for step in plan.steps if step.key in changed} == {"comparison"}


def test_more_eval_prompts_tune_nothing_again_and_stay_in_the_family() -> None:
    before, after = Plan(load("demo")), Plan(load("demo", ["corpus.eval_count=60"]))
    for kind in ("fine_tune", "selection"):
        assert [step.key for step in before.of_kind(kind)] == [step.key for step in after.of_kind(kind)]
    for kind in ("generation_set", "comparison"):
        assert not {step.key for step in before.of_kind(kind)} & {step.key for step in after.of_kind(kind)}
        assert [step.family for step in before.of_kind(kind)] == [step.family for step in after.of_kind(kind)]


def test_lora_settings_move_no_key_of_a_full_fine_tune() -> None:
    assert _keys("recipe.rank=4", "recipe.alpha=8") == _keys()
    assert _keys("recipe.method=lora", "recipe.rank=4") != _keys("recipe.method=lora")


def test_a_template_counts_by_its_text_not_its_name(tmp_path: Path) -> None:
    import trainables

    shipped = Path(trainables.__file__).parent / "templates" / "plain.txt"
    copy = tmp_path / "copy.txt"
    copy.write_bytes(shipped.read_bytes())
    assert _keys(f"recipe.template={copy}") == _keys()
    copy.write_text("Another {instruction}")
    assert _keys(f"recipe.template={copy}") != _keys()


@pytest.mark.parametrize("sweep", ["paper", "demo"])
def test_a_plan_has_the_same_bytes_under_every_hash_seed(sweep: str) -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "plan", sweep, "--json", "--store", "/nonexistent/pinch"],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "4242")
    }
    assert len(outputs) == 1


def test_differences_name_the_field_and_both_values() -> None:
    old = {"recipe": {"learning_rate": 1e-05, "steps": 10}, "base": "a" * 64}
    new = {"recipe": {"learning_rate": 2e-05, "steps": 10}, "base": "b" * 64}
    assert differences(old, new) == ["base aaaaaaaaaaaa… -> bbbbbbbbbbbb…", "recipe.learning_rate 1e-05 -> 2e-05"]
    assert differences(old, old) == []


def test_steps_of_different_kinds_never_share_a_key() -> None:
    keys = [Step(kind=kind, name="x", payload={"a": 1}).key for kind in ("base", "corpus", "fine_tune")]
    assert all(first != second for first, second in itertools.combinations(keys, 2))


@given(st.dictionaries(st.text(), json_values, max_size=4), st.dictionaries(st.text(), json_values, max_size=2))
def test_a_form_gives_the_key_of_the_whole_payload(common: dict[str, Any], counted: dict[str, Any]) -> None:
    needs = [Step(kind="base", name=str(at), payload={"at": at, "rows": 1}, family_payload={"at": at}) for at in (0, 1)]
    form = Form("comparison", common, reads={"model": 1, "baseline": 0}, counted=counted)
    step = Step(kind="comparison", name="x", payload=form, needs=tuple(needs))
    keys = {"baseline": needs[0].key, "model": needs[1].key}
    families = {"baseline": needs[0].family, "model": needs[1].family}
    assert step.payload == {**common, **counted, **keys}
    assert step.key == key_of({"schema": KEY_SCHEMA, "kind": "comparison", **common, **counted, **keys})
    assert step.family == key_of({"schema": KEY_SCHEMA, "kind": "comparison", **common, **families})


def test_a_family_is_a_part_of_its_payload() -> None:
    with pytest.raises(ValueError, match="no part of its payload"):
        Step(kind="corpus", name="x", payload={"a": 1, "rows": 2}, family_payload={"a": 2})


GOLDEN = {
    ("demo",): "d39434fe72b2ef6bcb9ef2225a11949abbe15c36178e041852862dc476fe9508",
    ("demo", "seeds.train=[0,1]"): "9b36ab2e1b5830607060cdfa956813e9178cba6f3a665fad2c3da6cdca70ac65",
    (
        "demo",
        "studies.2={study: custom, mixtures: {mine: {en: 400, fi: 80}, whole: {en: 1000, ru: 300, fi: 300}}, "
        "evaluate_in: [en, es]}",
    ): "8f1824968d6a2d01e9c65bada665ceafa4e2d6a4007826d8819c0263e6236db8",
    ("demo", "judge={kind: local, model: tiny}"): "24d860b467ca3dc8d2724c72ffec47b844649dbc4fe238b7d9b05cd25c4e4655",
    ("paper-tiny",): "88ad3aec3afd33846d82e03510804a490d3cf70f5892b691c505836ec9dd0de2",
    ("paper",): "850450b5f4d40d44a7e18fa32092124180f1fb8d11fd740a081e181f5ba1fb32",
}
"""Sweep and overrides -> sha256 over kind, name, key and family of every step. With another value, results that
somebody has in a store are made again: to be changed together with a RESULT_VERSION, or KEY_SCHEMA, and never else."""


@pytest.mark.parametrize("asked", GOLDEN, ids=lambda asked: " ".join(asked)[:30])
def test_the_keys_of_shipped_sweeps_are_what_they_were(asked: tuple[str, ...]) -> None:
    lines = [
        f"{step.kind} {step.name} {step.key} {step.family}\n" for step in Plan(load(asked[0], list(asked[1:]))).steps
    ]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == GOLDEN[asked]
