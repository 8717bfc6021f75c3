"""Random Llamas of 0.1M parameters with a byte-level tokenizer, prepared as base models and adapters are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SPECIAL = ("<s>", "</s>", "<pad>")
VOCABULARY = len(SPECIAL) + 256


def byte_tokenizer(chat: bool = False) -> Any:
    """One token per byte, BOS 0, EOS 1, padding 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={name: place for place, name in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    if chat:
        tokenizer.chat_template = (
            "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}</s>{% endfor %}"
            "{% if add_generation_prompt %}[assistant]{% endif %}"
        )
    return tokenizer


def random_model(folder: Path, seed: int, tied: bool = False, chat: bool = False) -> Path:
    """A prepared folder: weights in bf16, tokenizer, probe."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        tie_word_embeddings=tied,
        initializer_range=0.15,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    byte_tokenizer(chat).save_pretrained(folder)
    add_probe(folder, LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16))
    return folder


def nudged(folder: Path, origin: Path, by: float) -> Path:
    """Other weights, but so close to the origin's that no tolerance tells them apart."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(origin, dtype=torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight.mul_(1 + by)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    add_probe(folder, model)
    return folder


def random_adapter(folder: Path, base: Path, seed: int, spread: float = 0.15) -> Path:
    """A LoRA adapter of rank 4 with its probe; ``spread`` 0 leaves it without effect."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets), autocast_adapter_dtype=False)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=spread or 1e-30)
            if not spread:
                torch.nn.init.zeros_(parameter)
    adapted.save_pretrained(str(folder))
    add_probe(folder, adapted)
    return folder


def add_probe(folder: Path, model: Any) -> None:
    import torch

    from trainables.batches import prompt_ids
    from trainables.probe import log_probabilities, write_probe

    ids = prompt_ids(byte_tokenizer(), "Helsinki on Suomen pääkaupunki.")[:32]
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0]
    write_probe(folder, ids, log_probabilities(logits, ids), "bf16")
