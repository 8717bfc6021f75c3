"""Text into token batches: the one place where a prompt becomes ids and an example becomes a loss.

Training, generation, probes and judges must see the same ids for the same prompt, or a model is tuned on one
thing and asked another. So :func:`prompt_ids` is the only function that tokenizes a prompt: it puts the
beginning-of-sequence token first where the tokenizer has one (a tokenizer made from a GGUF file forgets it, and
without it Gemma babbles), never twice. The response is tokenized on its own and follows, ended by
end-of-sequence unless it had to be cut, for a cut response must not teach to stop there; loss falls on the response
only (paper appendix C).

Batches: the order in which examples are seen depends on the seed, the epoch and the example ids, and on nothing
else; how a batch is then cut into padded micro-batches over workers is a matter of speed, and every worker gets
the same number of them. This module knows no model and imports no torch, so that planning can read templates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import UserError
from trainables.recipe import Recipe

Example = tuple[list[int], list[int]]
"""Prompt ids and target ids."""

PLACE = "{instruction}"
CHAT = "chat"
_TEMPLATES = Path(__file__).parent / "templates"


def template_source(name_or_path: str) -> str:
    """The text behind a template's name, which is what identity should hold: ``"chat"``, or text with {instruction}.

    ``name_or_path`` is ``chat``, a shipped name (``plain``), the path of a text file (read as it is, its last
    newline included), or a template's text itself.

    Raises:
        UserError: no such template, or not exactly one ``{instruction}`` in it.
    """
    if name_or_path == CHAT:
        return CHAT
    if PLACE in name_or_path:
        text = name_or_path
    else:
        path = _shipped(name_or_path) if _shipped(name_or_path).is_file() else Path(name_or_path)
        if not path.is_file():
            names = ", ".join([CHAT, *sorted(file.stem for file in _TEMPLATES.glob("*.txt"))])
            raise UserError(
                f"template: {name_or_path!r} is neither a shipped template ({names}) nor a text file; "
                f"give one of these names or the path of a file that contains {PLACE}"
            )
        text = path.read_text(encoding="utf-8")
    if text.count(PLACE) != 1:
        raise UserError(
            f"template: {name_or_path!r} contains {PLACE} {text.count(PLACE)} times; write it once, "
            "where the instruction goes"
        )
    return text


def names_a_file(template: str) -> bool:
    """Whether a recipe's template is the path of a user's file, not a shipped name or a text."""
    return template != CHAT and PLACE not in template and not _shipped(template).is_file()


def _shipped(name: str) -> Path:
    return _TEMPLATES / f"{name}.txt"


@dataclass(frozen=True)
class Template:
    """How an instruction becomes a prompt. ``source`` is the template's text, or ``"chat"``."""

    source: str
    tokenizer: Any

    def prompt(self, instruction: str) -> str:
        """The prompt as text, without the beginning-of-sequence token (:func:`prompt_ids` puts it there)."""
        if self.source != CHAT:
            return self.source.replace(PLACE, instruction)
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": instruction}], tokenize=False, add_generation_prompt=True
        )
        bos = self.tokenizer.bos_token
        return text.removeprefix(bos) if bos else text

    def as_chat(self) -> str:
        """A chat template (Jinja) with which a user's message becomes the very ids of :func:`prompt_ids`.

        So whoever loads an exported model asks it as it was tuned. Further turns repeat the pattern; other roles are
        refused, for no model was tuned on them.
        """
        if self.source == CHAT:
            own: str = self.tokenizer.get_chat_template()
            text = self.tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
            bos = self.tokenizer.bos_token
            return own if not bos or text.startswith(bos) else "{{ bos_token }}" + own
        before, after = (json.dumps(part, ensure_ascii=False) for part in self.source.split(PLACE))
        return (
            "{{ bos_token }}{% for message in messages %}"
            "{% if message['role'] == 'user' %}{{ " + before + " + message['content'] + " + after + " }}"
            "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
            "{% else %}{{ raise_exception('this model was tuned on user messages alone') }}{% endif %}{% endfor %}"
        )


