"""The one op that DeepSpeed compiles where there is no GPU, under a lock that does not outlive its holder.

torch marks a running compiler by a plain file and waits for that file to go (``torch.utils.file_baton``). A session
that is killed at that moment leaves it behind, and every later one on the machine would wait for it without a word. So
compiling goes one process at a time under a lock of the operating system's, which ends with its process, in a folder
where nobody else compiles: whose turn it is knows that a mark it finds is nobody's.

The compiling is driven by the environment's own ninja: another version of it, first on some process's path, would take
every file for out of date, compile all of it anew, and the next process with the first one again.

``python -m trainables.compiled_op`` compiles it beforehand.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock


def folder() -> Path:
    """Where this environment compiles: in ``TORCH_EXTENSIONS_DIR``, or torch's own cache."""
    import deepspeed
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    environment = f"{deepspeed.__file__} {deepspeed.__version__} {torch.__version__}"
    name = f"pinch-{hashlib.sha256(environment.encode()).hexdigest()[:16]}"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()) / name


def build() -> None:
    """Compile it (a minute, once an environment) and load it; nothing is done where the accelerator has no such op."""
    from deepspeed.comm.torch import build_shm_op

    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with FileLock(place / "building.lock"), _set({"TORCH_EXTENSIONS_DIR": str(place), "PATH": programs}):
        for mark in place.glob("*/lock"):
            mark.unlink()
        build_shm_op()


@contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables, for the duration."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


if __name__ == "__main__":
    build()
