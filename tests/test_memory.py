"""Rules of the memory a fine-tune is said to take: held against real engines, and what follows from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from orchestrator.gpu_memory import check
from orchestrator.run import gpus
from orchestrator.sweep import load
from tests.conftest import Pinch
from tests.engine_bytes import CASES, case, label
from tests.tiny_models import random_model
from tests.tuning_examples import make_tiny, write_examples
from trainables.batches import micro_batches
from trainables.errors import EnvironmentProblem, UserError
from trainables.memory import BUCKET, Settled, element_bytes, memory_need
from trainables.model_shape import ModelShape, read_shape
from trainables.parallel import Parallel, choose, layouts
from trainables.recipe import Recipe
from trainables.tuning_model import load_for_tuning, tensors

GB = 1e9
SEVEN_BILLION = ModelShape(
    parameters=7_500_000_000,
    hidden=4096,
    layers=32,
    vocabulary=128_000,
    feed_forward=11_008,
    gated=True,
    norms=2,
    heads=32,
    queries=4096,
    keys=4096,
    matrices=(("lm_head", 128_000, 4096), *(("q_proj", 4096, 4096), ("v_proj", 4096, 4096)) * 32),
)
LONGEST = 1536


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_tiny(folder, monkeypatch)
    write_examples(folder / "examples.parquet")
    return folder


@pytest.fixture(scope="module")
def held(room: Path) -> dict[str, int]:
    """What real engines hold, measured in a process without the tensors of other tests."""
    command = [sys.executable, "-m", "tests.engine_bytes", str(room)]
    measured = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert measured.returncode == 0, measured.stderr
    return json.loads(measured.stdout.splitlines()[-1])


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(("stage", "offload", "precision", "method"), CASES)
def test_weights_gradients_and_optimizer_are_the_bytes_of_a_real_engine(room, held, stage, offload, precision, method):
    recipe, settled = case(stage, offload, precision, method)
    shape = read_shape(room / "tiny")
    need = memory_need(shape, recipe, settled, 1, 64)
    element = element_bytes(recipe)
    # Of what DeepSpeed communicates through, this much is there outside of a pass.
    buffers = element * BUCKET if stage == 3 or (stage, precision) == (1, "fp32") else 0
    if offload and stage == 2:
        buffers += element * shape.largest_trained(recipe)
    expected = need.weights + need.gradients + need.optimizer + need.host + buffers
    found = held[label(stage, offload, precision, method)]
    assert abs(found - expected) <= 512, (found, expected)  # step counters, rotary frequencies


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_activations_are_about_what_a_real_model_keeps_for_the_backward_pass(room, precision):
    recipe = Recipe(precision=precision, dropout=0.0, max_target_tokens=40)
    model, _ = load_for_tuning(room / "tiny", recipe, 0, "sdpa", False)
    model.train()
    examples = [([1, *range(5, 64)], list(range(70, 110)))] * 4
    (same,) = micro_batches(examples, 4, 0)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**tensors(same, torch.device("cpu")))
    shape = read_shape(room / "tiny")
    need = memory_need(shape, recipe, Settled(1, 4, False, False), 1, 100)
    logits = 4 * 40 * shape.vocabulary
    in_the_backward_pass = (2 if precision == "bf16" else 4) * logits + 8 * logits
    assert loss.item() > 0
    assert sum(kept.values()) == pytest.approx(need.activations - in_the_backward_pass, rel=0.15)


def test_a_model_is_as_large_by_its_weights_as_by_its_configuration_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

    same = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
    configs = {
        "llama": LlamaConfig(**same, intermediate_size=80, num_key_value_heads=2, tie_word_embeddings=False),
        "gemma": Gemma3TextConfig(**same, intermediate_size=80, num_key_value_heads=1, head_dim=16),
        "gpt2": GPT2Config(vocab_size=300, n_embd=32, n_layer=3, n_head=4, n_positions=64),
    }
    found = {}
    for name, config in configs.items():
        folder = tmp_path / name
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        whole = read_shape(folder)
        (folder / "model.safetensors").unlink()
        found[name] = read_shape(folder)
        assert found[name] == whole
    assert found["llama"].parameters == 2 * 300 * 32 + 3 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 80 + 2 * 32) + 32
    assert (found["gemma"].norms, found["gemma"].queries, found["gemma"].keys) == (4, 64, 16)
    assert (found["gpt2"].gated, found["gpt2"].feed_forward) == (False, 128)


def test_a_configuration_without_sizes_is_refused_with_its_file(tmp_path: Path) -> None:
    random_model(tmp_path, 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    with pytest.raises(UserError, match=r"config\.json: says no num_hidden_layers"):
        read_shape(tmp_path)


def total(stage: int, workers: int, recipe: Recipe = Recipe(), offload: bool = False) -> float:
    return memory_need(SEVEN_BILLION, recipe, Settled(stage, 1, True, offload), workers, LONGEST).gpu / GB


def test_states_are_divided_over_workers_as_zero_divides_them():
    p = 7.5  # gigabytes a byte per parameter
    per_stage = {
        stage: memory_need(SEVEN_BILLION, Recipe(), Settled(stage, 1, True, False), 8, 1) for stage in range(4)
    }
    states = {stage: (need.weights + need.gradients + need.optimizer) / GB for stage, need in per_stage.items()}
    assert states == pytest.approx({0: 16 * p, 1: 8 * p + 12 / 8 * p, 2: 2 * p + 16 / 8 * p, 3: 18 / 8 * p})
    assert total(1, 8) > total(2, 8) > total(3, 8) > total(2, 8, offload=True)
    assert total(2, 1, Recipe(method="lora")) < 20 < total(2, 1)


def test_the_fastest_layout_that_fits_is_chosen():
    def chosen(gigabytes: float, recipe: Recipe, workers: int, host: float = 1000) -> Settled | None:
        return choose(Parallel(), recipe, SEVEN_BILLION, workers, LONGEST, gigabytes * GB, host * GB)

    full, lora = Recipe(batch_size=128), Recipe(batch_size=128, method="lora")
    assert chosen(1000, full, 1) == Settled(1, max_examples(1000, full), False, False)
    assert str(chosen(80, full, 4)).startswith("ZeRO 2")
    assert str(chosen(30, full, 8)).startswith("ZeRO 3")
    alone = chosen(40, full, 1)
    assert alone is not None
    assert alone.offload
    assert chosen(40, full, 1, host=100) is None
    assert str(chosen(24, lora, 1)) == "ZeRO 1, gradient checkpointing"
    assert chosen(10, lora, 1) is None


def max_examples(gigabytes: float, recipe: Recipe) -> int:
    sizes = range(1, recipe.batch_size + 1)
    needs = {size: memory_need(SEVEN_BILLION, recipe, Settled(1, size, False, False), 1, LONGEST).gpu for size in sizes}
    return max(size for size, need in needs.items() if need <= gigabytes * GB)


def test_what_the_user_sets_is_the_only_layout():
    fixed = Parallel(zero_stage=3, micro_batch=5, gradient_checkpointing=False, offload=False)
    assert list(layouts(fixed)) == [Settled(3, 5, False, False)]
    assert {layout.zero_stage for layout in layouts(Parallel(zero_stage=1, offload=True))} == {2}


def test_a_run_that_does_not_fit_is_refused_with_what_would_make_it_fit():
    sweep = load("paper", ["runtime.offload=false", "runtime.gradient_checkpointing=false"]).sweep
    with pytest.raises(EnvironmentProblem) as refused:
        check(sweep, SEVEN_BILLION, 1, 80 * GB, 500 * GB, gpus=8)
    said = str(refused.value)
    assert "and has 80.0 GB; set" in said
    for cure in ("runtime.offload: true", "runtime.gpus_per_fine_tune: 4", "recipe.method: lora"):
        assert cure in said
    with pytest.raises(EnvironmentProblem, match="use larger GPUs"):
        check(sweep, SEVEN_BILLION, 1, 4 * GB, 500 * GB, gpus=1)


def test_a_run_that_fits_says_how():
    sweep = load("paper", ["runtime.zero_stage=3"]).sweep
    assert "(ZeRO 3, 3 examples of up to 1,536 tokens" in check(sweep, SEVEN_BILLION, 4, 80 * GB, 500 * GB, gpus=4)


def test_a_plan_tells_the_memory_of_a_base_at_hand_and_says_what_to_fetch_of_another(pinch: Pinch, tmp_path: Path):
    random_model(tmp_path / "base", 0)
    here = pinch("plan", "demo", "--set", f"base={tmp_path / 'base'}", "--store", tmp_path / "store").stderr
    assert "Memory of each GPU for a fine-tune on 1 GPU, 1 example of 192 tokens at a time" in here
    assert "ZeRO 2, offload: " in here
    assert "of main memory" in here
    away = pinch("plan", "paper", "--store", tmp_path / "store").stderr
    assert "hf download Qwen/Qwen2.5-7B config.json --revision d149729398750b98c0af14eb82c78cfe92750796" in away
    made = pinch("plan", "gemma-trial", "--store", tmp_path / "store").stderr
    assert "not known before the base gemma3-270m is in the store" in made
    assert "Memory" not in pinch("plan", "demo", "--store", tmp_path / "store").stderr


@pytest.mark.timeout(120)
def test_gpus_that_do_not_answer_are_not_guessed_at():
    import ray

    ray.init(address="local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert gpus.gpu_memory([ray.nodes()[0]["NodeID"]]) == [None]
    finally:
        ray.shutdown()
