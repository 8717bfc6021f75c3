"""Whether a fine-tune fits into a GPU, told before one starts: what it would take in a plan, and a check in a run.

Both are worked out from the sizes of the base alone (`trainables.memory`); nothing is loaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from orchestrator.cost import human_bytes
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import Sweep
from trainables.errors import EnvironmentProblem
from trainables.hub_base import cached
from trainables.memory import MARGIN, Need, Settled, memory_need
from trainables.model_shape import ModelShape, read_shape
from trainables.parallel import Parallel, choose, layouts
from trainables.recipe import Recipe


def folder_of_base(plan: Plan, store: Store) -> Path | None:
    """A folder with the base's configuration: the store's, the user's own, or the hub's local cache; None without.

    Raises:
        Corrupt: the store's is spoiled, and in quarantine now.
    """
    entry = store.find("base", plan.base.key)
    if entry is not None:
        return store.use(entry, weights=False)
    source = plan.base_source
    if source.kind == "folder":
        return Path(source.where)
    if source.kind == "hub":
        return cached(source.where, plan.base.payload["commit"])
    return None


def told(plan: Plan, store: Store) -> list[str]:
    """Lines for a plan: what each layout that the settings allow takes, or why that is not known.

    Nothing about tiny, which fits anywhere.
    """
    source, runtime = plan.base_source, plan.sweep.runtime
    if source.kind == "tiny":
        return []
    folder = folder_of_base(plan, store)
    if folder is None and source.kind == "hub":
        commit = plan.base.payload["commit"]
        return [
            f"Memory per GPU is not known: the configuration of {source.where} is not here. Fetch it "
            f"(hf download {source.where} config.json --revision {commit}), or give a local folder."
        ]
    if folder is None:
        return [f"Memory per GPU is not known before the base {source.label} is in the store; a run makes it first."]
    gpus = 1 if runtime.gpus_per_fine_tune == "auto" else runtime.gpus_per_fine_tune
    found = list(layouts(runtime.parallel))
    longest, examples = longest_example(plan.sweep.recipe), found[0].micro_batch
    return [
        f"Memory of each GPU for a fine-tune on {_count(gpus, 'GPU')}, {_count(examples, 'example')} of "
        f"{longest:,} tokens at a time (and {MARGIN:.0%} to spare):",
        *_table(plan.sweep.recipe, read_shape(folder), found, gpus, longest),
    ]


def _table(recipe: Recipe, shape: ModelShape, found: list[Settled], gpus: int, longest: int) -> Iterator[str]:
    for _, group in itertools.groupby(found, lambda layout: (layout.zero_stage, layout.offload)):
        needs = [(layout, memory_need(shape, recipe, layout, gpus, longest)) for layout in group]
        first, need = needs[0]
        line = f"  {first}: {human_bytes(need.gpu)}"
        for _, other in needs[1:]:
            line += f", with gradient checkpointing {human_bytes(other.gpu)}"
        yield line + (f"; {human_bytes(need.host * gpus)} of main memory" if need.host else "")


def check(sweep: Sweep, shape: ModelShape, workers: int, room: float, host: float, gpus: int) -> str:
    """A sentence about how a fine-tune will lie in the GPUs.

    Args:
        workers: GPUs per fine-tune.
        room: bytes of one GPU. host: bytes of free main memory for one worker.
        gpus: how many there are.

    Raises:
        EnvironmentProblem: nothing the settings allow fits; it says what to change.
    """
    asked, recipe, longest = sweep.runtime.parallel, sweep.recipe, longest_example(sweep.recipe)

    def fits(parallel: Parallel, recipe: Recipe, workers: int, spare: float = MARGIN) -> Settled | None:
        return choose(parallel, recipe, shape, workers, longest, (1 - spare) * room, host)

    chosen = fits(asked, recipe, workers) or fits(asked, recipe, workers, spare=0.0)
    if chosen is not None:
        need = memory_need(shape, recipe, chosen, workers, longest)
        return (
            f"Memory: a fine-tune takes about {human_bytes(need.gpu)} of the {human_bytes(room)} of a GPU ({chosen}, "
            f"{_count(chosen.micro_batch, 'example')} of up to {longest:,} tokens at a time)."
        )
    cures = []
    free = fits(Parallel(), recipe, workers)
    if free is not None:
        cures.append(" and ".join(_changes(asked, free)))
    cures += [
        f"runtime.gpus_per_fine_tune: {count}"
        for count in (2, 4, 8, 16, 32)
        if workers < count <= gpus and fits(asked, recipe, count)
    ][:1]
    if recipe.method == "full" and fits(asked, recipe.model_copy(update={"method": "lora"}), workers):
        cures.append("recipe.method: lora")
    least = list(layouts(asked))[-1]
    need = memory_need(shape, recipe, least, workers, longest)
    there = f" and {human_bytes(host)}" if need.host else ""
    cure = f"set {', or '.join(cures)}" if cures else "use larger GPUs, more of them, or a smaller base"
    raise EnvironmentProblem(
        f"base {sweep.base}: each GPU of a fine-tune needs about {_parts(need)} under {least}, with "
        f"{_count(least.micro_batch, 'example')} of up to {longest:,} tokens at a time, and has "
        f"{human_bytes(room)}{there}; {cure}."
    )


def _changes(asked: Parallel, free: Settled) -> Iterator[str]:
    """The settings that would have to be others."""
    for name in ("zero_stage", "micro_batch", "offload", "gradient_checkpointing"):
        wanted, given = getattr(free, name), getattr(asked, name)
        if given not in ("auto", wanted):
            yield f"runtime.{name}: {str(wanted).lower()}"


def _parts(need: Need) -> str:
    parts = {name: getattr(need, name) for name in ("weights", "gradients", "optimizer", "activations")}
    listed = ", ".join(f"{name} {human_bytes(size)}" for name, size in parts.items() if size)
    host = f" and {human_bytes(need.host)} of main memory" if need.host else ""
    return f"{human_bytes(need.gpu)}{host} ({listed})"


def longest_example(recipe: Recipe) -> int:
    """Tokens of the longest training example there can be."""
    return recipe.max_input_tokens + recipe.max_target_tokens


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
