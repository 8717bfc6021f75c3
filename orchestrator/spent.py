"""What a sweep's results took: time, tokens and money, from the manifests of what is in the store.

Nothing is measured here and nothing estimated: a kind of step whose results do not say is left out. Seconds are those
of the work itself, one step after another, whoever's session did it and however many ran at once.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from orchestrator.plan import Plan
from orchestrator.store import Entry, Store

_KINDS = {
    "base": "Base model",
    "corpus": "Corpora",
    "translation": "Translations",
    "fine_tune": "Fine-tuning",
    "selection": "Selecting checkpoints",
    "generation_set": "Responses",
    "comparison": "Judging",
}


def spent(plan: Plan, store: Store) -> list[tuple[str, str]]:
    """What was spent on the results of a plan that are there, as (label, text); empty when nothing is."""
    found: dict[str, list[Entry]] = {}
    for kind in dict.fromkeys(step.kind for step in plan.steps):
        there = store.entries(kind)
        entries = [there[step.key] for step in plan.of_kind(kind) if step.key in there]
        if entries:
            found[kind] = entries
    told = [(_KINDS.get(kind, kind), _of_kind(kind, entries)) for kind, entries in found.items()]
    everything = [entry for entries in found.values() for entry in entries]
    if everything:
        told.append(("All of it, one after another", human_time(_sum(everything, "seconds"))))
        told.append(("On", _machines(everything)))
    return told + _money(plan, found)


def human_time(seconds: float) -> str:
    """``48 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _of_kind(kind: str, entries: list[Entry]) -> str:
    said = [human_time(_sum(entries, "seconds"))]
    if kind == "fine_tune":
        speeds = [entry.facts["tokens_per_second"] for entry in entries if "tokens_per_second" in entry.facts]
        said.append(f"{len(entries)} models")
        if speeds:
            said.append(f"{statistics.median(speeds):,.0f} tokens a second (median)")
    elif kind == "translation":
        said += [f"{_sum(entries, 'rows'):,.0f} texts", f"{_sum(entries, 'characters'):,.0f} characters sent"]
    elif kind == "generation_set":
        said += [f"{_sum(entries, 'rows'):,.0f} texts", f"{_sum(entries, 'tokens'):,.0f} tokens"]
    elif kind == "comparison":
        said.append(f"{_sum(entries, 'rows'):,.0f} verdicts")
        for name, words in (("tokens_in", "tokens read"), ("tokens_out", "tokens written")):
            if tokens := _sum(entries, name):
                said.append(f"{tokens:,.0f} {words}")
    return ", ".join(said)


def _money(plan: Plan, found: dict[str, list[Entry]]) -> list[tuple[str, str]]:
    """What the results say they cost, and GPU time at the sweep's price."""
    told = [
        (f"{_KINDS.get(kind, kind)}, cost", f"{cost:,.2f}")
        for kind, entries in found.items()
        if (cost := _sum(entries, "cost"))
    ]
    price = plan.sweep.runtime.prices.get("gpu_hour")
    on_gpus = [entry.facts for entry in found.get("fine_tune", []) if entry.facts.get("device") == "cuda"]
    hours = sum(facts["seconds"] * facts["workers"] for facts in on_gpus) / 3600
    if price is not None and hours:
        cost = hours * price.amount
        told.append(
            ("Fine-tuning, GPU-hours", f"{hours:,.1f}, {cost:,.2f} at {price.amount} each (price of {price.date})")
        )
    return told


def _machines(entries: Iterable[Entry]) -> str:
    devices = {str(entry.facts["device"]) for entry in entries if "device" in entry.facts}
    hosts = {entry.manifest["made"]["host"] for entry in entries}
    return f"{len(hosts)} {'machine' if len(hosts) == 1 else 'machines'}" + "".join(
        f", {device.upper()}" for device in sorted(devices)
    )


def _sum(entries: Iterable[Entry], fact: str) -> float:
    values: list[Any] = [entry.facts.get(fact) for entry in entries]
    return float(sum(value for value in values if value is not None))
