"""What people are asked: which instructions, whose responses, and which of the two stands first.

For each language, instructions are drawn, and for each of them one of the other monolingual models, whose response
stands beside that of the language's own (appendix D of the paper). Everything follows from the seed by SHA-256, so the
same draw comes out anywhere. A draw is known by what it shows, not by the sweep it was asked for: it holds the families
of its response sets, so it outlives a larger set of prompts.

A draw is also the key that tells the sides apart. It stays in the store; a sheet has nothing but an item's id.

This module must never know how a sheet looks or what people said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence

from orchestrator.identity import key_of
from orchestrator.plan import Plan, ScoreCell
from orchestrator.storage.base import as_json
from orchestrator.store import Store
from trainables.errors import UserError

FOLDER = "annotations"
DRAW = "draw.json"
RULE = 1
"""Raised when the same seed draws something else."""


@dataclasses.dataclass(frozen=True)
class Item:
    """One question: an instruction and the responses of two models."""

    id: str
    """``fi-3f9a1c20``: all that a sheet tells of it."""
    instruction_id: str
    other: str
    """The family of the other monolingual model's response set."""
    own_first: bool
    """Whether the response of the language's own model stands first."""


@dataclasses.dataclass(frozen=True)
class Draw:
    """The questions in one language, in the order they are asked."""

    key: str
    language: str
    seed: int
    own: str
    """The family of the response set of the language's own model."""
    items: tuple[Item, ...]


def contests(plan: Plan) -> dict[str, list[ScoreCell]]:
    """Language -> the plan's cells in which another monolingual model is held against the language's own.

    Of several train seeds the first; languages and models in the order of the plan, each model once.

    Raises:
        UserError: the sweep has no such cells.
    """
    found: dict[str, dict[str, ScoreCell]] = {}
    for cell in plan.cells:
        alone = cell.model.rule is not None and len(cell.model.rule.languages) == 1
        if alone and cell.comparison and cell.baseline.rule and cell.model.seed == plan.sweep.seeds.train[0]:
            found.setdefault(cell.row.language, {}).setdefault(cell.model.key, cell)
    if not found:
        raise UserError(
            f"{plan.loaded.source}: no study evaluates monolingual models in each other's languages, so there is "
            "nothing to ask people; add a monolingual study of two or more languages."
        )
    return {code: list(found[code].values()) for code in plan.corpora if code in found}


def draw(plan: Plan, language: str, cells: Sequence[ScoreCell], count: int, seed: int) -> Draw:
    """The questions in one language: ``count`` of them, or as many as there are prompts."""
    comparisons = [cell.comparison for cell in cells if cell.comparison is not None]
    own = comparisons[0].needs[0].family
    others = sorted(step.needs[1].family for step in comparisons)
    place = f"{seed}\n{language}"
    chosen = sorted(plan.eval_ids, key=lambda name: _digest(place, "order", name))[:count]
    key = key_of({"rule": RULE, "language": language, "seed": seed, "own": own, "others": others, "asked": chosen})
    items = [
        Item(
            id=f"{language}-{_digest(key, name)[:12]}",
            instruction_id=name,
            other=others[int(_digest(place, "other", name), 16) % len(others)],
            own_first=int(_digest(place, "side", name), 16) % 2 == 0,
        )
        for name in chosen
    ]
    return Draw(key=key, language=language, seed=seed, own=own, items=tuple(items))


def keep(store: Store, drawn: Draw) -> None:
    """Put a draw into the store; what is there already is the same."""
    name = f"{FOLDER}/{drawn.language}-{drawn.key[:16]}/{DRAW}"
    store.storage.create(name, as_json(dataclasses.asdict(drawn)))


def stored(plan: Plan, store: Store) -> Iterator[tuple[Draw, str]]:
    """The draws in the store whose responses are this plan's, each with the folder that keeps the answers to it."""
    known = {step.family for step in plan.of_kind("generation_set")}
    names = store.storage.names(FOLDER)
    for name in (name for name in names if name.endswith(f"/{DRAW}")):
        told = json.loads(store.storage.read(name) or b"")
        drawn = Draw(**{**told, "items": tuple(Item(**item) for item in told["items"])})
        if {drawn.own, *(item.other for item in drawn.items)} <= known:
            yield drawn, name.removesuffix(f"/{DRAW}")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
