"""The one op that DeepSpeed compiles where there is no GPU, under a lock that does not outlive its holder.

torch marks a running compiler by a plain file and waits for that file to go (``torch.utils.file_baton``). A session
that is killed at that moment leaves it behind, and every later one on the machine would wait for it without a word. So
compiling here goes one process at a time under a lock of the operating system's, which ends with its process; whose
turn it is knows that a mark it finds is nobody's.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

NAME = "ShareMemCommBuilder"


def folder() -> Path:
    """Where it is compiled: in ``TORCH_EXTENSIONS_DIR``, or torch's own cache."""
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    return Path(_get_build_directory(get_accelerator().create_op_builder(NAME).name, False))


def build() -> None:
    """Compile it (a minute, once a machine) and load it; does nothing where this accelerator has no such op."""
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    if get_accelerator().create_op_builder(NAME) is None:
        return
    place = folder()
    with FileLock(f"{place}.lock"):
        (place / "lock").unlink(missing_ok=True)
        build_shm_op()
