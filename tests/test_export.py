"""A model that leaves the store: it loads elsewhere, answers as it did here, and says what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from orchestrator.corpus.base import EVAL_FILE, Example, read_examples
from orchestrator.export import exporting
from orchestrator.export.exporting import export
from orchestrator.keeping import Keeper
from orchestrator.plan import Plan
from orchestrator.run.jobs import (
    Place,
    SelectionJob,
    WeightsJob,
    make_base,
    make_corpus,
    select,
    training_rows,
    weights_of,
)
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.page_example import finished_store
from tests.tiny_models import byte_tokenizer, random_model
from trainables.batches import Template, instruction_ids, template_source
from trainables.engines.loading import mean_difference, read_probe
from trainables.engines.transformers import TransformersEngine
from trainables.errors import UserError
from trainables.finetune import finetune
from trainables.generate import EngineSettings, Prompt, Sampling
from trainables.job import FineTuneJob
from trainables.parallel import Parallel
from trainables.probe import log_probabilities

MODEL = "pinch-2-p50"
NEW_TOKENS = 16


@dataclass(frozen=True)
class Room:
    """A store in which one model was really tuned; the rest of its sweep is made up."""

    sweep: Path
    plan: Plan
    store: Store
    instructions: list[str]
    said: list[tuple[str, int]]
    """What the checkpoint answers in the project's own engine: text and number of tokens."""

    @property
    def base(self) -> Path:
        entry = self.store.find("base", self.plan.base.key)
        assert entry is not None
        return self.store.root / entry.place

    @property
    def checkpoint(self) -> int:
        entry = self.store.find("selection", self.plan.find_model(MODEL).weights.key)
        assert entry is not None
        return int(entry.facts["selected"])

    @property
    def folder(self) -> Path:
        """The selected checkpoint's."""
        entry = self.store.find("fine_tune", self.plan.find_model(MODEL).key)
        assert entry is not None
        return self.store.root / entry.place / f"checkpoint-{self.checkpoint:06d}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("base") / "random", seed=0)


