"""Engines: the right weights answer, each request by its own seed, and what goes wrong is said."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import byte_tokenizer, nudged, random_adapter, random_model
from trainables.batches import prompt_ids
from trainables.engines import loading
from trainables.errors import EnvironmentProblem
from trainables.generate import EngineSettings, Prompt, Sampling, Weights, WrongWeights, make_engine

SETTINGS = EngineSettings(device="cpu", threads=1, max_sequences=64)
SAMPLED = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=24)
GREEDY = Sampling(temperature=0, max_new_tokens=12)
WORDS = ("Name this country: FI", "Nimeä tämä maa", "Назови", "1, 2, 3", "x", "What follows May? " * 3)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {name: random_model(root / name, seed) for seed, name in enumerate(("base", "one", "two"))}
    made["near"] = nudged(root / "near", made["one"], by=0.01)
    made["twin"] = Path(shutil.copytree(made["one"], root / "twin"))
    made["liar"] = Path(shutil.copytree(made["one"], root / "liar"))
    shutil.copy(made["two"] / "probe.json", made["liar"] / "probe.json")
    return made


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    """Engines own their process's environment; this process is also other tests'."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def engine(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[Any]:
    """An engine on ``base``; ``started`` holds what one started on ``two`` said to the same prompts."""
    other, _ = make_engine(request.param, folders["two"], "full", 192, settings=SETTINGS)
    started = other.generate(prompts(), SAMPLED)
    other.close()
    opened, _ = make_engine(request.param, folders["base"], "full", 192, settings=SETTINGS)
    opened.started = started
    yield opened
    opened.close()


def prompts(count: int = 60) -> list[Prompt]:
    tokenizer = byte_tokenizer()
    return [
        Prompt(f"p{number}", prompt_ids(tokenizer, f"{WORDS[number % len(WORDS)]} {number}"), 1000 + number)
        for number in range(count)
    ]


def full(folders: dict[str, Path], name: str) -> Weights:
    return Weights(name=name, kind="full", folder=folders[name])


def test_swapped_weights_answer_as_an_engine_started_on_them(engine: Any, folders: dict[str, Path]) -> None:
    engine.load(full(folders, "one"))
    assert engine.generate(prompts(), SAMPLED) != engine.started
    engine.load(full(folders, "two"))
    assert engine.generate(prompts(), SAMPLED) == engine.started


def test_the_base_comes_back_after_a_fine_tune(engine: Any, folders: dict[str, Path]) -> None:
    base = Weights(name="base", kind="base", folder=folders["base"])
    engine.load(base)
    before = engine.generate(prompts(), SAMPLED)
    engine.load(full(folders, "one"))
    engine.load(base)
    assert engine.generate(prompts(), SAMPLED) == before


def test_weights_that_do_not_answer_their_probe_are_refused_until_others_do(
    engine: Any, folders: dict[str, Path]
) -> None:
    with pytest.raises(WrongWeights, match="after loading liar"):
        engine.load(full(folders, "liar"))
    with pytest.raises(WrongWeights, match="last load failed"):
        engine.generate(prompts(1), SAMPLED)
    engine.load(full(folders, "one"))
    assert len(engine.generate(prompts(1), SAMPLED)) == 1