def template_text(name_or_path: str, tokenizer: Any) -> Template:
    """The template of a recipe or a job, ready to make prompts (see :func:`template_source` for the names).

    Raises:
        UserError: no such template, or ``chat`` with a tokenizer that has no chat template.
    """
    source = template_source(name_or_path)
    if source == CHAT and not getattr(tokenizer, "chat_template", None):
        raise UserError(
            "template: chat needs a base whose tokenizer has a chat template, and this one has none; use "
            "template: plain or the path of a file with {instruction}"
        )
    return Template(source, tokenizer)


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """The ids of a prompt: BOS first where the tokenizer has one, and never twice."""
    return _after_bos(tokenizer, tokenizer.encode(prompt, add_special_tokens=False))


def _after_bos(tokenizer: Any, ids: list[int]) -> list[int]:
    bos = tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def instruction_ids(tokenizer: Any, template: Template, instruction: str, max_input_tokens: int) -> list[int]:
    """The ids of a templated instruction of at most ``max_input_tokens``; the *instruction's* tail is cut.

    Cutting the prompt's tail instead would take away the very words that ask for the answer.

    Raises:
        UserError: the template alone is longer than the limit.
    """
    ids = prompt_ids(tokenizer, template.prompt(instruction))
    kept = instruction
    while len(ids) > max_input_tokens:
        words = tokenizer.encode(kept, add_special_tokens=False)
        if not words:
            raise UserError(
                f"max_input_tokens: {max_input_tokens} is fewer than the template alone takes ({len(ids)}); "
                "raise it or shorten the template"
            )
        words = words[: max(0, len(words) - (len(ids) - max_input_tokens))]
        # A cut inside a character decodes to U+FFFD; text may also grow again when re-encoded, hence the loop
        # and the character that is dropped if the text did not get shorter.
        shorter = tokenizer.decode(words, clean_up_tokenization_spaces=False).rstrip("\ufffd")
        kept = shorter if len(shorter) < len(kept) else kept[:-1]
        ids = prompt_ids(tokenizer, template.prompt(kept))
    return ids


def example_ids(tokenizer: Any, template: Template, rows: Iterable[tuple[str, str]], recipe: Recipe) -> list[Example]:
    """Training examples, ``(instruction, response)``, as ``(prompt ids, target ids)``.

    A target that fits into ``max_target_tokens`` with its EOS ends in EOS; a longer one is cut and does not.
    All texts are tokenized in two calls, which takes half of the time of one by one.

    Raises:
        UserError: the tokenizer has no end-of-sequence token, so no response could ever end.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("base: its tokenizer has no eos_token; set one in tokenizer_config.json")
    rows = list(rows)
    prompts = _many(tokenizer, [template.prompt(instruction) for instruction, _ in rows])
    targets = _many(tokenizer, [response for _, response in rows])
    examples = []
    for (instruction, _), words, target in zip(rows, prompts, targets, strict=True):
        prompt = _after_bos(tokenizer, words)
        if len(prompt) > recipe.max_input_tokens:
            prompt = instruction_ids(tokenizer, template, instruction, recipe.max_input_tokens)
        examples.append((prompt, [*target, eos][: recipe.max_target_tokens]))
    return examples


def input_lengths(tokenizer: Any, template: Template, instructions: Sequence[str]) -> list[int]:
    """How many tokens each templated instruction is before it is cut, BOS included."""
    prompts = _many(tokenizer, [template.prompt(instruction) for instruction in instructions])
    return [len(_after_bos(tokenizer, words)) for words in prompts]


def target_lengths(tokenizer: Any, responses: Sequence[str]) -> list[int]:
    """How many tokens each response is before it is cut, EOS included."""
    return [len(words) + 1 for words in _many(tokenizer, list(responses))]


def _many(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def epoch_order(ids: Sequence[str], seed: int, epoch: int) -> list[int]:
    """A seeded permutation of the positions of ``ids``: by digest, so no library's generator can change it.

    It follows the ids, so two mixtures of the same examples show them in the same order, each in its language.
    """

    def digest(position: int) -> bytes:
        return hashlib.sha256(f"{seed}\n{epoch}\n{ids[position]}".encode()).digest()

    return sorted(range(len(ids)), key=digest)


def batches_of(ids: Sequence[str], batch_size: int, seed: int, first_step: int = 0) -> Iterator[list[int]]:
    """The positions of each optimizer step's examples, without end, from ``first_step`` (counted from 0).

    Epochs follow one another without a gap: a batch may hold the last examples of one and the first of the next.
    """
    if not ids:
        raise UserError("examples: the training set is empty")
    epoch, within = divmod(first_step * batch_size, len(ids))
    order = epoch_order(ids, seed, epoch)[within:]
    while True:
        while len(order) < batch_size:
            epoch += 1
            order += epoch_order(ids, seed, epoch)
        yield order[:batch_size]
        order = order[batch_size:]


@dataclass(frozen=True)
class MicroBatch:
    """Right-padded arrays of one forward pass, shape (examples, length).

    ``input_ids`` int64; ``attention_mask`` 1 on real tokens; ``targets`` true at the positions *whose next token*
    is part of a response, so position i is scored on token i+1. ``tokens`` counts the real ones.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    targets: np.ndarray

    @property
    def tokens(self) -> int:
        return int(self.attention_mask.sum())


