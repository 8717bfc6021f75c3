"""A model of one's own that translates: sequence-to-sequence (NLLB, M2M100, MADLAD, Marian), or a causal one.

A sequence-to-sequence model is told the languages the way its tokenizer knows them, by a language token, or else by the
prompt (``<2{code}> {text}`` for MADLAD). It reads lines, because such models lose line breaks. A causal model answers
on the engine that also draws responses, greedily, through its chat template where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from trainables import weight_files
from trainables.errors import UserError
from trainables.generate import EngineSettings, Prompt, Sampling, make_engine
from trainables.translators.engine import SOURCE, Answer, Keep, Target
from trainables.translators.openai import filled
from trainables.translators.specs import LocalTranslator

NEW_TOKENS = 1024
"""How much a causal model may write for one string."""
CONTEXT = 3072
"""Tokens of prompt and answer together that a causal model is opened for, where it can take so many."""
NLLB = {
    "ar": "arb_Arab",
    "cs": "ces_Latn",
    "en": "eng_Latn",
    "es": "spa_Latn",
    "et": "est_Latn",
    "fi": "fin_Latn",
    "he": "heb_Hebr",
    "hi": "hin_Deva",
    "hr": "hrv_Latn",
    "it": "ita_Latn",
    "pl": "pol_Latn",
    "ru": "rus_Cyrl",
    "sk": "slk_Latn",
    "sl": "slv_Latn",
    "sr": "srp_Cyrl",
    "sw": "swh_Latn",
    "zh": "zho_Hans",
}
"""FLORES-200 codes, by which NLLB knows languages."""


class Seq2SeqEngine:
    """See :class:`trainables.translators.engine.Engine`; greedy, or as the model's own generation settings have it."""

    def __init__(self, spec: LocalTranslator, folder: Path, threads: int | None = None) -> None:
        """Raises:
        UserError: the folder does not hold such a model.
        """
        import torch
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        if threads:
            torch.set_num_threads(threads)
        if refused := weight_files.refusal(folder):
            raise UserError(f"corpus.translator.model: {refused}")
        self._spec, self._prompt = spec, spec.prompt_text
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = torch.bfloat16 if self._device == "cuda" else torch.float32
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model: Any = AutoModelForSeq2SeqLM.from_pretrained(
                folder, dtype=kind, trust_remote_code=False, use_safetensors=True
            )
        except (ValueError, KeyError, OSError) as problem:
            raise UserError(
                f"corpus.translator.model: {folder} cannot be loaded as a sequence-to-sequence model: {problem}"
            ) from problem
        self._model = model.to(self._device).eval()

    def translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        """Longest first, so that what does not fit into memory shows at once."""
        options = self._options(target)
        order = sorted(strings, key=len, reverse=True)
        for start in range(0, len(order), self._spec.batch_size):
            batch = order[start : start + self._spec.batch_size]
            keep({string: Answer(text, len(string)) for string, text in self._batch(batch, target, options)})

    def close(self) -> None:
        """Let go of the model."""
        self._model = None

    def _batch(self, batch: list[str], target: Target, options: dict[str, Any]) -> list[tuple[str, str]]:
        """What was cut off at the limit is no answer."""
        import torch

        texts = [filled(self._prompt, string, target) for string in batch]
        read = self._tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        most = 32 + 2 * int(read["input_ids"].shape[1])
        with torch.inference_mode():
            made = self._model.generate(**read.to(self._device), max_new_tokens=most, do_sample=False, **options)
        end = self._model.generation_config.eos_token_id
        ends = set(end if isinstance(end, list) else [end])
        ended = [bool(ends & set(row[1:])) for row in made.tolist()]
        said = self._tokenizer.batch_decode(made, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [(string, text if whole else "") for string, text, whole in zip(batch, said, ended, strict=True)]

    def _options(self, target: Target) -> dict[str, Any]:
        """How the tokenizer is told the languages: NLLB's tokens, M2M100's, or not at all."""
        known = self._tokenizer.get_vocab()
        for spelled in (lambda code: NLLB[code], lambda code: f"__{code}__"):
            if spelled(SOURCE) in known and spelled(target.code) in known:
                self._tokenizer.src_lang = spelled(SOURCE).strip("_")
                return {"forced_bos_token_id": known[spelled(target.code)]}
        return {}


class CausalEngine:
    """See :class:`trainables.translators.engine.Engine`. It opens, and owns, an engine."""

    def __init__(
        self,
        spec: LocalTranslator,
        folder: Path,
        engine: Literal["auto", "vllm", "transformers"] = "auto",
        threads: int | None = None,
    ) -> None:
        """``folder``: of the model, prepared by ``base_models.prepare``."""
        from transformers import AutoConfig

        from trainables.batches import CHAT, template_text

        self._prompt = spec.prompt_text
        context = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config().max_position_embeddings
        length = min(context, CONTEXT)
        self._new = min(NEW_TOKENS, length // 3)
        settings = EngineSettings(max_sequences=spec.batch_size, prefix_caching=True, threads=threads)
        self._engine, _ = make_engine(engine, folder, "full", length, settings=settings)
        chat = bool(getattr(self._engine.tokenizer, "chat_template", None))
        self._template = template_text(CHAT, self._engine.tokenizer) if chat else None

    def translate(self, strings: Sequence[str], target: Target, keep: Keep) -> None:
        """A string whose prompt leaves no room for an answer, or whose answer was cut, has none."""
        from trainables.batches import prompt_ids

        fitting: list[tuple[str, Prompt]] = []
        for string in strings:
            text = filled(self._prompt, string, target)
            ids = prompt_ids(self._engine.tokenizer, self._template.prompt(text) if self._template else text)
            if len(ids) + self._new > self._engine.max_model_len:
                keep({string: Answer("", 0)})
            else:
                fitting.append((string, Prompt(str(len(fitting)), ids)))
        greedy = Sampling(temperature=0, top_p=1, max_new_tokens=self._new)
        said = self._engine.generate([prompt for _, prompt in fitting], greedy) if fitting else []
        keep(
            {
                string: Answer(response.text if response.finish == "stop" else "", len(string))
                for (string, _), response in zip(fitting, said, strict=True)
            }
        )

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()
