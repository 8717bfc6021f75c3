"""What comes from elsewhere is read and never run, and no secret is repeated (docs/security.md)."""

from __future__ import annotations

import ast
import functools
import json
import multiprocessing
import os
import pickle
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from trainables import plain_yaml
from trainables.errors import UserError
from trainables.judges.prompt import load_prompt

ROOT = Path(__file__).parent.parent
CODE = sorted(path for part in ("orchestrator", "trainables", "benchmarks") for path in (ROOT / part).rglob("*.py"))


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sprung),)


@pytest.fixture
def sprung(tmp_path: Path) -> Iterator[Path]:
    """Where a trap leaves its mark; at the end there must be none."""
    mark = tmp_path / "sprung"
    yield mark
    assert not mark.exists(), "what was to be read was run"


def set_trap(path: Path, sprung: Path) -> None:
    path.write_bytes(pickle.dumps(Trap(sprung)))


@functools.cache
def nodes() -> list[ast.AST]:
    """The whole program."""
    return [node for path in CODE for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]


@functools.cache
def calls() -> list[tuple[str, ast.Call, dict[str, ast.expr]]]:
    """Every call in the program: (what is called, the call, its keywords)."""
    found = [node for node in nodes() if isinstance(node, ast.Call)]
    return [(ast.unparse(one.func), one, {word.arg: word.value for word in one.keywords if word.arg}) for one in found]


# Nothing that is read is run


def test_nothing_in_the_program_can_read_a_pickle_or_run_a_text() -> None:
    imported = {
        name.split(".")[0]
        for node in nodes()
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "runpy"}
    for called, node, words in calls():
        last = called.rpartition(".")[2]
        assert called not in ("eval", "exec", "compile", "os.system", "os.popen", "torch.load", "torch.hub.load"), (
            called
        )
        assert last not in ("read_pickle", "load_checkpoint", "unsafe_load", "full_load"), called
        assert "allow_pickle" not in words
        assert "shell" not in words, ast.unparse(node)


def test_every_yaml_is_read_by_the_safe_loader() -> None:
    for called, node, words in calls():
        if called == "yaml.load":
            assert ast.unparse(words["Loader"]) == "_NoDoubledKeys", ast.unparse(node)
        elif called.startswith("yaml.") and called.rpartition(".")[2].endswith(("load", "load_all", "dump")):
            assert called in ("yaml.safe_load", "yaml.safe_dump"), called
    assert issubclass(plain_yaml._NoDoubledKeys, yaml.constructor.SafeConstructor)
    assert not issubclass(plain_yaml._NoDoubledKeys, yaml.constructor.FullConstructor)


def test_every_loader_is_told_to_run_no_code_of_a_model_and_to_read_safetensors() -> None:
    looked_at = 0
    for called, node, words in calls():
        if not called.startswith("Auto") or not called.endswith((".from_pretrained", ".from_config")):
            continue
        looked_at += 1
        assert ast.unparse(words["trust_remote_code"]) == "False", ast.unparse(node)
        if "Model" in called and called.endswith("from_pretrained") and "gguf_file" not in words:
            assert ast.unparse(words["use_safetensors"]) == "True", ast.unparse(node)
    assert looked_at > 10
    (engine,) = [words for called, _, words in calls() if called == "LLM"]
    assert (ast.unparse(engine["load_format"]), ast.unparse(engine["trust_remote_code"])) == ("'safetensors'", "False")


