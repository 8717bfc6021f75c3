"""A tuned checkpoint as a folder for others: what transformers, PEFT and vLLM load by its path alone.

A full fine-tune, or an adapter merged into its base, is a complete model folder; an adapter by itself is PEFT's form.
Either way the tokenizer comes with a chat template that asks the model as it was tuned, whatever template its base
came with. What was written is loaded again and must answer the checkpoint's probe.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from trainables import weight_files
from trainables.batches import template_text
from trainables.engines.contract import WrongWeights, end_tokens
from trainables.engines.loading import TOLERANCE, mean_difference, read_probe
from trainables.probe import log_probabilities
from trainables.recipe import Recipe
from trainables.sampling import Sampling


class BaseName(NamedTuple):
    """What an adapter says it belongs to: a hub name with its commit, or a folder."""

    name: str
    revision: str | None = None


def export(
    checkpoint: Path,
    base: Path,
    out: Path,
    *,
    recipe: Recipe,
    template: str,
    sampling: Sampling,
    base_name: BaseName,
    merged: bool = False,
) -> None:
    """Write a checkpoint into the empty folder ``out`` in the form others load, and prove it.

    Args:
        base: the prepared base it was tuned from.
        template: the template's text, or chat.
        sampling: becomes the generation defaults of a complete model.
        base_name: where an adapter's users find the base.
        merged: an adapter becomes a complete model.

    Raises:
        WrongWeights: what was written does not answer as the checkpoint did.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    adapter = recipe.method == "lora" and not merged
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    if adapter:
        _copy_adapter(checkpoint, out, base_name)
    elif recipe.method == "lora":
        _load(base, checkpoint).merge_and_unload(safe_merge=True).save_pretrained(out)
    else:
        for file in (checkpoint / "config.json", *checkpoint.glob("*.safetensors*")):
            shutil.copy2(file, out / file.name)
    if not adapter:
        _write_generation_config(out, tokenizer, end_tokens(base, tokenizer), sampling)
    tokenizer.chat_template = template_text(template, tokenizer).as_chat()
    tokenizer.save_pretrained(out)
    _prove(checkpoint, _load(base, out) if adapter else _load(out))


def _copy_adapter(checkpoint: Path, out: Path, base: BaseName) -> None:
    shutil.copy2(checkpoint / weight_files.ADAPTER, out)
    config = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_generation_config(out: Path, tokenizer: Any, ends: list[int], sampling: Sampling) -> None:
    from transformers import GenerationConfig

    drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p} if sampling.temperature else {}
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=bool(sampling.temperature),
        max_new_tokens=sampling.max_new_tokens,
        **drawn,
    ).save_pretrained(out)


def _load(folder: Path, adapter: Path | None = None) -> Any:
    from transformers import AutoModelForCausalLM

    refused = weight_files.refusal(folder) or (weight_files.refusal(adapter, adapter=True) if adapter else None)
    if refused:
        raise WrongWeights(refused)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", use_safetensors=True, trust_remote_code=False
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    return model.eval()


def _prove(checkpoint: Path, model: Any) -> None:
    import torch

    token_ids, reference = read_probe(checkpoint)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([token_ids]), use_cache=False).logits[0]
    distance = mean_difference(log_probabilities(logits, token_ids), reference)
    if not distance <= TOLERANCE:
        raise WrongWeights(
            f"what was exported answers the probe of {checkpoint} {distance:.3f} nats per token away from the "
            f"checkpoint itself; up to {TOLERANCE} is rounding"
        )
