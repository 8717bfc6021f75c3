"""Models of one's own as translators: random ones, for what is tested is how they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import byte_tokenizer, random_model
from trainables.errors import UserError
from trainables.translators import Answer, LocalTranslator, Target, open_translator

FINNISH = Target("fi", "Finnish")
STRINGS = [f"{word} {number}" for number in range(6) for word in ("A", "Some words", "A rather longer line with")]


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Bart of bytes that knows M2M100's language tokens and often comes to an end."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    folder = tmp_path_factory.mktemp("bart")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["__en__", "__fi__"], special_tokens=True)
    torch.manual_seed(5)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        decoder_start_token_id=1,
        forced_eos_token_id=None,
        init_std=0.6,
    )
    model = BartForConditionalGeneration(config)
    model.final_logits_bias[0, 1] = 8.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answers(folder: Path, **settings: Any) -> dict[str, Answer]:
    spec = LocalTranslator(**{"model": str(folder), **settings})
    engine = open_translator(spec, folder=folder, engine="transformers", threads=1)
    kept: dict[str, Answer] = {}
    engine.translate(STRINGS, FINNISH, lambda some: kept.update(some))
    engine.close()
    return kept


def test_a_sequence_to_sequence_model_answers_every_string_whatever_stands_beside_it(seq2seq: Path) -> None:
    together, alone = answers(seq2seq, batch_size=7), answers(seq2seq, batch_size=1)
    assert together.keys() == set(STRINGS)
    assert together == alone
    assert any(answer.text for answer in alone.values()), "some answers must come to their end"
    assert all(answer.characters == len(string) for string, answer in alone.items())


def test_what_a_sequence_to_sequence_model_says_is_what_transformers_says(seq2seq: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(seq2seq)
    model = AutoModelForSeq2SeqLM.from_pretrained(seq2seq).eval()
    prompt = seq2seq / "prompt.txt"
    prompt.write_text("<2{code}> {text}")
    said = answers(seq2seq, prompt=str(prompt))
    for string in STRINGS[:6]:
        read = tokenizer(f"<2fi> {string}", return_tensors="pt")
        most = 32 + 2 * read["input_ids"].shape[1]
        finnish = tokenizer.convert_tokens_to_ids("__fi__")
        made = model.generate(
            input_ids=read["input_ids"],
            attention_mask=read["attention_mask"],
            forced_bos_token_id=finnish,
            max_new_tokens=most,
            do_sample=False,
        )[0].tolist()
        assert made[1] == finnish, "the language asked for comes first"
        whole = 1 in made[1:]
        assert said[string].text == (tokenizer.decode(made, skip_special_tokens=True) if whole else "")


def test_a_causal_model_answers_through_its_chat_template(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "causal", seed=3, chat=True)
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{text} in {language}")
    said = answers(folder, architecture="causal", prompt=str(prompt))
    assert said.keys() == set(STRINGS)
    assert said == answers(folder, architecture="causal", prompt=str(prompt))


def test_a_string_that_leaves_no_room_for_an_answer_has_none(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "causal", seed=3)
    spec = LocalTranslator(model=str(folder), architecture="causal")
    engine = open_translator(spec, folder=folder, engine="transformers", threads=1)
    kept: dict[str, Answer] = {}
    engine.translate(["long " * 200], FINNISH, lambda some: kept.update(some))
    assert kept == {"long " * 200: Answer("", 0)}


def test_a_folder_without_such_a_model_is_refused(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "causal", seed=3)
    with pytest.raises(UserError, match="cannot be loaded as a sequence-to-sequence model"):
        open_translator(LocalTranslator(model=str(folder)), folder=folder)
