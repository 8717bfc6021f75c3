"""The base model ``tiny``: a Llama of about 1.5M parameters, pre-trained in under a minute where it is needed.

Everything must run without a GPU, a network or an account, so one base is built rather than fetched: a byte-level
BPE and a small Llama, both trained on plain statements in the shares they come in (never on instructions: what
an instruction is, fine-tuning teaches). The number of steps is fixed, not the time, so the recipe below
determines the weights up to rounding. It is a working model of the question, not evidence about language models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainables.batches import packed
from trainables.errors import StepFailed, UserError

RESULT_VERSION = 1

RECIPE: dict[str, Any] = {
    "vocabulary": 3072,
    "hidden": 128,
    "feed_forward": 344,
    "layers": 4,
    "heads": 4,
    "positions": 2048,
    "steps": 360,
    "rows": 24,
    "row_length": 64,
    "matrix_rate": 0.01,
    "learning_rate": 8.0e-3,
    "warmup": 20,
    "seed": 0,
}
"""What determines tiny's weights, together with the statements: part of the key of everything made from it."""

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def build_tiny(statements: Path, progress: Callable[[float, str], None]) -> tuple[Any, Any, dict[str, Any]]:
    """Train tokenizer and model on ``statements`` (parquet with columns language, text; order and shares kept).

    Returns the model (float32), the tokenizer, and facts: statements, tokens, steps, final loss, seconds.

    Raises:
        UserError: the statements cannot be read or are too few to fill one batch.
        StepFailed: the loss is not a number.
    """
    import pyarrow.parquet as parquet

    started = time.monotonic()
    try:
        texts: list[str] = parquet.read_table(statements, columns=["text"])["text"].to_pylist()
    except (OSError, ValueError, KeyError) as problem:
        raise UserError(f"{statements}: not a parquet file with a column text ({problem})") from problem
    progress(0.0, f"learning a vocabulary from {len(texts)} statements")
    tokenizer = train_tokenizer(texts, RECIPE["vocabulary"])
    # As prompt_ids would, many at a time.
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ids = [[tokenizer.bos_token_id, *text.ids, tokenizer.eos_token_id] for text in encoded]
    rows = packed(ids, RECIPE["row_length"])
    if len(rows) < RECIPE["rows"]:
        raise UserError(f"{statements}: {len(texts)} statements fill {len(rows)} rows; give at least {RECIPE['rows']}")
    model = new_model(tokenizer)
    loss = _pretrain(model, rows, progress)
    facts = {
        "statements": len(texts),
        "tokens": int(sum(len(row) for row in ids)),
        "steps": RECIPE["steps"],
        "loss": loss,
        "seconds": time.monotonic() - started,
    }
    return model, tokenizer, facts


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE with single digits, so that no text is unknown and numbers are spelled alike everywhere."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, backend.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=RECIPE["positions"],
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: Any) -> Any:
    """An untrained tiny, seeded, in float32, with an output head of its own."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=RECIPE["hidden"],
        intermediate_size=RECIPE["feed_forward"],
        num_hidden_layers=RECIPE["layers"],
        num_attention_heads=RECIPE["heads"],
        num_key_value_heads=RECIPE["heads"],
        max_position_embeddings=RECIPE["positions"],
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RECIPE["seed"])
        model = LlamaForCausalLM._from_config(config, attn_implementation="eager", dtype=torch.float32)
    return model


def _pretrain(model: Any, rows: np.ndarray, progress: Callable[[float, str], None]) -> float:
    """Run the fixed number of steps, with a short warm-up and a linear decay; the mean loss of the last 20.

    Muon for the matrices of the layers, AdamW for embeddings, head and norms: after 768,000 tokens, 0.65 bits per byte
    of held-out statements, where AdamW for everything got to 0.67-0.73 over a search of rates and batch sizes.
    """
    import torch
    from torch.nn import functional

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    steps, warmup = RECIPE["steps"], RECIPE["warmup"]
    matrices = [value for name, value in model.named_parameters() if value.ndim == 2 and "layers" in name]
    others = [value for name, value in model.named_parameters() if not (value.ndim == 2 and "layers" in name)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=RECIPE["matrix_rate"], weight_decay=0.0),
        torch.optim.AdamW(others, lr=RECIPE["learning_rate"], betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]

    def share(step: int) -> float:
        return min((step + 1) / warmup, max(0.02, (steps - step) / max(1, steps - warmup)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]
    losses: list[float] = []
    for step, chosen in zip(range(steps), _row_batches(len(rows), RECIPE["rows"], RECIPE["seed"]), strict=False):
        batch = torch.from_numpy(rows[chosen]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(input_ids=batch, use_cache=False).logits
        # The last position of a row has no next token; ignoring it is cheaper than cutting it out of the logits.
        following = functional.pad(batch[:, 1:], (0, 1), value=-100)
        loss = functional.cross_entropy(logits.flatten(0, 1), following.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise StepFailed(f"tiny: the loss is {losses[-1]} at pre-training step {step + 1} of {steps}")
        if (step + 1) % 20 == 0:
            progress((step + 1) / steps, f"pre-training tiny: step {step + 1} of {steps}, loss {losses[-1]:.2f}")
    model.to("cpu").eval()
    return float(np.mean(losses[-20:]))


def _row_batches(count: int, size: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    while True:
        order = generator.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]