def test_a_tag_that_would_run_something_is_no_yaml(small: Path, pinch: Pinch, tmp_path: Path, sprung: Path) -> None:
    tag = f"!!python/object/apply:os.mkdir ['{sprung}']"
    small.write_text(f"{SMALL}base: {tag}\n".replace("base: tiny\n", ""))
    assert str(small) in pinch("plan", small, check=2).stderr
    small.write_text(SMALL)
    with pytest.raises(UserError, match="not a YAML value"):
        load(str(small), [f"base={tag}"])
    prompt = tmp_path / "prompt"
    prompt.mkdir()
    (prompt / "prompt.txt").write_text("{instruction}{first}{second}")
    (prompt / "judge.yaml").write_text(f"description: {tag}\n")
    with pytest.raises(UserError, match="is not YAML"):
        load_prompt(str(prompt))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and an adapter on it."""
    from tests.tiny_models import random_adapter, random_model

    root = tmp_path_factory.mktemp("models")
    random_model(root / "base", 1)
    random_adapter(root / "adapter", root / "base", 2)
    return root


@pytest.fixture
def base(folders: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders / "base", tmp_path / "base"))


def with_pickled_weights(folder: Path, sprung: Path) -> None:
    (folder / "model.safetensors").unlink()
    set_trap(folder / "pytorch_model.bin", sprung)


def with_a_pickled_shard(folder: Path, sprung: Path) -> None:
    set_trap(folder / "shard.bin", sprung)
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "shard.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_a_shard_elsewhere(folder: Path, sprung: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    (folder / "decoy.safetensors").write_bytes(b"")
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_an_adapter_beside(folder: Path, sprung: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))
    set_trap(folder / "adapter_model.bin", sprung)


def with_a_pointer(folder: Path, sprung: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


def with_an_empty_file(folder: Path, sprung: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def with_half_a_file(folder: Path, sprung: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (with_pickled_weights, "safetensors"),
        (with_a_pickled_shard, "safetensors"),
        (with_a_shard_elsewhere, "which is not a .*safetensors file of this folder"),
        (with_an_adapter_beside, r"holds an adapter beside the model \(adapter_config.json\); merge it"),
        (with_a_pointer, "is not safetensors .* Git LFS pointer perhaps: fetch the weights"),
        (with_an_empty_file, "is not safetensors .* fetch the weights"),
        (with_half_a_file, "is not safetensors .* fetch the weights"),
    ],
)
def test_weights_are_safetensors_of_the_folder_or_they_are_not_read(
    spoil: Any, words: str, base: Path, sprung: Path
) -> None:
    from trainables.base_models import parse_base
    from trainables.generate import WrongWeights, make_engine
    from trainables.recipe import Recipe
    from trainables.tuning_model import load_for_tuning

    spoil(base, sprung)
    with pytest.raises(UserError, match=words):
        parse_base(str(base))
    with pytest.raises(WrongWeights, match=words):
        make_engine("transformers", base, "full", 64)
    with pytest.raises(UserError, match=words):
        load_for_tuning(base, Recipe(), 0, "eager", gradient_checkpointing=False)


@pytest.mark.parametrize("spoil", [with_a_pointer, with_an_empty_file, with_half_a_file])
def test_weights_that_are_not_whole_have_no_shape(spoil: Any, base: Path, sprung: Path) -> None:
    from trainables.model_shape import read_shape

    assert read_shape(base).parameters > 0
    spoil(base, sprung)
    with pytest.raises(UserError, match=r"model\.safetensors is not safetensors"):
        read_shape(base)


def test_a_gguf_beside_an_adapter_is_not_read(tmp_path: Path, sprung: Path) -> None:
    from trainables.base_models import parse_base

    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert parse_base(f"gguf:{tmp_path / 'model.gguf'}").kind == "gguf"
    with_an_adapter_beside(tmp_path, sprung)
    with pytest.raises(UserError, match="lies beside an adapter"):
        parse_base(f"gguf:{tmp_path / 'model.gguf'}")


def test_a_pickle_in_a_store_is_not_read_by_an_engine(folders: Path, tmp_path: Path, sprung: Path) -> None:
    from trainables.generate import EngineSettings, Weights, WrongWeights, make_engine

    settings = EngineSettings(device="cpu", threads=1)
    engine, _ = make_engine("transformers", folders / "base", "full", 64, settings=settings)
    checkpoint = Path(shutil.copytree(folders / "base", tmp_path / "checkpoint"))
    with_pickled_weights(checkpoint, sprung)
    with pytest.raises(WrongWeights, match=r"pytorch_model\.bin is a pickle"):
        engine.load(Weights(name="spoilt", kind="full", folder=checkpoint))
    engine, _ = make_engine("transformers", folders / "base", "lora", 64, settings=settings)
    adapter = Path(shutil.copytree(folders / "adapter", tmp_path / "adapter"))
    (adapter / "adapter_model.safetensors").unlink()
    set_trap(adapter / "adapter_model.bin", sprung)
    with pytest.raises(WrongWeights, match=r"adapter_model\.bin is a pickle"):
        engine.load(Weights(name="spoilt", kind="lora", folder=adapter))


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked(
    base: Path, tmp_path: Path, sprung: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.base_models import parse_base, prepare

    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    (base / "mine.py").write_text(f"import os\nos.mkdir({str(sprung)!r})\nclass Config: ...\nclass Model: ...\n")
    config = json.loads((base / "config.json").read_text())
    auto = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    (base / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": auto}))
    with pytest.raises(UserError, match="code of its own, and code from a model is never run"):
        prepare(parse_base(str(base)), tmp_path / "out", None, lambda *_: None)


def test_no_setting_turns_code_of_models_on(small: Path) -> None:
    for name in ("trust_remote_code", "recipe.trust_remote_code", "runtime.trust_remote_code"):
        with pytest.raises(UserError, match="unknown key 'trust_remote_code'"):
            load(str(small), [f"{name}=true"])


def test_workers_send_each_other_nothing_that_would_be_unpickled() -> None:
    sent = [called for called, _, _ in calls() if called.endswith(("_object_list", "_object", "recv_object"))]
    assert sent == ["super().construct_object"], "PyYAML's word for what it reads"


def _meet(rank: int, port: int, open_ports: multiprocessing.Queue[set[str]]) -> None:
    import torch
    from torch import distributed

    from trainables.rendezvous import listen_where_named
    from trainables.world import World

    listen_where_named()
    listen_where_named()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    distributed.init_process_group("gloo", init_method="env://", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    assert world.told("Hyvää päivää" if world.first else "") == "Hyvää päivää"
    assert world.sum(1.0) == [2.0]
    ports = [port for port in psutil.Process().net_connections("inet") if port.status == psutil.CONN_LISTEN]
    open_ports.put({port.laddr.ip for port in ports})
    distributed.barrier()
    distributed.destroy_process_group()


def test_workers_meet_on_the_address_they_are_told_and_on_no_other() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    open_ports: Any = context.Queue()
    workers = [context.Process(target=_meet, args=(rank, port, open_ports)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    found = [open_ports.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert set().union(*found) == {"127.0.0.1"}


# Which variables are read is known, and which of them hold a secret

SECRET = {"variable", "MLFLOW_TRACKING_URI", "RAY_API_SERVER_ADDRESS"}
"""``variable``: the one a sweep names (api_key_env). An address may hold a password."""
PLAIN = {
    "PINCH_STORE",
    "PINCH_CACHE",
    "PINCH_CACHE_GB",
    "PATH",
    "STORAGE_EMULATOR_HOST",
    "TORCH_EXTENSIONS_DIR",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "SAID",  # whether GPUs come (run/growth.py)
    "name",  # settings that are put back as they were
}


def test_every_variable_that_is_read_is_known_to_hold_a_secret_or_none() -> None:
    read = set()
    for called, node, words in calls():
        if called in ("os.environ.get", "os.getenv", "os.environ.pop") and called != "os.environ.pop":
            argument = node.args[0]
            read.add(argument.value if isinstance(argument, ast.Constant) else ast.unparse(argument))
        if "envvar" in words:
            read.add(ast.literal_eval(words["envvar"]))
    assert read == SECRET | PLAIN, "a new variable: plant a secret in it in test_security_run.py, or say it holds none"