def micro_batches(
    examples: Sequence[Example], micro_batch: int, pad_id: int, rank: int = 0, world: int = 1, longest: int = 0
) -> list[MicroBatch]:
    """One worker's part of a global batch as padded micro-batches, as many as passes of ``micro_batch`` examples.

    Examples are sorted by length, so that those of similar length are padded together, and dealt out in turn. The
    passes are cut where the fewest positions are padded: one of short examples holds more of them, but never more
    tokens than ``micro_batch`` examples of the ``longest`` length (default: the longest here).
    Every worker gets the same number of micro-batches (collectives must match): where examples run out, one
    holds a single token with no target, which adds nothing to the loss.
    """
    by_length = sorted(examples, key=lambda example: (_length(example), example))
    groups = [by_length[start : start + world] for start in range(0, len(by_length), world)]
    lengths = [_length(group[-1]) for group in groups]
    ends = _ends(lengths, -(-len(groups) // micro_batch), micro_batch * max(longest, lengths[-1]))
    parts = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        mine = [group[rank] for group in groups[start:end] if rank < len(group)]
        parts.append(_padded(mine, pad_id))
    return parts


def longest_of(examples: Iterable[Example]) -> int:
    """Tokens of the longest example."""
    return max(map(_length, examples))


def _length(example: Example) -> int:
    return len(example[0]) + len(example[1])


def _ends(lengths: Sequence[int], parts: int, room: int) -> list[int]:
    """Where each of ``parts`` runs of ascending ``lengths`` ends, so that padding each to its last wastes least.

    No run takes more than ``room``, count times length. The shortest path over all cuts, one part at a time.
    """
    count = len(lengths)
    start, end = np.arange(count)[:, None], np.arange(1, count + 1)
    tokens = (end - start) * np.array(lengths)
    cost = np.full((count + 1, count + 1), np.inf)
    cost[:count, 1:] = np.where((end > start) & (tokens <= room), tokens, np.inf)
    best = np.full(count + 1, np.inf)
    best[0] = 0
    came_from = []
    for _ in range(parts):
        through = best[:, None] + cost
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0)
    ends = [count]
    for previous in reversed(came_from[1:]):
        ends.append(int(previous[ends[-1]]))
    return ends[::-1]


def _padded(examples: Sequence[Example], pad_id: int) -> MicroBatch:
    rows = max(1, len(examples))
    length = max(map(_length, examples), default=1)
    input_ids = np.full((rows, length), pad_id, dtype=np.int64)
    mask = np.zeros((rows, length), dtype=np.int64)
    targets = np.zeros((rows, length), dtype=bool)
    for row, (prompt, target) in enumerate(examples):
        end = len(prompt) + len(target)
        input_ids[row, :end] = [*prompt, *target]
        mask[row, :end] = 1
        targets[row, max(0, len(prompt) - 1) : end - 1] = True
    if not examples:
        mask[0, 0] = 1
    return MicroBatch(input_ids, mask, targets)


def target_count(examples: Sequence[Example]) -> int:
    """How many tokens of these examples carry loss: what the loss of the whole batch is divided by."""
    return sum(len(target) for _, target in examples)


def packed(sequences: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Token sequences run together and cut into rows of ``length``, shape (rows, length); the rest is dropped."""
    stream = np.fromiter((token for sequence in sequences for token in sequence), dtype=np.int64)
    rows = len(stream) // length
    return stream[: rows * length].reshape(rows, length)
