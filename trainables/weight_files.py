"""Which files of a folder may be read as weights: safetensors in the folder itself, and nothing else.

A pickle runs what its maker wrote in it when it is read. The loaders (transformers, peft, vLLM) prefer safetensors but
fall back on pickles where there are none, a sharded model's index may name any file at all, and of a model with an
adapter beside it transformers reads both; so a folder is looked at before a loader is. Code that comes with a model is
never run either: every loader is told ``trust_remote_code=False``, and no setting changes that.
"""

from __future__ import annotations

import json
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
ADAPTER = "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def refusal(folder: Path, adapter: bool = False) -> str | None:
    """Why no weights may be read from a folder, None where they may.

    Args:
        adapter: it holds an adapter, not a model.
    """
    if adapter:
        lacking = None if (folder / ADAPTER).is_file() else f"{folder} has no {ADAPTER}{_beside(folder)}"
        return lacking or _not_whole([folder / ADAPTER])
    if besides := adapter_in(folder):
        return f"{folder} holds an adapter beside the model ({besides}); merge it into the model, or take it out"
    if not any(folder.glob("*.safetensors")):
        return f"{folder} has no *.safetensors weights{_beside(folder)}"
    return _misled(folder / INDEX) or _not_whole(sorted(folder.glob("*.safetensors")))


def adapter_in(folder: Path) -> str | None:
    """The name of a file by which transformers, asked for the model in a folder, would find an adapter."""
    found = (file.name for file in folder.glob("adapter_*") if file.stem in ("adapter_config", "adapter_model"))
    return min(found, default=None)


def shapes_in(file: Path) -> Shapes:
    """The shape of every tensor in a safetensors file, from its header alone: milliseconds, and no torch.

    Raises:
        ValueError: it is none, or not whole; with the cure.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        why = str(problem).removeprefix("Error while deserializing header: ")
        raise ValueError(f"{file} is not safetensors ({why}), a Git LFS pointer perhaps: fetch the weights") from None


def _not_whole(files: list[Path]) -> str | None:
    """What is wrong with the first of the files that is not whole."""
    try:
        for file in files:
            shapes_in(file)
    except ValueError as problem:
        return str(problem)
    return None


def _misled(index: Path) -> str | None:
    """What is wrong with an index, where there is one."""
    if not index.is_file():
        return None
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        return f"{index} cannot be read ({type(problem).__name__}: {problem})"
    for name in sorted(map(str, named)):
        if Path(name).name != name or not name.endswith(".safetensors"):
            return f"{index} names {name!r}, which is not a *.safetensors file of this folder"
    return None


def _beside(folder: Path) -> str:
    """What is there instead, if it is a pickle."""
    found = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    return f"; {found[0]} is a pickle, and only safetensors are read" if found else ""
