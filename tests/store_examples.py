"""A store to fill and a step to fill it with, for tests of what stores promise."""

from __future__ import annotations

import subprocess

from orchestrator.identity import Step
from orchestrator.storage import Entry
from orchestrator.store import Store

WEIGHTS = "checkpoint-000010/model.safetensors"


def step(name: str = "mono-fi", **payload: object) -> Step:
    return Step(kind="fine_tune", name=name, payload={"name": name, **payload})


def make(store: Store, what: Step, text: str = "weights") -> Entry:
    attempt = store.attempt(what)
    (attempt / WEIGHTS).parent.mkdir()
    (attempt / WEIGHTS).write_text(text)
    return store.publish(what, attempt, {"seconds": 1.0})


def forget_machine(store: Store) -> None:
    """As on another machine: nothing of the store lies here but the store itself."""
    if str(store.root) != store.location:
        subprocess.run(["rm", "-rf", str(store.root)], check=True)
