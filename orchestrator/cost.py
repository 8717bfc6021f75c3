"""What a plan will take: time, disk and money, from what was measured before; what is not known is said to be unknown.

Times are medians of the same kind of step with the same base, and what else decides them, in the store. Nothing is
guessed from a model's size: the first results of a sweep tell more than a formula.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.store_index import Listing, Made
from orchestrator.sweep import Keep

TINY_BYTES = 8 * 2**20
"""A checkpoint of tiny with tokenizer and probe, rounded up."""
PACKAGE_BYTES = {"gemma3-270m": 900 * 2**20, "smollm2": 400 * 2**20}
"""Prepared weights of the packaged models in bf16 with an output head of their own, rounded up."""
LORA_SHARE = 0.03
"""An adapter's size against its base's, rounded up for the usual ranks."""
TEXT_BYTES = 64 * 2**10
"""A response set or comparison of about a hundred prompts."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What the missing part of a plan takes. None is unknown, not zero."""

    seconds: dict[str, float | None]
    """Per kind of step, all missing steps one after another."""
    disk_bytes: int | None
    gpu_cost: float | None
    notes: tuple[str, ...]


def estimate(plan: Plan, store: Store, missing: dict[str, int]) -> Estimate:
    """Estimate the steps that would run.

    Args:
        missing: kind -> number of steps to run.
    """
    seconds: dict[str, float | None] = {}
    for kind, count in missing.items():
        typical = _typical(kind, plan, store)
        seconds[kind] = None if typical is None and count else (typical or 0.0) * count
    notes = []
    unknown = [kind for kind, value in seconds.items() if value is None]
    if unknown:
        notes.append(f"Time unknown for {', '.join(unknown)}: none like it is in the store yet.")
    price = plan.sweep.runtime.prices.get("gpu_hour")
    gpu_cost = None
    if price is None:
        notes.append("No cost: runtime.prices names no price per GPU-hour.")
    elif not unknown:
        hours = sum((value or 0.0) * _gpus(kind, plan, store) for kind, value in seconds.items()) / 3600
        gpu_cost = hours * price.amount
        notes.append(
            f"{hours:,.1f} GPU-hours at {price.amount} (price of {price.date}), starts of workers not counted."
        )
    disk = disk_needed(plan, missing.get("fine_tune", 0))
    if disk is None:
        notes.append(f"Disk unknown until the base {plan.base_source.label} is here.")
    return Estimate(seconds, disk, gpu_cost, tuple(notes))


def disk_needed(plan: Plan, fine_tunes: int, keep: Keep | None = None) -> int | None:
    """Bytes that so many fine-tunes, their responses and verdicts take at their peak; None when not known.

    Args:
        keep: the rule in the place of the sweep's own.
    """
    base = _base_bytes(plan)
    if base is None:
        return None
    recipe = plan.sweep.recipe
    checkpoint = base if recipe.method == "full" else int(base * LORA_SHARE)
    kept = {"all": len(recipe.checkpoint_steps), "best": 1, "scores": 0}[keep or plan.sweep.runtime.keep]
    in_progress = checkpoint * (len(recipe.checkpoint_steps) + (6 if recipe.method == "full" else 1))
    texts = (len(plan.of_kind("generation_set")) + len(plan.of_kind("comparison"))) * TEXT_BYTES
    return (base + fine_tunes * kept * checkpoint + in_progress + texts) if fine_tunes else 0


def still_needed(plan: Plan, store: Store, keep: Keep | None = None) -> int | None:
    """The same for what a store lacks of a plan."""
    made = store.listing("fine_tune")
    missing = [model for model in plan.models if model.fine_tune and model.fine_tune.key not in made]
    return disk_needed(plan, len(missing), keep)


def human_bytes(count: float) -> str:
    """``1.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _base_bytes(plan: Plan) -> int | None:
    source = plan.base_source
    if source.kind == "tiny":
        return TINY_BYTES
    if source.kind == "package":
        return PACKAGE_BYTES.get(source.where)
    if source.kind == "folder":
        return sum(path.stat().st_size for path in Path(source.where).glob("*.safetensors"))
    if source.kind == "gguf":
        return 4 * Path(source.where).stat().st_size
    return None


def _typical(kind: str, plan: Plan, store: Store) -> float | None:
    """Median seconds of results of a kind that are like the plan's."""
    behind = {needed: store.listing(needed) for needed in _BEHIND.get(kind, ())}
    values = [
        float(made.facts["seconds"])
        for made in store.listing(kind)
        if "seconds" in made.facts and _alike(kind, made, plan, behind)
    ]
    return statistics.median(values) if values else None


def _gpus(kind: str, plan: Plan, store: Store) -> float:
    """GPUs that a step of a kind holds: as the sweep says, or as fine-tunes like it did; an engine or a judge one."""
    runtime = plan.sweep.runtime
    if kind == "fine_tune":
        if runtime.gpus_per_fine_tune != "auto":
            return runtime.gpus_per_fine_tune
        alike = [made for made in store.listing(kind) if _alike(kind, made, plan, {})]
        return statistics.median([made.facts.get("workers", 1) for made in alike] or [1])
    if kind == "comparison":
        asked, needed = runtime.gpus_per_judge, plan.sweep.judge.kind == "local"
    else:
        asked, needed = runtime.gpus_per_engine, kind in ("selection", "generation_set")
    return (1 if asked == "auto" else asked) if needed else 0


_BEHIND = {"selection": ("fine_tune",), "generation_set": ("selection", "fine_tune")}
"""What tells of which base a result is."""


def _alike(kind: str, made: Made, plan: Plan, behind: Mapping[str, Listing]) -> bool:
    payload = made.payload
    if kind == "base":
        return False  # another model's, or it would not be missing
    if kind == "corpus":
        return payload["source"] == plan.sweep.corpus.source
    if kind == "selection":
        tuned = behind["fine_tune"].get(payload["fine_tune"])
        return tuned is not None and tuned.payload["base"] == plan.base.key
    if kind == "generation_set":
        chosen = behind["selection"].get(payload["weights"])
        of_base = payload["weights"] == plan.base.key or (
            chosen is not None and _alike("selection", chosen, plan, behind)
        )
        return of_base and payload["sampling"] == _as_json(plan.sweep.sampling.identity())
    if kind == "fine_tune":
        recipe = {**plan.sweep.recipe.identity(), "template": plan.template}
        return payload["base"] == plan.base.key and payload["recipe"] == _as_json(recipe)
    if kind == "translation":
        return payload["translator"] == _as_json(plan.translator.payload() if plan.translator else None)
    if kind == "comparison":
        return payload["judge"] == _as_json(plan.judge_payload)
    return True


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list | tuple) else value
