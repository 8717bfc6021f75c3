"""What of a plan's translations is paid for, and what is still to be asked for, in characters.

Every answer of a translator is in a ledger of its own for each language and translator, and stays there: another sweep,
or a larger one, with the same texts pays for none of them again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.corpus.base import EVAL_FILE, TRAIN_FILE, Example, read_examples
from orchestrator.corpus.hub import HubCorpus
from orchestrator.identity import key_of
from orchestrator.languages import ENGLISH
from orchestrator.ledger import Ledger
from orchestrator.plan import Plan
from orchestrator.store import Store
from trainables.errors import UserError
from trainables.translators import SOURCE, TranslatorSpec
from trainables.translators.courses import Courses


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far the translation into one language is. ``about``: the texts are not here, so it is an estimate."""

    language: str
    paid: int
    """Characters that were sent and answered."""
    left: int
    """Characters still to be sent, if every line comes back as it should."""
    about: bool


def ledger_of(store: Store, translator: TranslatorSpec, language: str) -> Ledger:
    """Every answer there is of a translator in one language, by the digest of the string that was sent."""
    key = key_of({"source": SOURCE, "target": language, "translator": translator.payload()})
    return store.ledger(f"translation-{language}-{key[:16]}")


def english_examples(folder: Path, rows: dict[str, int]) -> tuple[list[Example], list[Example]]:
    """The training pairs and prompts to translate, from a stored English corpus and the counts of a sweep.

    Raises:
        UserError: there are fewer.
    """
    train, evaluation = (
        read_examples(folder / name)[: rows[part]] for part, name in (("train", TRAIN_FILE), ("eval", EVAL_FILE))
    )
    for part, found in (("train", train), ("eval", evaluation)):
        if len(found) < rows[part]:
            raise UserError(
                f"corpus.{part}_count: {rows[part]} is more than the {len(found)} in {folder.name}; lower it."
            )
    return train, evaluation


def texts_of(train: Iterable[Example], evaluation: Iterable[Example]) -> list[str]:
    """What is translated of examples: both texts of a pair, and the prompts; each text once."""
    parts = [text for example in train for text in (example.instruction, example.response) if text]
    return list(dict.fromkeys([*parts, *(example.instruction for example in evaluation)]))


def standings(plan: Plan, store: Store) -> list[Standing]:
    """One for each language that is translated. Nothing is fetched."""
    translator = plan.translator
    if translator is None:
        return []
    assert isinstance(plan.corpus, HubCorpus)  # nothing else is translated
    found: list[Standing] = []
    texts: list[str] | None = None
    fresh: int | None = None
    for code, step in plan.corpus_steps.translations.items():
        entry = store.find(step.kind, step.key)
        if entry is not None:
            found.append(Standing(code, int(entry.facts["characters"]), 0, about=False))
            continue
        texts = texts if texts is not None else _texts_here(plan, plan.corpus, store)
        if not texts:
            found.append(Standing(code, 0, plan.corpus.characters(), about=True))
            continue
        answers = ledger_of(store, translator, code).read()
        if not answers and fresh is not None:
            found.append(Standing(code, 0, fresh, about=False))
            continue
        courses = Courses(texts, translator.whole, translator.limit)
        left = sum(map(len, courses.wanted({key: answer["text"] for key, answer in answers.items()})))
        fresh = left if not answers else fresh
        found.append(Standing(code, sum(answers[key]["characters"] for key in courses.used), left, about=False))
    return found


def cost_so_far(plan: Plan, store: Store) -> float:
    """What the plan's translations have cost at the sweep's price; 0 without a price, or where nothing is paid."""
    price = plan.sweep.runtime.prices.get("million_characters")
    if plan.translator is None or not plan.translator.paid or price is None:
        return 0.0
    return sum(standing.paid for standing in standings(plan, store)) / 1e6 * price.amount


def check_price(plan: Plan) -> None:
    """Raises:
    UserError: a limit without a price.
    """
    sweep = plan.sweep
    paid = plan.translator is not None and plan.translator.paid and plan.corpus_steps.translations
    if paid and sweep.runtime.max_cost is not None and "million_characters" not in sweep.runtime.prices:
        raise UserError(
            f"{plan.loaded.source}: runtime.max_cost {sweep.runtime.max_cost:g} cannot be watched without a price; add "
            "runtime.prices.million_characters: {amount: ..., date: ...}, or leave max_cost out."
        )


def sentence(plan: Plan, store: Store) -> str | None:
    """What is still to be translated, and what that costs; None where nothing is."""
    left = [standing for standing in standings(plan, store) if standing.left]
    if plan.translator is None or not left:
        return None
    characters, about = sum(standing.left for standing in left), "about " if left[0].about else ""
    said = (
        f"Translation: {about}{characters:,} characters to send to {plan.translator.label}, into {len(left)} "
        f"{'language' if len(left) == 1 else 'languages'}"
    )
    price = plan.sweep.runtime.prices.get("million_characters")
    if not plan.translator.paid:
        return f"{said}."
    if price is None:
        return f"{said}; no cost: runtime.prices names no price for million_characters."
    cost = characters / 1e6 * price.amount
    return f"{said}: about {cost:,.2f} at {price.amount:g} a million (price of {price.date})."


def as_json(plan: Plan, store: Store) -> dict[str, Any]:
    """The same for programs, language by language."""
    price = plan.sweep.runtime.prices.get("million_characters")
    found = standings(plan, store)
    left = sum(standing.left for standing in found)
    free = plan.translator is None or not plan.translator.paid
    cost = 0.0 if free else None if price is None else round(left / 1e6 * price.amount, 6)
    return {"characters": left, "cost": cost, "languages": [dataclasses.asdict(standing) for standing in found]}


def _texts_here(plan: Plan, corpus: HubCorpus, store: Store) -> list[str]:
    """The English texts, if they can be had without asking anybody; else none."""
    step = next(iter(plan.corpus_steps.translations.values()))
    english = store.find("corpus", plan.corpus_steps.imports[ENGLISH].key)
    if english is not None:
        return texts_of(*english_examples(store.use(english), step.payload["rows"]))
    there = corpus.english()
    return texts_of(*there) if there else []
