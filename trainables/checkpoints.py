"""What a fine-tune leaves behind: checkpoints any engine loads, each with its probe, and the training curve.

A full checkpoint is a Hugging Face folder in the base's form (untied, tokenizer included), a LoRA checkpoint an
adapter folder in PEFT's form. Under ZeRO 3 no worker has the whole model, so parameters are gathered one by one;
all workers take part, the first one writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trainables.probe import log_probabilities, write_probe
from trainables.recipe import Recipe
from trainables.tuning_model import TargetLoss
from trainables.world import World

CURVE = "curve.parquet"
_NOT_TOKENIZER = {"config.json", "probe.json", "generation_config.json", "model.safetensors.index.json"}


def save_checkpoint(
    engine: Any, world: World, recipe: Recipe, base: Path, folder: Path, probe_ids: Sequence[int]
) -> None:
    """Write the current weights and their probe into ``folder``; every worker calls this together.

    The folder appears whole: it is written beside its place and moved there.

    Raises:
        StepFailed: the weights answer the probe with something that is not a number.
    """
    loss_model: TargetLoss = engine.module
    weights = _gather(engine, recipe, world)
    logprobs = _probe(engine, world, probe_ids)
    if world.first:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        model: Any = loss_model.model
        # PEFT would otherwise ask the hub whether the vocabulary of the base was changed.
        own = {"save_embedding_layers": False} if recipe.method == "lora" else {}
        model.save_pretrained(partial, state_dict=weights, **own)
        (partial / "README.md").unlink(missing_ok=True)
        if recipe.method == "full":
            _copy_tokenizer(base, partial)
        write_probe(partial, probe_ids, logprobs, recipe.precision)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    world.barrier()


def _gather(engine: Any, recipe: Recipe, world: World) -> dict[str, torch.Tensor]:
    """The weights to save, in main memory of the first worker; empty elsewhere."""
    import deepspeed

    weights = {}
    partitioned = engine.zero_optimization_stage() == 3
    for name, parameter in engine.module.model.named_parameters():
        if recipe.method == "lora" and not parameter.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=partitioned):
            if world.first:
                weights[name] = parameter.detach().to("cpu", copy=True)
    return weights


def _probe(engine: Any, world: World, probe_ids: Sequence[int]) -> list[float]:
    ids = torch.tensor([list(probe_ids)], device=world.device)
    was_training = engine.module.training
    engine.module.eval()
    try:
        with torch.no_grad():
            # Through the inner model's own call, whose hooks gather partitioned parameters.
            logits = engine.module.logits(ids)[0]
    finally:
        engine.module.train(was_training)
    return log_probabilities(logits, probe_ids)


def _copy_tokenizer(base: Path, folder: Path) -> None:
    for file in sorted(base.iterdir()):
        if file.is_file() and file.suffix != ".safetensors" and file.name not in _NOT_TOKENIZER:
            shutil.copy2(file, folder / file.name)


def write_curve(out: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write ``curve.parquet``: step, loss, learning_rate, tokens (of this step), seconds (since the start)."""
    import pyarrow
    import pyarrow.parquet as parquet

    kinds = {"step": pyarrow.int64(), "tokens": pyarrow.int64()}
    columns = ("step", "loss", "learning_rate", "tokens", "seconds")
    table = pyarrow.table(
        {name: pyarrow.array([row[name] for row in rows], kinds.get(name, pyarrow.float64())) for name in columns}
    )
    parquet.write_table(table, out / CURVE)
