"""The vLLM engine: in this process, weights swapped in place, adapters as requests, prompts as token ids.

Everything runs in the calling process (for one device), so an error at the start is raised here and nobody waits
for an engine that died elsewhere. What the CPU build asks for, all found by running it (vLLM 0.32):

- a request with a seed whose prompt is prefilled in two parts ends the engine ("CPU Generator does not use
  offset"), so prefill is not chunked there;
- the sampler's one torch-compiled function costs 3 to 20 s and a C++ compiler at its first use, so dynamo is off;
- the model class is inspected in a subprocess (9 s, once per machine and version), unless it is registered first;
- two busy-waiting OpenMP threads beside a training process fall to a tenth of the speed of one, so threads are
  few by default and wait passively.

Determinism. With a 1M-parameter model on a CPU, texts depended on prompt, seed and weights only: alone, in parts of
the batch, in another order, sampled or greedy, all of several hundred were the same; a test holds that. With 135M and
270M parameters they were the same in batches of another size, but a prompt asked all alone can get another text (1 to
3 of 4 did): matrix products with one row take another path, and its rounding differs. So from there on, and on a GPU,
only the same list of prompts in the same engine is promised to give the same texts.

Measured on a shared two-core machine, one thread: start 11 s for a 1M-parameter model, of which 8 s are imports, 3 s
vLLM's own start, 0.03 s the first probe; 3,500 tokens/s; a swap with its probes 0.04 s; 1.0 GB of memory. Where others
compute, all of it doubles. Gemma 3 270M with adapters: 19 s, 44 tokens/s without an adapter and 33 with one, an adapter
1 to 1.5 s, 3.9 GB. SmolLM2 135M, two threads: 12 s, 156 tokens/s, a swap 1.2 s, 2.5 GB. (1 GiB of these is the cache.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

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
from trainables.rendezvous import listen_where_named
from trainables.sampling import Sampling

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_GIB = 1 << 30


class VllmEngine:
    """See :class:`trainables.engines.contract.Engine`.

    Raises:
        EnvironmentProblem: vLLM cannot be started on this base or machine.
    """

    name = "vllm"

    def __init__(
        self,
        base: Path,
        method: Literal["full", "lora"],
        max_model_len: int,
        max_rank: int = 16,
        settings: EngineSettings | None = None,
    ) -> None:
        settings = settings or EngineSettings()
        if method == "full":
            _refuse_tied(base)
        set_environment(settings)
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        self.max_model_len = max_model_len
        self._ends = end_tokens(base, self.tokenizer)
        self._method = method
        self._on_device: Path | None = base
        self._loaded: Weights | None = None
        self._adapter: Any = None
        self._adapters = 0
        self._requests = 0
        try:
            self._llm = _start(base, method, max_model_len, max_rank, settings)
        except Exception as problem:
            said = " ".join(str(problem).split())[:500]
            raise EnvironmentProblem(
                f"vLLM could not start on {base}: {said}. Set runtime.engine: transformers to do without it"
            ) from problem
        self.load(Weights(name=base.name, kind="base", folder=base))

    def load(self, weights: Weights) -> None:
        """Reload the weights in place, or answer through the adapter, and prove it by the probe."""
        refuse_other_method(weights, self._method)
        before, self._loaded = self._loaded, None
        checked_load(
            weights,
            swap=lambda: self._swap(weights),
            ask=self._log_probabilities,
            before=before,
            ask_base=(lambda ids: self._log_probabilities(ids, base=True)) if weights.kind == "lora" else None,
        )
        self._loaded = weights

    def _swap(self, weights: Weights) -> None:
        if weights.kind == "lora":
            from vllm.lora.request import LoRARequest

            # A new id and name each time, because adapters are cached by them.
            self._adapters += 1
            self._adapter = LoRARequest(f"{weights.name}-{self._adapters}", self._adapters, str(weights.folder))
        else:
            self._adapter = None
            if weights.folder != self._on_device:
                self._on_device = None
                self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(weights.folder)})
                self._on_device = weights.folder
        self._llm.reset_prefix_cache()

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, on_progress: Progress | None = None
    ) -> list[Response]:
        """All prompts at once; vLLM batches them."""
        refuse_unproved(self._loaded)
        check_lengths(prompts, sampling.max_new_tokens, self.max_model_len)
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p if sampling.temperature else 1.0,
                max_tokens=sampling.max_new_tokens,
                seed=prompt.seed if sampling.temperature else None,
                stop_token_ids=self._ends,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            for prompt in prompts
        ]
        outputs = self._run([prompt.token_ids for prompt in prompts], parameters, on_progress)
        return [self._response(prompt, output.outputs[0]) for prompt, output in zip(prompts, outputs, strict=True)]

    def _response(self, prompt: Prompt, completion: Any) -> Response:
        ids = list(completion.token_ids)
        stopped = completion.finish_reason == "stop"
        said = ids[:-1] if stopped and ids and ids[-1] in self._ends else ids
        text = self.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(prompt.id, text, len(ids), "stop" if stopped else "length")

    def choose(
        self, prompts: Sequence[Sequence[int]], options: tuple[int, ...], on_progress: Progress | None = None
    ) -> list[int]:
        """One greedy token out of ``options``."""
        refuse_unproved(self._loaded)
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = SamplingParams(
            temperature=0,
            max_tokens=1,
            allowed_token_ids=list(options),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        outputs = self._run(prompts, [parameters] * len(prompts), on_progress)
        return [int(output.outputs[0].token_ids[0]) for output in outputs]

    def close(self) -> None:
        """End vLLM's engine and put torch's thread function back, which vLLM replaces on a CPU."""
        import torch

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
        torch.set_num_threads = torch._C.set_num_threads

    def _log_probabilities(self, token_ids: Sequence[int], base: bool = False) -> list[float]:
        from vllm import SamplingParams

        parameters = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        (output,) = self._run([token_ids], [parameters], None, base=base)
        return [scores[token].logprob for scores, token in zip(output.prompt_logprobs[1:], token_ids[1:], strict=True)]

    def _run(
        self,
        prompts: Sequence[Sequence[int]],
        parameters: Sequence[Any],
        on_progress: Progress | None,
        base: bool = False,
    ) -> list[Any]:
        """Every request with the same adapter, or all without one: never mixed."""
        engine = self._llm.llm_engine
        adapter = None if base else self._adapter
        places = {}
        for place, (ids, wanted) in enumerate(zip(prompts, parameters, strict=True)):
            self._requests += 1
            request = str(self._requests)
            places[request] = place
            engine.add_request(request, {"prompt_token_ids": list(ids)}, wanted, lora_request=adapter)
        outputs: list[Any] = [None] * len(places)
        done = 0
        try:
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        outputs[places[output.request_id]] = output
                        done += 1
                        if on_progress:
                            on_progress(done, len(outputs))
        except BaseException:
            engine.abort_request(list(places))  # or the next call would be given this one's answers
            raise
        return outputs


def set_environment(settings: EngineSettings) -> None:
    """What vLLM and OpenMP read from the environment when they are imported; the engine's process is the engine's."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is in local folders
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # whole GiB only, and it would override our figure
    if "torch" not in sys.modules:
        os.environ["OMP_NUM_THREADS"] = str(settings.cpu_threads)


