"""Which files of a folder may be read as weights: safetensors in the folder itself, and nothing else.

A pickle runs what its maker wrote in it when it is read. The loaders (transformers, peft, vLLM) prefer safetensors but
fall back on pickles where there are none, and a sharded model's index may name any file at all; so a folder is looked
at before a loader is. Code that comes with a model is never run either: every loader is told
``trust_remote_code=False``, and no setting changes that.
"""

from __future__ import annotations

import json
from pathlib import Path

ADAPTER = "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def refusal(folder: Path, adapter: bool = False) -> str | None:
    """Why no weights may be read from a folder, None where they may.

    Args:
        adapter: it holds an adapter, not a model.
    """
    if adapter:
        return None if (folder / ADAPTER).is_file() else f"{folder} has no {ADAPTER}{_beside(folder)}"
    if not any(folder.glob("*.safetensors")):
        return f"{folder} has no *.safetensors weights{_beside(folder)}"
    index = folder / INDEX
    if not index.is_file():
        return None
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        return f"{index} cannot be read ({type(problem).__name__}: {problem})"
    for name in sorted(map(str, named)):
        if Path(name).name != name or not name.endswith(".safetensors"):
            return f"{index} names {name!r}, which is not a *.safetensors file of this folder"
    return None


def _beside(folder: Path) -> str:
    """What is there instead, if it is a pickle."""
    found = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    return f"; {found[0]} is a pickle, and only safetensors are read" if found else ""
