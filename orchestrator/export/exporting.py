"""`pinch export`: the selected checkpoint of one model of a sweep, as a folder for others, with its card.

The folder is made beside its place and appears whole, or not at all; nothing that is there is ever replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestrator.export.model_card import model_card
from orchestrator.plan import Model, Plan
from orchestrator.review import in_a_sentence
from orchestrator.store import Corrupt, Store
from trainables.base_models import BaseSource
from trainables.engines.contract import WrongWeights
from trainables.errors import EnvironmentProblem, UserError
from trainables.export import BaseName
from trainables.export import export as export_checkpoint
from trainables.paths import looked_for
from trainables.recipe import checkpoint_name


@dataclasses.dataclass(frozen=True)
class _Selected:
    """Where the weights of a model are, in the store."""

    base: Path
    checkpoint: Path


def export(plan: Plan, store: Store, name: str, target: Path, merged: bool = False) -> str:
    """Write model ``name`` into the folder ``target``, with its model card.

    Args:
        merged: of a LoRA adapter, the complete model it makes of its base.

    Returns:
        What was written, in a sentence.

    Raises:
        UserError: no such model, the base itself, one that is not tuned yet or whose checkpoint was freed, ``merged``
            with a full fine-tune, or a target that is taken or may not be made.
        EnvironmentProblem: the disk is full, or what was written cannot be proved.
    """
    model = plan.find_model(name)
    try:
        target = looked_for(str(target)).absolute()
    except ValueError as problem:
        raise UserError(f"DIR: {problem}") from None
    _refuse_taken(target)
    lora = plan.sweep.recipe.method == "lora"
    if merged and not lora:
        raise UserError(f"--merged: {name} is a full fine-tune, so there is no adapter to merge; leave it out.")
    with _beside(target) as out:  # first: what is exported may have to be fetched
        chosen = _selected(plan, store, model, name)
        base = _base_name(plan.base_source, plan.base.payload.get("commit"), chosen.base)
        try:
            export_checkpoint(
                chosen.checkpoint,
                chosen.base,
                out,
                recipe=plan.sweep.recipe,
                template=plan.template,
                sampling=plan.sweep.sampling,
                base_name=base,
                merged=merged,
            )
        except WrongWeights as problem:
            raise EnvironmentProblem(f"{target}: not exported, for {problem}.") from problem
        card = model_card(plan, store, model, adapter_of=base if lora and not merged else None)
        (out / "README.md").write_text(card, encoding="utf-8")
    if lora and not merged:
        return f"{target}: {name}, {chosen.checkpoint.name}, an adapter of {base.name}; --merged for a model by itself."
    return f"{target}: {name}, {chosen.checkpoint.name}, a complete model."


def _selected(plan: Plan, store: Store, model: Model, name: str) -> _Selected:
    source = plan.loaded.source
    if model.fine_tune is None:
        raise UserError(f"{source}: {name} is the base model, which was not tuned; name a tuned model.")
    run = f"pinch run {plan.loaded.typed()} --store {store.location}"
    failed = store.failures().get(model.fine_tune.key) or store.failures().get(model.weights.key)
    if failed:
        raise UserError(
            f"{source}: {name} failed ({in_a_sentence(failed['error'])}); try it again: {run} --retry-failed"
        )
    fine_tune = store.find("fine_tune", model.fine_tune.key)
    selection = store.find("selection", model.weights.key)
    base = store.find("base", plan.base.key)
    if fine_tune is None or base is None:
        raise UserError(f"{source}: {name} is not tuned yet in {store.location}; do it: {run}")
    if selection is None:
        raise UserError(f"{source}: of {name} no checkpoint is selected yet; do it: {run}")
    folder = checkpoint_name(selection.facts["selected"])
    if not any(file.startswith(f"{folder}/") for file in fine_tune.manifest["files"]):
        raise UserError(
            f"{source}: {folder} of {name} was freed by the rule runtime.keep: {plan.sweep.runtime.keep}; tune it "
            f"again into another store: pinch run {plan.loaded.typed()} --set runtime.keep=best --store OTHER"
        )
    try:
        adapter = plan.sweep.recipe.method == "lora"  # of a complete model only the base's tokenizer is read
        return _Selected(base=store.use(base, weights=adapter), checkpoint=store.use(fine_tune, folder) / folder)
    except Corrupt as problem:
        raise UserError(f"{store.location}: {problem}; it is in quarantine now, make it again: {run}") from None


def _base_name(source: BaseSource, commit: str | None, prepared: Path) -> BaseName:
    """The hub's name where the base came from there; else the prepared base, whose weights the adapter was tuned on."""
    return BaseName(source.where, commit) if source.kind == "hub" else BaseName(str(prepared))


def _refuse_taken(target: Path) -> None:
    try:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise UserError(f"DIR {target}: is not a folder; name one that does not exist yet.")
        taken = target.is_dir() and any(target.iterdir())
    except OSError as problem:
        raise _no_place(target, problem) from problem
    if taken:
        raise UserError(f"DIR {target}: is not empty, and nothing is replaced; name a folder that does not exist yet.")


def _no_place(target: Path, problem: OSError) -> UserError | EnvironmentProblem:
    """Why nothing can be put there: the user's choice of a place, or a disk that is full."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentProblem(f"{target}: cannot be written ({problem.strerror}); free some space.")
    return UserError(
        f"DIR {target}: cannot be written ({problem.strerror or problem}); name a folder where you may write."
    )


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its place at the end; after an error nothing is left.

    Raises:
        UserError: nothing may be made there. EnvironmentProblem: the disk is full, or somebody was faster.
    """
    above = [folder for folder in target.parents if not folder.exists()]
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        try:
            partial.mkdir(parents=True)
        except OSError as problem:
            raise _no_place(target, problem) from problem
        yield partial
        os.rename(partial, target)  # onto an empty folder at most
    except BaseException as problem:
        shutil.rmtree(partial, ignore_errors=True)
        for folder in above:
            with contextlib.suppress(OSError):  # it was not made, or somebody uses it by now
                folder.rmdir()
        if isinstance(problem, OSError):
            raise EnvironmentProblem(
                f"{target}: cannot be written ({problem.strerror or problem}); free some space, or name another folder."
            ) from problem
        raise