def test_a_swap_that_changes_nothing_is_caught_between_weights_no_tolerance_tells_apart(
    engine: Any, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.load(full(folders, "one"))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_swap", lambda weights: None)
        with pytest.raises(WrongWeights, match="changed nothing"):
            engine.load(full(folders, "near"))
    engine.load(full(folders, "one"))
    engine.load(full(folders, "near"))


def test_the_same_weights_in_another_folder_are_no_failed_swap(engine: Any, folders: dict[str, Path]) -> None:
    engine.load(full(folders, "one"))
    engine.load(full(folders, "twin"))


def test_weights_without_a_probe_are_refused(engine: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    bare = shutil.copytree(folders["one"], tmp_path / "bare")
    (bare / "probe.json").unlink()
    with pytest.raises(WrongWeights, match="cannot be proved"):
        engine.load(Weights(name="bare", kind="full", folder=bare))
    engine.load(full(folders, "one"))


def test_the_same_prompts_get_the_same_texts_and_another_seed_another_text(
    engine: Any, folders: dict[str, Path]
) -> None:
    engine.load(full(folders, "one"))
    first = engine.generate(prompts(), SAMPLED)
    assert engine.generate(prompts(), SAMPLED) == first
    reseeded = [dataclasses.replace(prompt, seed=prompt.seed + 1) for prompt in prompts()]
    texts = [response.text for response in engine.generate(reseeded, SAMPLED)]
    assert sum(text != response.text for text, response in zip(texts, first, strict=True)) > len(first) * 0.9


def test_with_vllm_on_a_cpu_a_small_models_texts_do_not_depend_on_the_batch(
    engine: Any, folders: dict[str, Path]
) -> None:
    if engine.name != "vllm":
        pytest.skip("promised of vLLM only")
    engine.load(full(folders, "one"))
    for sampling in (SAMPLED, GREEDY):
        together = engine.generate(prompts(), sampling)
        assert engine.generate(prompts()[::-1], sampling) == together[::-1]
        assert engine.generate(prompts()[::3], sampling) == together[::3]
        assert [engine.generate([prompt], sampling)[0] for prompt in prompts(6)] == together[:6]


def test_responses_come_in_the_order_of_the_prompts_and_progress_reaches_the_total(
    engine: Any, folders: dict[str, Path]
) -> None:
    engine.load(full(folders, "one"))
    seen: list[tuple[int, int]] = []
    responses = engine.generate(prompts(), SAMPLED, lambda done, total: seen.append((done, total)))
    assert [response.id for response in responses] == [prompt.id for prompt in prompts()]
    assert seen[-1] == (60, 60)
    assert seen == sorted(seen)
    assert engine.generate([], SAMPLED) == []


def test_an_interrupted_call_leaves_nothing_to_the_next(engine: Any, folders: dict[str, Path]) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    engine.load(full(folders, "two"))
    with pytest.raises(KeyboardInterrupt):
        engine.generate(prompts(), SAMPLED, interrupt)
    assert engine.generate(prompts(), SAMPLED) == engine.started


def test_a_response_stops_at_the_end_token_or_at_the_limit_and_shows_no_control_tokens(
    engine: Any, folders: dict[str, Path]
) -> None:
    engine.load(full(folders, "one"))
    responses = engine.generate(prompts(60), Sampling(temperature=2.0, top_p=1.0, max_new_tokens=100))
    assert {response.finish for response in responses} == {"stop", "length"}
    for response in responses:
        assert (response.tokens == 100) or response.finish == "stop"
        assert not any(token in response.text for token in ("<s>", "</s>", "<pad>"))


def test_greedy_ignores_the_seed(engine: Any, folders: dict[str, Path]) -> None:
    engine.load(full(folders, "one"))
    reseeded = [dataclasses.replace(prompt, seed=7) for prompt in prompts()]
    assert engine.generate(reseeded, GREEDY) == engine.generate(prompts(), GREEDY)


def test_choosing_takes_the_likelier_of_the_options(engine: Any, folders: dict[str, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    engine.load(full(folders, "two"))
    model = AutoModelForCausalLM.from_pretrained(folders["two"], dtype=torch.bfloat16)
    asked = [prompt.token_ids for prompt in prompts(30)]
    options = (20, 21)
    chosen = engine.choose(asked, options)
    clear = 0
    for ids, token in zip(asked, chosen, strict=True):
        one, two = model(input_ids=torch.tensor([ids])).logits[0, -1, list(options)].tolist()
        if abs(one - two) > 0.2:
            clear += 1
            assert token == options[0 if one > two else 1]
    assert clear > 15


def test_a_prompt_that_does_not_fit_is_refused_by_name(engine: Any, folders: dict[str, Path]) -> None:
    engine.load(full(folders, "one"))
    with pytest.raises(ValueError, match="'long' has 180 tokens"):
        engine.generate([Prompt("long", [5] * 180, 0)], SAMPLED)


def test_an_engine_for_full_fine_tunes_takes_no_adapter(engine: Any, folders: dict[str, Path]) -> None:
    engine.load(full(folders, "one"))
    with pytest.raises(ValueError, match="opened for method 'full'"):
        engine.load(Weights(name="a", kind="lora", folder=folders["one"]))
    assert engine.generate(prompts(1), SAMPLED)


def test_weights_of_another_shape_end_the_engines_answers(
    engine: Any, folders: dict[str, Path], tmp_path: Path
) -> None:
    """The last of the engine's tests: vLLM does not recover from a reload that failed half-way."""
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(folders["one"], tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"] = tensors["model.layers.0.self_attn.q_proj.weight"][:5].clone()
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongWeights, match="could not be loaded"):
        engine.load(Weights(name="broken", kind="full", folder=broken))
    with pytest.raises(WrongWeights, match="last load failed"):
        engine.generate(prompts(1), SAMPLED)


@pytest.mark.parametrize("choice", ["vllm", "transformers"])
def test_an_adapter_answers_and_not_the_base_or_another_adapter(
    choice: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = folders["base"]
    one, two = (
        Weights(name=name, kind="lora", folder=random_adapter(tmp_path / name, base, seed))
        for seed, name in enumerate(("a1", "a2"))
    )
    idle = Weights(name="idle", kind="lora", folder=random_adapter(tmp_path / "idle", base, 5, spread=0))
    engine, _ = make_engine(choice, base, "lora", 192, max_rank=4, settings=SETTINGS)
    try:
        untouched = engine.generate(prompts(), SAMPLED)
        engine.load(one)
        first = engine.generate(prompts(), SAMPLED)
        engine.load(two)
        second = engine.generate(prompts(), SAMPLED)
        engine.load(Weights(name="base", kind="base", folder=base))
        assert engine.generate(prompts(), SAMPLED) == untouched
        engine.load(one)
        assert engine.generate(prompts(), SAMPLED) == first
        assert len({tuple(r.text for r in texts) for texts in (untouched, first, second)}) == 3
        engine.load(idle)  # an untrained adapter is the base, and that is no error
        assert [r.text for r in engine.generate(prompts(), GREEDY)]

        engine.load(Weights(name="base", kind="base", folder=base))
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_swap", lambda weights: None)
            patch.setattr(loading, "TOLERANCE", 10.0)
            with pytest.raises(WrongWeights, match="changed nothing"):
                engine.load(two)
    finally:
        engine.close()


def test_a_base_with_a_tied_head_is_refused_by_vllm(tmp_path: Path) -> None:
    tied = random_model(tmp_path / "tied", 0, tied=True)
    with pytest.raises(EnvironmentProblem, match="ties its output head"):
        make_engine("vllm", tied, "full", 192, settings=SETTINGS)


def test_an_engine_that_cannot_start_says_why(folders: dict[str, Path]) -> None:
    with pytest.raises(EnvironmentProblem, match=r"vLLM could not start on .*base.*engine: transformers"):
        make_engine("vllm", folders["base"], "full", 100_000, settings=SETTINGS)


def test_without_vllm_auto_takes_transformers_and_says_so(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    engine, sentence = make_engine("auto", folders["base"], "full", 192, settings=SETTINGS)
    assert engine.name == "transformers"
    assert "because vLLM cannot run here" in sentence
    with pytest.raises(EnvironmentProblem, match=r"runtime\.engine: transformers"):
        make_engine("vllm", folders["base"], "full", 192, settings=SETTINGS)


def test_naming_engines_and_judges_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'vllm', 'lingua'}"
    code = f"import sys, trainables.generate, trainables.judges; sys.exit(bool({heavy} & set(sys.modules)))"
    root = Path(__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False, timeout=60).returncode == 0