@pytest.fixture(scope="module", params=["full", "lora"])
def room(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Room:
    return _tuned(base, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def exported(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("out") / "model"
    export(room.plan, room.store, MODEL, target)
    return target


def _tuned(base: Path, method: str, folder: Path) -> Room:
    sweep = folder / "small.yaml"
    text = SMALL.replace("base: tiny", f"base: {base}").replace("steps: 8", f"steps: 8\n  method: {method}")
    sweep.write_text(text.replace("max_input_tokens: 96", "max_input_tokens: 160"))
    plan, store = Plan(load(str(sweep))), Store(folder / "store")
    store.create()
    place = Place(str(store.root), store.sessions.id)
    make_base(place, plan.base, plan.base_source, lambda *_: None)
    for code, step in plan.corpora.items():
        make_corpus(place, step, plan.corpus, code)
    model = plan.find_model(MODEL)
    assert model.fine_tune is not None and model.mixture is not None
    attempt = store.attempt(model.fine_tune)
    keys = {code: step.key for code, step in plan.corpora.items()}
    training_rows(store, keys, model.mixture.without(plan.dev), folder / "examples.parquet")
    prepared = store.find("base", plan.base.key)
    assert prepared is not None
    facts = finetune(
        FineTuneJob(
            name=MODEL,
            base=store.root / prepared.place,
            examples=folder / "examples.parquet",
            recipe=plan.sweep.recipe,
            seed=0,
            template=plan.template,
            out=attempt,
            parallel=Parallel(threads=1),
        ),
        lambda report: None,
    )
    store.publish(model.fine_tune, attempt, facts)
    recipe = plan.sweep.recipe
    weights = WeightsJob(
        name=MODEL,
        base=plan.base.key,
        method=recipe.method,
        fine_tune=model.fine_tune.key,
        selection=model.weights.key,
    )
    alone = EngineSettings(device="cpu", threads=1, max_sequences=1)
    engine = TransformersEngine(store.root / prepared.place, recipe.method, 256, settings=alone)
    dev = tuple((key, code) for key, code in model.mixture.assignment.items() if key in plan.dev)
    select(
        place,
        SelectionJob(
            step=model.weights,
            weights=weights,
            dev=dev,
            corpora=keys,
            template=plan.template,
            max_input_tokens=recipe.max_input_tokens,
            max_target_tokens=recipe.max_target_tokens,
        ),
        engine,
        lambda *_: None,
    )
    finished_store(sweep, store.root)
    instructions = [example.instruction for key in keys.values() for example in _prompts(store, key)[:4]]
    engine.load(weights_of(store, weights))
    template = Template(plan.template, engine.tokenizer)
    prompts = [
        Prompt(text, instruction_ids(engine.tokenizer, template, text, recipe.max_input_tokens))
        for text in instructions
    ]
    responses = engine.generate(prompts, Sampling(temperature=0, max_new_tokens=NEW_TOKENS))
    engine.close()
    said = [(response.text, response.tokens) for response in responses]
    return Room(sweep, plan, store, instructions, said)


def _prompts(store: Store, corpus: str) -> list[Example]:
    entry = store.find("corpus", corpus)
    assert entry is not None
    return read_examples(store.root / entry.place / EVAL_FILE)


def _answers(model: Any, tokenizer: Any, instructions: list[str]) -> list[tuple[str, int]]:
    found = []
    for text in instructions:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            new = model.generate(**ids, do_sample=False, max_new_tokens=NEW_TOKENS)[0][ids["input_ids"].shape[1] :]
        found.append((tokenizer.decode(new, skip_special_tokens=True), len(new)))
    return found


def test_an_exported_model_loads_in_transformers_and_gives_the_same_greedy_tokens(room: Room, exported: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(exported)
    assert _answers(model, AutoTokenizer.from_pretrained(exported), room.instructions) == room.said
    assert len({text for text, _ in room.said}) > 2, "a model that says one thing proves little"
    untuned = AutoModelForCausalLM.from_pretrained(room.base)
    assert _answers(untuned, AutoTokenizer.from_pretrained(exported), room.instructions) != room.said


def test_a_merged_adapter_is_a_complete_model_that_answers_as_the_adapter_does_but_for_rounding(
    room: Room, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if room.plan.sweep.recipe.method == "full":
        with pytest.raises(UserError, match=r"--merged.*no adapter"):
            export(room.plan, room.store, MODEL, tmp_path / "model", merged=True)
        return
    export(room.plan, room.store, MODEL, tmp_path / "model", merged=True)
    assert not list((tmp_path / "model").glob("adapter*"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    answers = _answers(model, AutoTokenizer.from_pretrained(tmp_path / "model"), room.instructions)
    same = sum(answer[:1] == said[:1] for (answer, _), (said, _) in zip(answers, room.said, strict=True))
    assert same == len(answers), "bf16 rounds a sum of weights, so tokens may differ later on"
    untuned = AutoModelForCausalLM.from_pretrained(room.base)
    assert _distance(room, model) < _distance(room, untuned) / 10


def _distance(room: Room, model: Any) -> float:
    """Nats per token between a model and the probe of the checkpoint."""
    token_ids, reference = read_probe(room.folder)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([token_ids])).logits[0]
    return mean_difference(log_probabilities(logits, token_ids), reference)


def test_an_adapter_names_the_base_it_was_tuned_on(room: Room, exported: Path) -> None:
    if room.plan.sweep.recipe.method == "full":
        assert not (exported / "adapter_config.json").exists()
        return
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(room.base)
    named = exporting._base_name(type(room.plan.base_source)("hub", "org/name"), "a" * 40, room.base)
    assert named == ("org/name", "a" * 40)


def test_a_complete_model_draws_as_the_sweep_did_and_ends_where_it_ended(room: Room, exported: Path) -> None:
    if room.plan.sweep.recipe.method == "lora":
        assert not (exported / "generation_config.json").exists()
        return
    drawn = json.loads((exported / "generation_config.json").read_text())
    assert (drawn["do_sample"], drawn["temperature"], drawn["top_p"]) == (True, 0.7, 0.9)
    assert drawn["max_new_tokens"] == 24
    assert drawn["eos_token_id"] == json.loads((exported / "config.json").read_text())["eos_token_id"]
    assert not (exported / "probe.json").exists()


@pytest.mark.parametrize("source", ["plain", "Say \"{instruction}\"!\n\\n {{ '{%' }}\u2028", "chat"])
def test_the_chat_template_gives_the_ids_the_model_was_tuned_with(source: str) -> None:
    tokenizer = byte_tokenizer(chat=True)
    template = Template(template_source(source), tokenizer)
    expected = instruction_ids(tokenizer, template, "Nimeä maa: FI", 500)
    without_bos = byte_tokenizer(chat=True)
    without_bos.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "")
    for loaded in (tokenizer, without_bos):
        loaded.chat_template = Template(template.source, loaded).as_chat()
        chat = [{"role": "user", "content": "Nimeä maa: FI"}]
        assert loaded.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == expected


# The card


def _card(exported: Path) -> tuple[dict[str, Any], str]:
    _, front, text = (exported / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_says_what_the_model_is(room: Room, exported: Path) -> None:
    front, text = _card(exported)
    method = room.plan.sweep.recipe.method
    assert front["language"] == ["en", "fi"]
    assert front["library_name"] == {"full": "transformers", "lora": "peft"}[method]
    model = room.plan.find_model(MODEL)
    assert "| Finnish | fi | 16 | 25.0% |" in text
    assert f"`{model.key}`" in text
    assert "arXiv:2401.01854" in text
    assert "Unicode License v3" in text
    assert "yours to look up" in text, "the terms of a base that is the user's own folder"
    assert "not evidence about language models" in text
    assert f"| checkpoint | step {room.checkpoint} of 8, by ROUGE-L on the dev examples (" in text
    if method == "full":
        assert str(room.store.root) not in text, "a card leaves the machine"


def test_the_card_has_the_score_in_every_language_with_its_interval(room: Room, exported: Path) -> None:
    from orchestrator.scores.score_table import ScoreTable

    _, text = _card(exported)
    table = ScoreTable(room.plan, room.store)
    rows = table.rows_of(room.plan.find_model(MODEL))
    assert {row["eval_language"] for row in rows} == {"en", "fi"}
    for row in rows:
        counts = f"{row['wins']} / {row['ties']} / {row['losses']}"
        interval = f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"
        assert f"| {row['if_score']:.1f} | {interval} | {counts} | mono-{row['eval_language']} |" in text


def test_the_sweep_in_the_card_makes_the_same_model_again(room: Room, exported: Path, tmp_path: Path) -> None:
    _, text = _card(exported)
    settings = text.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "small.yaml").write_text(settings)
    again = Plan(load(str(tmp_path / "small.yaml")))
    assert again.find_model(MODEL).key == room.plan.find_model(MODEL).key
    assert [step.key for step in again.steps] == [step.key for step in room.plan.steps]


# What is refused, and what is left behind


def _told(room: Room, pinch: Pinch, *arguments: str | Path, code: int = 2) -> str:
    done = pinch("export", room.sweep, *arguments, "--store", room.store.root, check=code)
    assert "Traceback" not in done.stderr
    assert 0 < len(done.stderr.strip().splitlines()) <= 3
    return done.stderr


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(room: Room, pinch: Pinch, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    assert "mono-xx is not one of" in _told(room, pinch, "mono-xx", out)
    other = pinch("export", room.sweep, MODEL, out, "--store", tmp_path / "none", check=2).stderr
    assert "not tuned yet" in other and f"pinch run {room.sweep}" in other
    with_base = ("--set", "studies.1={study: base, languages: [en, fi]}")
    assert "base model, which was not tuned" in _told(room, pinch, "base", out, *with_base)
    assert not out.parent.exists()


def test_a_folder_that_is_taken_is_refused_and_left_as_it_is(room: Room, pinch: Pinch, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    assert "taken: is not empty" in _told(room, pinch, MODEL, taken)
    assert "mine.txt: is not a folder" in _told(room, pinch, MODEL, taken / "mine.txt")
    assert [path.name for path in taken.iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "taken"]


def test_a_place_that_cannot_be_written_is_bad_input(room: Room, pinch: Pinch, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    for place in (
        file / "model",
        tmp_path / "new" / ("n" * 300) / "model",
        tmp_path / "n" / ("m" * 300),
        "/proc/pinch",
    ):
        said = _told(room, pinch, MODEL, place)
        assert f"DIR {place}: cannot be written (" in said and "name a folder where you may write" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "mine.txt"]


def test_an_export_that_fails_half_way_leaves_nothing(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "model_card", stop)
    with pytest.raises(KeyboardInterrupt):
        export(room.plan, room.store, MODEL, tmp_path / "deep" / "er" / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_the_keep_rule_freed_is_said_to_be_gone(base: Path, tmp_path: Path) -> None:
    room = _tuned(base, "full", tmp_path)
    keeping = Plan(load(str(room.sweep), ["runtime.keep=scores"]))
    keeper = Keeper(keeping, room.store, lambda sentence: None)
    keeper.remember()
    keeper.sweep()
    with pytest.raises(UserError, match=r"was freed by the rule runtime.keep: scores.*runtime.keep=best"):
        export(keeping, room.store, MODEL, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_complete_model_needs_no_weights_of_its_base(base: Path, tmp_path: Path) -> None:
    room = _tuned(base, "full", tmp_path)
    entry = room.store.find("base", room.plan.base.key)
    assert entry is not None
    (room.store.root / entry.place / "model.safetensors").write_bytes(b"other weights, which nobody looks at")
    manifest = room.store.root / entry.place / "manifest.json"
    told = json.loads(manifest.read_text())
    told["files"]["model.safetensors"] = {**told["files"]["model.safetensors"], "bytes": 36}
    manifest.write_text(json.dumps(told))
    export(room.plan, Store(room.store.root), MODEL, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_checkpoint_that_does_not_hold_is_never_exported(base: Path, tmp_path: Path) -> None:
    room = _tuned(base, "lora", tmp_path)
    file = room.folder / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"quarantine.*pinch run"):
        export(room.plan, Store(room.store.root), MODEL, tmp_path / "model")
    assert not (tmp_path / "model").exists()


_VLLM = """
import json, sys
from pathlib import Path
from trainables.batches import Template, instruction_ids
from trainables.generate import EngineSettings, Prompt, Sampling, Weights, make_engine

base, checkpoint, folder, kind, template, instructions = json.loads(sys.argv[1])
engine, _ = make_engine("vllm", Path(base), kind, 256, settings=EngineSettings(device="cpu", threads=1))
engine.load(Weights(name="checkpoint", kind=kind, folder=Path(checkpoint)))
tokenizer = engine.tokenizer
asked = [instruction_ids(tokenizer, Template(template, tokenizer), text, 160) for text in instructions]
prompts = [Prompt(str(place), ids) for place, ids in enumerate(asked)]
here = [one.text for one in engine.generate(prompts, Sampling(temperature=0, max_new_tokens=16))]
engine.close()

from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

lora = kind == "lora"
options = {"enable_lora": True, "max_lora_rank": 16} if lora else {}
llm = LLM(model=base if lora else folder, max_model_len=256, enforce_eager=True, dtype="bfloat16",
          enable_chunked_prefill=False, enable_prefix_caching=False, max_num_batched_tokens=4096,
          kv_cache_memory_bytes=1 << 26, **options)
found = llm.chat([[{"role": "user", "content": text}] for text in instructions],
                 SamplingParams(temperature=0, max_tokens=16), use_tqdm=False,
                 chat_template=Path(folder, "chat_template.jinja").read_text() if lora else None,
                 lora_request=LoRARequest("exported", 1, folder) if lora else None)
there = [tokenizer.decode(one.outputs[0].token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
         for one in found]
print("FOUND" + json.dumps([here, there, [one.prompt_token_ids for one in found] == asked]))
"""


@pytest.mark.slow
def test_an_exported_model_loads_in_vllm_and_gives_the_same_greedy_tokens(room: Room, exported: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    recipe = room.plan.sweep.recipe
    told = (str(room.base), str(room.folder), str(exported), recipe.method, room.plan.template, room.instructions)
    done = subprocess.run(
        [sys.executable, "-c", _VLLM, json.dumps(told)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    here, there, same_prompts = json.loads(line.removeprefix("FOUND"))
    assert same_prompts
    assert there == here
    assert len(set(there)) > 2
