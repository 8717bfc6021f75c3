"""The transformers engine: the same answers, slower, where vLLM cannot run.

Left-padded batches, a cache of keys and values, one random generator per request. Requests that have ended leave
the batch when they are half of it. Padding changes the last bits of the arithmetic, so a text may depend on the
prompts it was batched with (2 of 67 did in a trial with a 1.4M-parameter model); the same list of prompts in the same
engine gives the same texts.

Measured on two cores, one thread, 1.4M parameters: start 6 s, 1,100 to 2,900 tokens/s, a swap with its probes 0.015 s,
0.65 GB of memory. So for tiny models it is a fair choice, not only a makeshift.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from trainables.engines.contract import (
    EngineSettings,
    Progress,
    Prompt,
    Response,
    Weights,
    check_lengths,
    end_tokens,
    refuse_other_method,
)
from trainables.engines.loading import checked_load, refuse_unproved
from trainables.errors import EnvironmentProblem
from trainables.probe import log_probabilities
from trainables.sampling import Sampling


class TransformersEngine:
    """See :class:`trainables.engines.contract.Engine`.

    Raises:
        EnvironmentProblem: the base cannot be loaded.
    """

    name = "transformers"

    def __init__(
        self,
        base: Path,
        method: Literal["full", "lora"],
        max_model_len: int,
        max_rank: int = 16,
        settings: EngineSettings | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        settings = settings or EngineSettings()
        self.max_model_len = max_model_len
        self._device = _device(settings)
        self._rows = settings.max_sequences
        self._method = method
        if self._device.type == "cpu":
            torch.set_num_threads(settings.cpu_threads)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
            model: Any = AutoModelForCausalLM.from_pretrained(
                base, dtype=_dtype(self._device), use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as problem:
            raise EnvironmentProblem(f"transformers could not load {base}: {problem}") from problem
        self._model: Any = model.to(self._device).eval()
        self._ends = end_tokens(base, self.tokenizer)
        self._on_device: Path | None = base
        self._loaded: Weights | None = None
        self._adapted = False
        self.load(Weights(name=base.name, kind="base", folder=base))

    def load(self, weights: Weights) -> None:
        """Copy the weights into the model, or put the adapter on the base, and prove it by the probe."""
        refuse_other_method(weights, self._method)
        before, self._loaded = self._loaded, None
        checked_load(
            weights,
            swap=lambda: self._swap(weights),
            ask=self._log_probabilities,
            before=before,
            ask_base=self._ask_base if weights.kind == "lora" else None,
        )
        self._loaded = weights

    def _swap(self, weights: Weights) -> None:
        if self._adapted:
            self._model, self._adapted = self._model.unload(), False
        if weights.kind == "lora":
            from peft import PeftModel

            self._model = PeftModel.from_pretrained(self._model, weights.folder, autocast_adapter_dtype=False).eval()
            self._adapted = True
        elif weights.folder != self._on_device:
            self._on_device = None
            self._model.load_state_dict(_tensors(weights.folder), strict=True)
            self._on_device = weights.folder

    @torch.inference_mode()
    def _log_probabilities(self, token_ids: Sequence[int]) -> list[float]:
        ids = torch.tensor([list(token_ids)], device=self._device)
        return log_probabilities(self._model(input_ids=ids, use_cache=False).logits[0], token_ids)

    def _ask_base(self, token_ids: Sequence[int]) -> list[float]:
        with self._model.disable_adapter():
            return self._log_probabilities(token_ids)

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_progress: Progress | None = None
    ) -> list[Response]:
        """Batches of similar prompt length, one after another."""
        refuse_unproved(self._loaded)
        check_lengths(prompts, sampling.max_new_tokens, self.max_model_len)
        responses: dict[int, Response] = {}
        for batch in _batches([prompt.token_ids for prompt in prompts], self._rows):
            texts = self._sample([prompts[place] for place in batch], sampling)
            for place, ids in zip(batch, texts, strict=True):
                responses[place] = self._response(prompts[place], ids)
            if on_progress:
                on_progress(len(responses), len(prompts))
        return [responses[place] for place in range(len(prompts))]

    def _response(self, prompt: Prompt, ids: list[int]) -> Response:
        stopped = ids[-1] in self._ends
        text = self.tokenizer.decode(
            ids[:-1] if stopped else ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Response(prompt.id, text, len(ids), "stop" if stopped else "length")

    @torch.inference_mode()
    def _sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        draw = _Draw(sampling, [prompt.seed for prompt in prompts], self._device)
        ids, mask = self._padded([prompt.token_ids for prompt in prompts])
        said: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))  # which prompt each row of the batch belongs to
        running = set(rows)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        cache = None
        for _ in range(sampling.max_new_tokens):
            answer = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = answer.past_key_values
            tokens = draw(answer.logits[:, -1].float(), rows)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if row in running:
                    said[row].append(token)
                    if token in self._ends:
                        running.discard(row)
            if not running:
                break
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            ids = tokens[:, None]
            if len(running) <= len(rows) // 2:
                keep = torch.tensor([place for place, row in enumerate(rows) if row in running], device=self._device)
                cache.batch_select_indices(keep)
                ids, mask, positions = ids[keep], mask[keep], positions[keep]
                rows = [row for row in rows if row in running]
        return said

    @torch.inference_mode()
    def choose(
        self, prompts: Sequence[Sequence[int]], options: tuple[int, ...], on_progress: Progress | None = None
    ) -> list[int]:
        """The option with the highest logit."""
        refuse_unproved(self._loaded)
        chosen: dict[int, int] = {}
        for batch in _batches(prompts, self._rows):
            ids, mask = self._padded([prompts[place] for place in batch])
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            logits = self._model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1
            ).logits[:, -1]
            for place, best in zip(batch, logits[:, list(options)].argmax(-1).tolist(), strict=True):
                chosen[place] = options[best]
            if on_progress:
                on_progress(len(chosen), len(prompts))
        return [chosen[place] for place in range(len(prompts))]

    def close(self) -> None:
        """Drop the model."""
        self._loaded = None
        del self._model

    def _padded(self, sequences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and mask, both of shape (sequences, longest)."""
        longest = max(len(sequence) for sequence in sequences)
        pad = self._ends[0] if self._ends else 0  # masked, so any id will do
        ids = [[pad] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
        mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
        return torch.tensor(ids, device=self._device), torch.tensor(mask, device=self._device)


class _Draw:
    """Next tokens from logits (rows, vocabulary): the likeliest, or by nucleus sampling from each request's seed."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int], device: torch.device) -> None:
        self._sampling = sampling
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        if not self._sampling.temperature:
            return logits.argmax(-1)
        logits = logits / self._sampling.temperature
        if self._sampling.top_p < 1:
            from transformers import TopPLogitsWarper

            logits = TopPLogitsWarper(self._sampling.top_p)(None, logits)
        # The smallest of exponential times with these rates is a draw from the distribution.
        times = torch.empty_like(logits)
        for place, row in enumerate(rows):
            times[place].exponential_(generator=self._generators[row])
        return (logits.softmax(-1) / times).argmax(-1)


def _batches(sequences: Sequence[Sequence[int]], rows: int) -> list[list[int]]:
    """Positions of ``sequences`` in batches of similar length."""
    by_length = sorted(range(len(sequences)), key=lambda place: (len(sequences[place]), place))
    return [by_length[start : start + rows] for start in range(0, len(by_length), rows)]


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} has no *.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _device(settings: EngineSettings) -> torch.device:
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


def _dtype(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