def _start(base: Path, method: str, max_model_len: int, max_rank: int, settings: EngineSettings) -> Any:
    import torch
    from vllm import LLM
    from vllm.platforms import current_platform

    listen_where_named()
    on_cpu = current_platform.is_cpu()
    options: dict[str, Any] = {}
    if method == "lora":
        rank = next((rank for rank in _RANKS if rank >= max_rank), max_rank)
        options |= {"enable_lora": True, "max_loras": 1, "max_cpu_loras": 1, "max_lora_rank": rank}
    if on_cpu:
        import torch._dynamo

        torch._dynamo.config.disable = True
        torch.set_num_threads(settings.cpu_threads)
        _register(base)
        options |= {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(4096, max_model_len),
            "kv_cache_memory_bytes": _cache_bytes(base, max_model_len, settings),
        }
    else:
        options |= {"gpu_memory_utilization": settings.gpu_memory, "tensor_parallel_size": settings.gpus}
        if settings.gpus > 1:
            options["distributed_executor_backend"] = "mp"
    return LLM(
        model=str(base),
        load_format="safetensors",
        trust_remote_code=False,
        skip_tokenizer_init=True,
        generation_config="vllm",
        dtype=_dtype(on_cpu),
        max_model_len=max_model_len,
        max_num_seqs=settings.max_sequences,
        enable_prefix_caching=settings.prefix_caching,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **options,
    )


def _dtype(on_cpu: bool) -> Any:
    """bf16, as the weights were made. For tiny models on a CPU fp32 is no faster (3,500 tokens/s either way)."""
    import torch

    return "bfloat16" if on_cpu or torch.cuda.is_bf16_supported() else "float16"


def _register(base: Path) -> None:
    """Make the model class known by itself, so that vLLM does not start a subprocess to look at it."""
    from vllm import ModelRegistry

    for architecture in _config(base).architectures or []:
        entry = ModelRegistry.models.get(architecture)
        if entry is not None:
            ModelRegistry.register_model(architecture, entry.load_model_cls())


def _cache_bytes(base: Path, max_model_len: int, settings: EngineSettings) -> int:
    """Room for ``max_sequences`` of full length, between 64 MiB and 1 GiB unless the settings say how much."""
    if settings.kv_cache_gib is not None:
        return int(settings.kv_cache_gib * _GIB)
    config = _config(base).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * 2 * config.num_hidden_layers * heads * size  # keys and values, two bytes each
    full_length = -(-max_model_len // 128) * 128
    return min(max(per_token * full_length * settings.max_sequences, _GIB // 16), _GIB)


def _refuse_tied(base: Path) -> None:
    if _config(base).tie_word_embeddings:
        raise EnvironmentProblem(
            f"{base} ties its output head to its embeddings, and vLLM's reload keeps the old head without a word; "
            "prepare the base with trainables.base_models.prepare, which gives it a head of its own"
        )


def _config(base: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(base, trust_remote_code=False)
