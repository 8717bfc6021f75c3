"""Rules of a fine-tune: what is computed does not depend on how it is spread, and it can be interrupted."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tuning_examples import job, make_tiny, write_examples
from trainables import training_state
from trainables.batches import micro_batches, template_text
from trainables.dropout import apply_dropout, decoder_layers, dropped
from trainables.errors import StepFailed, UserError
from trainables.finetune import finetune, read_examples
from trainables.memory import Settled
from trainables.model_shape import read_shape
from trainables.parallel import Parallel
from trainables.recipe import Recipe
from trainables.tuning_model import SummedCrossEntropy, load_for_tuning, load_tokenizer, tensors
from trainables.world import join_world, settle, start_engine


class Interrupted(Exception):
    pass


def silent(report: dict) -> None:
    pass


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_tiny(folder, monkeypatch)
    write_examples(folder / "examples.parquet")
    return folder


@pytest.fixture(scope="module")
def base(room) -> Path:
    return room / "tiny"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    file = next(folder.glob("*.safetensors"))
    return {name: value.float() for name, value in load_file(file).items()}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def probe_of(folder: Path, adapter_on: Path | None = None) -> tuple[list[float], list[float]]:
    """What probe.json says, and what transformers finds from the saved files."""
    probe = json.loads((folder / "probe.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(adapter_on or folder, dtype=torch.bfloat16)
    if adapter_on:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    model.eval()
    ids = torch.tensor([probe["token_ids"]])
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
    return probe["logprobs"], scores.gather(1, ids[0, 1:, None])[:, 0].tolist()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpoints_load_in_transformers_and_answer_their_probe(room, base, method):
    this = job(room, base, f"loads-{method}", {"method": method})
    finetune(this, silent)
    for step in (3, 6):
        folder = this.out / f"checkpoint-{step:06d}"
        said, found = probe_of(folder, base if method == "lora" else None)
        assert said == pytest.approx(found, abs=0.1)
        assert len(said) >= 23
    if method == "full":
        assert "lm_head.weight" in weights(folder)
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is False
        assert AutoTokenizer.from_pretrained(folder).eos_token == "</s>"
    else:
        assert {file.name for file in folder.iterdir()} == {
            "adapter_model.safetensors",
            "adapter_config.json",
            "probe.json",
        }


def test_the_first_token_of_a_probe_is_bos(room, base):
    this = job(room, base, "probe-bos", {"steps": 1})
    finetune(this, silent)
    probe = json.loads((this.out / "checkpoint-000001" / "probe.json").read_text())
    assert probe["token_ids"][0] == load_tokenizer(base).bos_token_id
    assert 24 <= len(probe["token_ids"]) <= 48
    assert len(probe["logprobs"]) == len(probe["token_ids"]) - 1


def test_tuning_lowers_the_loss_and_reports_and_records_it(room, base):
    reports: list[dict] = []
    this = job(room, base, "learns", {"steps": 30, "checkpoint_every": 10, "learning_rate": 3e-3})
    facts = finetune(this, reports.append)
    curve = pq.read_table(this.out / "curve.parquet").to_pydict()
    assert curve["step"] == list(range(1, 31))
    assert sum(curve["loss"][-5:]) < 0.7 * sum(curve["loss"][:5])
    assert [report["checkpoint"] for report in reports if "checkpoint" in report] == [10, 20, 30]
    assert reports[-1]["loss"] == facts["loss"] == curve["loss"][-1]
    assert not list(this.out.glob("state-*"))


def test_micro_batches_do_not_change_the_result(room, base):
    runs = []
    for size in (8, 3, 1):
        this = job(
            room,
            base,
            f"micro-{size}",
            {"steps": 3, "dropout": 0.0, "precision": "fp32"},
            parallel={"micro_batch": size},
        )
        runs.append((finetune(this, silent)["loss"], weights(this.out / "checkpoint-000003")))
    for loss, found in runs[1:]:
        assert loss == pytest.approx(runs[0][0], rel=1e-5)
        # Checkpoints are saved in the model's precision, here fp32; AdamW magnifies rounding where gradients vanish.
        assert furthest(found, runs[0][1]) < 1e-4


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_zero_stages_agree(room, base, precision):
    runs = {}
    for stage in (0, 1, 2, 3):
        this = job(
            room,
            base,
            f"zero-{stage}-{precision}",
            {"steps": 3, "dropout": 0.0, "precision": precision},
            parallel={"zero_stage": stage},
        )
        runs[stage] = (finetune(this, silent), weights(this.out / "checkpoint-000003"))
        assert runs[stage][0]["zero_stage"] == stage
    for stage in (1, 2, 3):
        assert runs[stage][0]["loss"] == pytest.approx(runs[0][0]["loss"], rel=1e-5 if precision == "fp32" else 2e-3)
        assert furthest(runs[stage][1], runs[0][1]) < (1e-4 if precision == "fp32" else 4e-3)


@pytest.mark.parametrize(
    ("stage", "method", "precision", "offload"),
    [
        (2, "full", "bf16", False),
        (0, "full", "bf16", False),
        (1, "lora", "bf16", False),
        (3, "full", "bf16", False),
        (0, "full", "fp32", False),
        (2, "full", "bf16", True),
        (3, "lora", "bf16", True),
    ],
)
def test_an_interrupted_fine_tune_ends_as_an_uninterrupted_one(room, base, stage, method, precision, offload):
    name = f"{stage}-{method}-{precision}-{offload}"
    recipe = {"steps": 10, "checkpoint_every": 5, "method": method, "precision": precision}
    parallel = {"zero_stage": stage, "state_every": 2, "micro_batch": 4, "offload": offload}
    whole = job(room, base, f"whole-{name}", recipe, parallel=parallel)
    finetune(whole, silent)

    def interrupt(report: dict) -> None:
        if report["step"] >= 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        finetune(job(room, base, f"broken-{name}", recipe, parallel=parallel), interrupt)
    again = job(room, base, f"broken-{name}", recipe, parallel=parallel, resume=True)
    assert training_state.newest_state(again.out) is not None
    facts = finetune(again, silent)
    assert facts["resumed_at"] == 4
    for step in (5, 10):
        checkpoint = f"checkpoint-{step:06d}"
        assert furthest(weights(again.out / checkpoint), weights(whole.out / checkpoint)) == 0.0
    steps = [pq.read_table(run.out / "curve.parquet").to_pydict() for run in (whole, again)]
    assert steps[0]["step"] == steps[1]["step"]
    assert steps[0]["loss"] == steps[1]["loss"]
    assert not list(again.out.glob("state-*"))


@pytest.mark.parametrize("stage", [2, 3])
def test_offload_changes_where_the_step_is_taken_and_not_the_result(room, base, stage):
    found = []
    for on in (False, True):
        settings = {"zero_stage": stage, "micro_batch": 4, "offload": on}
        this = job(room, base, f"offload-{stage}-{on}", {"steps": 2, "dropout": 0.0}, parallel=settings)
        assert finetune(this, silent)["offload"] is on
        found.append(weights(this.out / "checkpoint-000002"))
    assert furthest(*found) < 4e-3


def test_a_state_is_resumed_under_another_stage(room, base):
    recipe = {"steps": 6, "checkpoint_every": 6, "dropout": 0.0, "precision": "fp32"}
    whole = job(room, base, "restage-whole", recipe, parallel={"zero_stage": 2})
    finetune(whole, silent)

    def interrupt(report: dict) -> None:
        if "checkpoint" in report:
            raise Interrupted

    first = job(room, base, "restage", recipe | {"checkpoint_every": 3}, parallel={"zero_stage": 2, "state_every": 2})
    with pytest.raises(Interrupted):
        finetune(first, interrupt)
    finetune(job(room, base, "restage", recipe, parallel={"zero_stage": 0}, resume=True), silent)
    checkpoint = "checkpoint-000006"
    assert furthest(weights(whole.out / checkpoint), weights(first.out / checkpoint)) < 1e-4


def test_a_state_without_its_last_file_does_not_count(tmp_path):
    (tmp_path / "state-000002").mkdir()
    (tmp_path / "state-000002" / "state.json").write_text("{}")
    (tmp_path / "state-000004").mkdir()
    assert training_state.newest_state(tmp_path) == tmp_path / "state-000002"


@pytest.mark.parametrize("file", ["state-000006/part-0000", "state-000006/state", "checkpoint-000005/model"])
def test_what_a_power_cut_left_half_written_is_not_gone_on_from(room, base, file):
    recipe = {"steps": 8, "checkpoint_every": 5}
    whole = job(room, base, "uncut", recipe, parallel={"state_every": 2})
    finetune(whole, silent)

    def interrupt(report: dict) -> None:
        if (cut.out / "state-000006" / "state.json").exists():
            raise Interrupted

    cut = job(room, base, f"cut-{Path(file).name}", recipe, parallel={"state_every": 2}, resume=True)
    with pytest.raises(Interrupted):
        finetune(cut, interrupt)
    (path,) = cut.out.glob(f"{file}.*")
    os.truncate(path, path.stat().st_size // 2)
    assert finetune(cut, silent)["resumed_at"] == 0
    for checkpoint in ("checkpoint-000005", "checkpoint-000008"):
        assert furthest(weights(cut.out / checkpoint), weights(whole.out / checkpoint)) == 0.0


def test_a_loss_that_is_not_a_number_fails_the_step(room, base):
    with pytest.raises(StepFailed, match="learning_rate"):
        finetune(job(room, base, "explodes", {"steps": 40, "learning_rate": 1e8}), silent)


def test_broken_weights_fail_the_step(room, base, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    values = load_file(broken / "model.safetensors")
    values["lm_head.weight"][7, 0] = math.nan
    save_file(values, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StepFailed, match="loss is nan at step 1"):
        finetune(job(room, broken, "broken-weights"), silent)


def test_a_missing_column_is_the_users_error(room, base, tmp_path):
    import pyarrow as pa

    pq.write_table(pa.table({"id": ["x"], "instruction": ["?"]}), tmp_path / "bad.parquet")
    this = job(room, base, "bad-file").model_copy(update={"examples": tmp_path / "bad.parquet"})
    with pytest.raises(UserError, match="response"):
        finetune(this, silent)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_dropout_is_applied_in_training_and_not_in_evaluation(room, base, method):
    tokenizer = load_tokenizer(base)
    _, examples = read_examples(job(room, base, "unused"), tokenizer)
    (batch,) = micro_batches(examples[:4], 4, tokenizer.pad_token_id)
    arguments = tensors(batch, torch.device("cpu"))
    recipe = Recipe(method=method, dropout=0.3, precision="fp32")
    model, applied = load_for_tuning(base, recipe, 0, "eager", False)
    layers = len(decoder_layers(model))
    assert applied == {"layers": layers, "attention": layers, "residual": 2 * layers}
    with torch.no_grad():
        model.eval()
        quiet = [float(model(**arguments)) for _ in range(2)]
        model.train()
        noisy = [float(model(**arguments)) for _ in range(2)]
    assert quiet[0] == quiet[1]
    assert len({*noisy, quiet[0]}) == 3


@pytest.mark.parametrize("place", ["attention", "residual"])
def test_each_kind_of_dropout_acts_by_itself(room, base, place, monkeypatch):
    monkeypatch.setattr(
        "trainables.dropout._branch_rate" if place == "attention" else "trainables.dropout._attention_rate",
        lambda *arguments: 1,
    )
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    apply_dropout(model, 0.3)
    ids = torch.arange(3, 30)[None]
    model.train()
    with torch.no_grad():
        assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_model_that_dropout_cannot_reach_is_refused():
    with pytest.raises(UserError, match=r"recipe.dropout: 0"):
        apply_dropout(torch.nn.Sequential(torch.nn.Linear(2, 2)), 0.05)


def test_the_loss_is_that_of_the_targets_alone(room, base):
    tokenizer = load_tokenizer(base)
    _, examples = read_examples(job(room, base, "unused"), tokenizer)
    recipe = Recipe(dropout=0.0, precision="fp32")
    model, _ = load_for_tuning(base, recipe, 0, "eager", False)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model.eval()
    expected = 0.0
    with torch.no_grad():
        for prompt, target in examples[:5]:
            ids = torch.tensor([[*prompt, *target]])
            scores = torch.log_softmax(plain(input_ids=ids).logits[0], -1)
            expected -= sum(float(scores[len(prompt) + i - 1, token]) for i, token in enumerate(target))
        (batch,) = micro_batches(examples[:5], 5, tokenizer.pad_token_id)
        found = float(model(**tensors(batch, torch.device("cpu"))))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    values = dropped(torch.ones(1001, 301), rate)
    zero = float((values == 0).double().mean())
    assert zero == pytest.approx(rate, abs=0.003)
    assert values[values != 0].unique().tolist() == pytest.approx([1 / (1 - rate)])
    # no two neighbours are decided by the same bits
    pairs = (values == 0).double().flatten()
    assert float((pairs[:-1] * pairs[1:]).mean()) == pytest.approx(rate**2, abs=0.003)


def test_dropout_passes_gradients_through_what_it_kept():
    torch.manual_seed(0)
    values = torch.ones(50, requires_grad=True)
    out = dropped(values, 0.3)
    out.sum().backward()
    assert torch.equal(values.grad, out.detach())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 7])
def test_the_summed_cross_entropy_is_torchs_own_and_so_is_its_gradient(precision, rows, monkeypatch):
    monkeypatch.setattr("trainables.tuning_model._rows", lambda logits: 3)
    torch.manual_seed(0)
    logits = (4 * torch.randn(rows, 50)).to(precision)
    labels = torch.randint(50, (rows,))
    mine, torchs = (logits.clone().requires_grad_() for _ in range(2))
    loss = SummedCrossEntropy.apply(mine, labels)
    expected = torch.nn.functional.cross_entropy(torchs.float(), labels, reduction="sum")
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    (2 * loss).backward()
    (2 * expected).backward()
    assert mine.grad.dtype == precision
    assert torch.allclose(mine.grad.float(), torchs.grad.float(), atol=1e-5 if precision == torch.float32 else 2e-2)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_positions_are_as_precise_in_training_as_in_generation(base, stage):
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    expected = [buffer for name, buffer in loaded.named_buffers() if name.endswith("inv_freq")]
    recipe = Recipe(batch_size=4)
    model, _ = load_for_tuning(base, recipe, 0, "eager", False)
    engine = start_engine(model, recipe, Settled(stage, 4, False, False), join_world(), 1)
    try:
        found = [buffer for name, buffer in engine.module.named_buffers() if name.endswith("inv_freq")]
        assert expected
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
        assert next(engine.module.parameters()).dtype == torch.bfloat16
    finally:
        engine.destroy()


def test_gradient_checkpointing_changes_memory_and_not_the_result(room, base):
    found = []
    for on in (False, True):
        this = job(
            room, base, f"remat-{on}", {"steps": 2, "precision": "fp32"}, parallel={"gradient_checkpointing": on}
        )
        finetune(this, silent)
        found.append(weights(this.out / "checkpoint-000002"))
    assert furthest(*found) < 1e-5


def test_the_template_of_a_job_is_its_text(room, base):
    assert template_text(job(room, base, "unused").template, load_tokenizer(base)).prompt("Hi").startswith("Q: Hi")


def test_what_the_user_settles_is_left_alone(base):
    parallel = Parallel(zero_stage=3, micro_batch=5, gradient_checkpointing=False, offload=True)
    shape = read_shape(base)
    assert settle(parallel, Recipe(), shape, join_world(), 100) == Settled(3, 5, False, True)
