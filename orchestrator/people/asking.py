"""`pinch annotate export`: a draw becomes sheets for people; what tells the sides apart stays in the store.

This module must never know what comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.identity import Step
from orchestrator.people.draws import Draw, contests, draw, keep
from orchestrator.people.side_by_side import Texts
from orchestrator.plan import Plan
from orchestrator.report.sheet import Question, as_csv, render
from orchestrator.report.views import language_name
from orchestrator.store import Store
from trainables.errors import UserError


def export(plan: Plan, store: Store, out: Path, languages: Sequence[str], count: int, seed: int) -> list[str]:
    """Write the sheets of a draw into ``out``: ``<sweep>-annotate.html`` and ``.csv``; the key stays in the store.

    Args:
        languages: default all in which monolingual models meet.
        count: instructions for each language; fewer where the sweep has fewer prompts.

    Returns:
        Sentences: what was written, and what to do with it.

    Raises:
        UserError: languages, responses or prompts that are not there, or a file that is and says something else.
    """
    store.refuse_another_schema()
    meetings = contests(plan)
    for code in languages:
        if code not in meetings:
            raise UserError(
                f"--language {code}: the sweep's monolingual models meet in {', '.join(meetings)}; name one of these."
            )
    chosen = [code for code in meetings if code in languages or not languages]
    drawn = [draw(plan, code, meetings[code], count, seed) for code in chosen]
    questions = [question for one in drawn for question in _questions(plan, store, one)]
    name = f"{plan.sweep.name}-annotate"
    files = {out / f"{name}.html": render(plan.sweep.name, questions), out / f"{name}.csv": as_csv(questions)}
    _write_new(files)
    for one in drawn:
        keep(store, one)
    asked = min(count, len(plan.eval_ids))
    said = [f"{asked} instructions in each of {', '.join(map(language_name, chosen))}."]
    if asked < count:
        said.append(f"The sweep has no more prompts than that; {count} were asked for.")
    html, table = files
    said += [f"Open in a browser, or send: {html}", f"For a spreadsheet: {table}"]
    return [*said, f"Then: pinch annotate import {plan.loaded.typed()} FILE... --store {store.location}"]


def _questions(plan: Plan, store: Store, drawn: Draw) -> Iterator[Question]:
    texts = Texts(plan, store)
    sets = {step.family: step for step in plan.of_kind("generation_set")}
    prompts = texts.examples(drawn.language)
    for item in drawn.items:
        own, other = (
            _response(plan, store, texts, sets[family], item.instruction_id) for family in (drawn.own, item.other)
        )
        both = (own, other) if item.own_first else (other, own)
        yield Question(item.id, drawn.language, prompts[item.instruction_id].instruction, *both)


def _response(plan: Plan, store: Store, texts: Texts, step: Step, name: str) -> str:
    found = texts.responses(step)
    if name not in found:
        raise UserError(
            f"{store.location}: the response set {step.name} is not there yet; make it: "
            f"pinch run {plan.loaded.typed()} --store {store.location}"
        )
    return found[name]


def _write_new(files: Mapping[Path, str]) -> None:
    """Write files that are not there; a file that is must say the same."""
    for path, text in files.items():
        if path.exists() and path.read_bytes() != text.encode():
            raise UserError(f"{path}: is there already and says something else; move it away, or give another --out.")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        except OSError as problem:
            raise UserError(
                f"--out {path.parent}: cannot write {path.name} ({problem.strerror}); name another."
            ) from problem
