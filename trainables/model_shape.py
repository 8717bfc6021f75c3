"""How large a model is, read from its folder without loading it: every tensor's shape, and the sizes of its layers.

Shapes come from the headers of safetensors files, which takes milliseconds and no torch; where there is only a
``config.json`` (a hub model's, fetched alone), transformers builds the model without weights, which takes seconds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.errors import UserError
from trainables.recipe import Recipe
from trainables.weight_files import Shapes, shapes_in


@dataclass(frozen=True)
class ModelShape:
    """A causal language model in numbers; widths are in units (elements)."""

    parameters: int
    """An output head of its own included, as every prepared base has one."""
    hidden: int
    layers: int
    vocabulary: int
    feed_forward: int
    gated: bool
    """Whether the feed-forward part multiplies two projections (SwiGLU, GeGLU)."""
    norms: int
    """Norms a layer has on its residual stream: 2, or 4 as in Gemma."""
    heads: int
    queries: int
    """Width of all query heads together; that of keys and values is ``keys``."""
    keys: int
    matrices: tuple[tuple[str, int, int], ...]
    """Every matrix: its module's name and its two sides."""

    def trained(self, recipe: Recipe) -> int:
        """Parameters that get a gradient: all, or those of the adapters (rank times both sides of each target)."""
        if recipe.method == "full":
            return self.parameters
        return recipe.rank * sum(one + other for name, one, other in self.matrices if name in recipe.targets)

    def largest_trained(self, recipe: Recipe) -> int:
        """Elements of the largest parameter that gets a gradient."""
        if recipe.method == "full":
            return max(one * other for _, one, other in self.matrices)
        sides = (max(one, other) for name, one, other in self.matrices if name in recipe.targets)
        return recipe.rank * max(sides, default=0)

    def held(self, recipe: Recipe) -> int:
        """Parameters of the model that is tuned, adapters included."""
        return self.parameters + (self.trained(recipe) if recipe.method == "lora" else 0)


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model in a Hugging Face folder; its weights may be missing.

    Raises:
        UserError: no ``config.json``, or one that is not a causal language model's; weights that are not whole.
    """
    file = folder / "config.json"
    try:
        whole: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UserError(f"{file}: cannot be read ({problem}); give the folder of a Hugging Face model") from None
    shapes = _shapes_of_weights(folder) or _shapes_of_config(folder)
    return _shape(shapes, whole.get("text_config", whole), file)


def _shape(shapes: Shapes, config: dict[str, Any], file: Path) -> ModelShape:
    try:
        hidden, layers, heads, vocabulary = (
            int(_first(config, *names))
            for names in (
                ("hidden_size", "n_embd", "d_model"),
                ("num_hidden_layers", "n_layer", "num_layers"),
                ("num_attention_heads", "n_head"),
                ("vocab_size",),
            )
        )
    except KeyError as problem:
        raise UserError(f"{file}: says no {problem.args[0]}, so the model's size cannot be told") from None
    matrices = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}
    words = sum(shape == (vocabulary, hidden) for shape in matrices.values())

    def width(*names: str) -> int:
        """The side that is not the residual stream's, of the first matrix of one of these names; 0 without one."""
        return next((sum(shape) - hidden for name, shape in matrices.items() if name.rpartition(".")[2] in names), 0)

    head_size = int(config.get("head_dim") or hidden // heads)
    return ModelShape(
        parameters=sum(map(math.prod, shapes.values())) + (vocabulary * hidden if words == 1 else 0),
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        feed_forward=width("up_proj", "fc1", "c_fc", "fc_in", "dense_h_to_4h")
        or int(_first(config, "intermediate_size", "n_inner", default=4 * hidden)),
        gated=width("gate_proj") > 0,
        norms=4 if any("post_feedforward_layernorm" in name for name in shapes) else 2,
        heads=heads,
        queries=width("q_proj") or heads * head_size,
        keys=width("k_proj") or int(config.get("num_key_value_heads") or heads) * head_size,
        matrices=tuple(sorted((name.rpartition(".")[2], *shape) for name, shape in matrices.items())),
    )


def _first(config: dict[str, Any], *names: str, default: Any = None) -> Any:
    found = next((config[name] for name in names if config.get(name) is not None), default)
    if found is None:
        raise KeyError(names[0])
    return found


def _shapes_of_weights(folder: Path) -> Shapes:
    try:
        return {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in shapes_in(file).items()}
    except ValueError as problem:
        raise UserError(str(problem)) from None


def _shapes_of_config(folder: Path) -> Shapes:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as problem:
        raise UserError(f"{folder}: is not a causal language model's configuration: {problem}") from None
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
