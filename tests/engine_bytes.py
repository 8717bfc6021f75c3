"""Measures what real DeepSpeed engines hold, one after another: ``python -m tests.engine_bytes FOLDER`` prints JSON.

A process of its own, because it counts every tensor of the process.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import warnings
from pathlib import Path

import torch

from tests.tuning_examples import job
from trainables.batches import micro_batches
from trainables.finetune import read_examples
from trainables.memory import Settled
from trainables.model_shape import read_shape
from trainables.recipe import Recipe
from trainables.tuning_model import load_for_tuning, load_tokenizer, tensors
from trainables.world import join_world, start_engine

_LAYOUTS = [(0, False), (1, False), (2, False), (3, False), (2, True), (3, True)]
CASES = [(*layout, *rest) for layout, *rest in itertools.product(_LAYOUTS, ["bf16", "fp32"], ["full", "lora"])]
"""(ZeRO stage, offload, precision, method)"""


def label(stage: int, offload: bool, precision: str, method: str) -> str:
    return f"{stage}-{offload}-{precision}-{method}"


def case(stage: int, offload: bool, precision: str, method: str) -> tuple[Recipe, Settled]:
    return Recipe(method=method, precision=precision, batch_size=8), Settled(stage, 4, False, offload)


def batch(room: Path) -> dict[str, torch.Tensor]:
    tokenizer = load_tokenizer(room / "tiny")
    _, examples = read_examples(job(room, room / "tiny", "unused"), tokenizer)
    return tensors(micro_batches(examples[:4], 4, tokenizer.pad_token_id)[0], torch.device("cpu"))


def held_bytes(room: Path, recipe: Recipe, settled: Settled) -> int:
    """Bytes of floating-point numbers that are there in the middle of an accumulated step, and were not before."""
    arguments = batch(room)
    before = storages()
    model, _ = load_for_tuning(room / "tiny", recipe, 0, "eager", False)
    assert sum(parameter.numel() for parameter in model.parameters()) == read_shape(room / "tiny").held(recipe)
    engine = start_engine(model, recipe, settled, join_world(), 2)
    try:
        engine.train()
        for _ in range(3):  # the moments are there after a step, gradients are added up in the middle of one
            engine.backward(engine(**arguments))
            engine.step()
        found = storages()
    finally:
        engine.destroy()
    return sum(storage.nbytes() for address, storage in found.items() if address not in before)


def storages() -> dict[int, torch.UntypedStorage]:
    """Every storage of floating-point numbers in this process, by address; while they are held none is given again."""
    gc.collect()
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thing in gc.get_objects():
            if isinstance(thing, torch.Tensor) and thing.is_floating_point():
                for tensor in (thing, thing.grad):
                    if tensor is not None and tensor.device.type != "meta":
                        found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
    return found


if __name__ == "__main__":
    print(json.dumps({label(*one): held_bytes(Path(sys.argv[1]), *case(*one)) for one in CASES}))
