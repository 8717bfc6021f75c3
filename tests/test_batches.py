"""Rules of text and batches: BOS, cuts, loss positions, order, padding."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.batches import (
    Template,
    batches_of,
    epoch_order,
    example_ids,
    instruction_ids,
    micro_batches,
    packed,
    prompt_ids,
    target_count,
    template_source,
    template_text,
)
from trainables.errors import UserError
from trainables.recipe import Recipe
from trainables.tiny_base import train_tokenizer

SENTENCES = [
    "Helsinki is the capital of Finland.",
    "Москва — столица России.",
    "北京是中国的首都。",
    "القاهرة عاصمة مصر.",
] * 50


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 400)


def recipe(**changes) -> Recipe:
    return Recipe(**{"max_input_tokens": 128, "max_target_tokens": 64, **changes})


def test_a_prompt_begins_with_bos_exactly_once(tokenizer):
    assert prompt_ids(tokenizer, "Where?")[0] == tokenizer.bos_token_id
    assert prompt_ids(tokenizer, "<s>Where?") == prompt_ids(tokenizer, "Where?")
    assert prompt_ids(tokenizer, "Where?").count(tokenizer.bos_token_id) == 1


def test_a_tokenizer_without_bos_gets_none(tokenizer):
    class NoBos:
        bos_token_id = None

        def encode(self, text, add_special_tokens):
            return tokenizer.encode(text, add_special_tokens=add_special_tokens)

    assert prompt_ids(NoBos(), "Where?") == prompt_ids(tokenizer, "Where?")[1:]


@settings(max_examples=60, deadline=None)
@given(instruction=st.text(min_size=0, max_size=80), limit=st.integers(12, 60))
def test_a_cut_instruction_fits_and_keeps_the_template_whole(tokenizer, instruction, limit):
    template = template_text("Ask: {instruction}\nSay:\n", tokenizer)
    ids = instruction_ids(tokenizer, template, instruction, limit)
    assert len(ids) <= limit
    text = tokenizer.decode(ids[1:])
    assert text.startswith("Ask: ")
    assert text.endswith("\nSay:\n")
    if len(prompt_ids(tokenizer, template.prompt(instruction))) <= limit:
        assert ids == prompt_ids(tokenizer, template.prompt(instruction))


def test_a_template_longer_than_the_limit_is_the_users_error(tokenizer):
    template = template_text("word " * 40 + "{instruction}", tokenizer)
    with pytest.raises(UserError, match="max_input_tokens"):
        instruction_ids(tokenizer, template, "Where?", 20)


def test_a_target_ends_in_eos_unless_it_had_to_be_cut(tokenizer):
    template = template_text("plain", tokenizer)
    rows = [("Where?", "Here."), ("Where?", "Here and there. " * 50)]
    (_, whole), (_, cut) = example_ids(tokenizer, template, rows, recipe(max_target_tokens=9))
    assert whole[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(whole[:-1]) == "Here."
    assert len(cut) == 9
    assert tokenizer.eos_token_id not in cut


def test_the_prompt_of_an_example_is_the_one_that_is_asked_later(tokenizer):
    template = template_text("plain", tokenizer)
    short, long = "Where?", "Where is the sea? " * 60
    settings_ = recipe(max_input_tokens=40)
    examples = example_ids(tokenizer, template, [(short, "Here."), (long, "There.")], settings_)
    assert [prompt for prompt, _ in examples] == [
        instruction_ids(tokenizer, template, text, 40) for text in (short, long)
    ]


def test_braces_in_instructions_are_left_alone(tokenizer):
    template = template_text("plain", tokenizer)
    assert "{instruction} {x}" in template.prompt("{instruction} {x}")


def test_a_chat_template_is_used_without_its_own_bos(tokenizer):
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    )
    try:
        template = template_text("chat", tokenizer)
        assert template.prompt("Where?") == "[user] Where?\n[assistant] "
        assert prompt_ids(tokenizer, template.prompt("Where?")).count(tokenizer.bos_token_id) == 1
    finally:
        tokenizer.chat_template = None


def test_chat_without_a_chat_template_is_the_users_error(tokenizer):
    with pytest.raises(UserError, match="chat template"):
        template_text("chat", tokenizer)


def test_a_template_says_where_the_instruction_goes_once(tmp_path: Path):
    for content in ("nothing here", "{instruction} and {instruction}"):
        file = tmp_path / "template.txt"
        file.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"\{instruction\}"):
            template_source(str(file))
    with pytest.raises(UserError, match="chat, plain"):
        template_source("plane")


def test_a_templates_name_path_and_text_mean_the_same(tmp_path: Path):
    text = template_source("plain")
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    assert template_source(str(file)) == template_source(text) == text
    assert Template(text, None).prompt("Where?") == text.replace("{instruction}", "Where?")


@given(st.integers(1, 40), st.integers(0, 9), st.integers(0, 3))
def test_an_epoch_shows_every_example_once(count, seed, epoch):
    ids = [f"x-{i}" for i in range(count)]
    assert sorted(epoch_order(ids, seed, epoch)) == list(range(count))


def test_the_order_follows_ids_seed_and_epoch():
    ids = [f"x-{i}" for i in range(50)]
    assert epoch_order(ids, 0, 0) != epoch_order(ids, 1, 0)
    assert epoch_order(ids, 0, 0) != epoch_order(ids, 0, 1)
    reversed_ids = [ids[::-1][i] for i in epoch_order(ids[::-1], 0, 0)]
    assert reversed_ids == [ids[i] for i in epoch_order(ids, 0, 0)]
    # The order is part of what a fine-tune is: another one would be another RESULT_VERSION.
    assert epoch_order(ids, 0, 0)[:6] == [45, 37, 18, 4, 36, 12]


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 20))
def test_batches_begun_later_are_the_later_batches(count, batch_size, step):
    ids = [f"x-{i}" for i in range(count)]
    from_start = list(itertools.islice(batches_of(ids, batch_size, 0), step + 3))[step:]
    assert list(itertools.islice(batches_of(ids, batch_size, 0, step), 3)) == from_start


examples_strategy = st.lists(
    st.tuples(st.lists(st.integers(3, 9), min_size=1, max_size=6), st.lists(st.integers(3, 9), min_size=1, max_size=6)),
    min_size=1,
    max_size=20,
)


@given(examples_strategy, st.integers(1, 5), st.integers(1, 3))
def test_workers_share_a_batch_without_loss_and_in_step(examples, micro, world):
    parts = [micro_batches(examples, micro, pad_id=0, rank=rank, world=world) for rank in range(world)]
    assert len({len(rank) for rank in parts}) == 1
    scored = sum(int(batch.targets.sum()) for rank in parts for batch in rank)
    assert scored == target_count(examples)
    seen = sorted(
        row[mask == 1].tolist()
        for rank in parts
        for batch in rank
        if batch.targets.any()
        for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    )
    assert seen == sorted([*prompt, *target] for prompt, target in examples)


@given(examples_strategy, st.integers(1, 5), st.integers(0, 12))
def test_micro_batches_are_as_many_as_equal_ones_pad_no_more_and_never_hold_more_than_there_is_room_for(
    examples, micro, longest
):
    batches = micro_batches(examples, micro, pad_id=0, longest=longest)
    lengths = sorted(len(prompt) + len(target) for prompt, target in examples)
    equal = [lengths[start : start + micro] for start in range(0, len(lengths), micro)]
    assert len(batches) == len(equal)
    assert sum(batch.input_ids.size for batch in batches) <= sum(len(part) * part[-1] for part in equal)
    assert all(batch.input_ids.size <= micro * max(longest, lengths[-1]) for batch in batches)


def test_exactly_the_positions_before_target_tokens_are_scored():
    (batch,) = micro_batches([([1, 5, 6], [7, 2])], 4, pad_id=0)
    assert batch.targets.tolist() == [[False, False, True, True, False]]
    assert batch.tokens == 5


def test_packing_drops_only_the_rest():
    rows = packed([[1, 2, 3], [4, 5], [6, 7, 8]], 3)
    assert rows.tolist() == [[1, 2, 3], [4, 5, 6]]
