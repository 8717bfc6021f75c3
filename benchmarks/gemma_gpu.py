"""The trainables alone, without Ray, on one GPU: Gemma 3 270M in bf16, full and LoRA, with the batch of `paper.yaml`.

The model comes as a package. Examples are pairs of the embedded corpus in English and Finnish, several joined into one
so that they are as long as real ones. Each method is fine-tuned, answers held-out prompts on an engine, and is judged
against the model that was not tuned. Prints, as JSON: loss, tokens per second after the first step, peak memory, and
what `trainables/memory.py` said it would be. It runs on a CPU too (`--device cpu --steps 2 --batch 4 ...`), to try it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.corpus.base import Example
from orchestrator.corpus.cldr import examples
from orchestrator.scores.scoring import score
from orchestrator.sweep import load
from trainables.base_models import parse_base, prepare
from trainables.batches import instruction_ids, template_source, template_text
from trainables.finetune import finetune, read_examples
from trainables.generate import EngineSettings, Prompt, Weights, make_engine
from trainables.job import FineTuneJob
from trainables.judges import LocalJudge, ReferenceJudge, calls_for, open_judge
from trainables.memory import Settled, memory_need
from trainables.model_shape import read_shape
from trainables.recipe import Recipe, checkpoint_name
from trainables.sampling import response_seed
from trainables.tuning_model import load_tokenizer

LANGUAGES = ("en", "fi")
EVALUATED = "fi"


def make_base(name: str, folder: Path) -> None:
    prepare(parse_base(name), folder, None, lambda fraction, sentence: print(sentence, flush=True))


def joined(rows: list[Example], pairs: int, prefix: str) -> list[Example]:
    """Every ``pairs`` examples as one."""
    groups = [rows[start : start + pairs] for start in range(0, len(rows) - pairs + 1, pairs)]
    return [
        Example(
            f"{prefix}{number:04d}",
            "\n".join(row.instruction for row in group),
            "\n".join(row.response or "" for row in group),
        )
        for number, group in enumerate(groups)
    ]


def write_examples(path: Path, pairs: int) -> None:
    """Half of the training examples in each language, every one in one language only."""
    rows = []
    for place, language in enumerate(LANGUAGES):
        made = joined(examples(language)[0], pairs, "train-")
        rows += [{"language": language, **row._asdict()} for row in made[place :: len(LANGUAGES)]]
    rows.sort(key=lambda row: row["id"])
    pq.write_table(pa.Table.from_pylist(rows), path)


def peak_bytes(device: str) -> int:
    """The most memory so far: of the GPU's since the last reset, or of this process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tune(base: Path, recipe: Recipe, folder: Path, device: str) -> dict[str, Any]:
    """One fine-tune; what it took, and what it was expected to take."""
    job = FineTuneJob(
        name=recipe.method,
        base=base,
        examples=folder / "examples.parquet",
        recipe=recipe,
        seed=0,
        template=template_source(recipe.template),
        out=folder / recipe.method,
    )
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    facts = finetune(job, lambda report: print(json.dumps(report), flush=True))
    peak = peak_bytes(device)
    curve = pq.read_table(job.out / "curve.parquet").to_pydict()
    lengths = [len(prompt) + len(target) for prompt, target in read_examples(job, load_tokenizer(base))[1]]
    names = ("zero_stage", "micro_batch", "gradient_checkpointing", "offload")
    settled = Settled(**{name: facts[name] for name in names})
    seconds = curve["seconds"][-1] - curve["seconds"][0]
    return {
        "method": recipe.method,
        "device": facts["device"],
        "batch": recipe.batch_size,
        "steps": recipe.steps,
        "layout": f"{settled}, {settled.micro_batch} examples at a time",
        "tokens_per_example": round(sum(lengths) / len(lengths)),
        "longest": max(lengths),
        "first_loss": round(curve["loss"][0], 3),
        "last_loss": round(curve["loss"][-1], 3),
        "tokens_per_second": round(sum(curve["tokens"][1:]) / seconds) if seconds else None,
        "peak_gb": round(peak / 1e9, 2),
        "expected_gb": round(memory_need(read_shape(base), recipe, settled, 1, max(lengths)).gpu / 1e9, 2),
    }


def judged(base: Path, recipe: Recipe, folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """The tuned model against the base on held-out prompts: wins, ties and losses over instructions."""
    settings = EngineSettings(device=chosen.device, gpu_memory=0.5)
    sampling = load("paper").sweep.sampling.model_copy(update={"max_new_tokens": chosen.new_tokens})
    room = recipe.max_input_tokens + chosen.new_tokens
    engine, why = make_engine(chosen.engine, base, recipe.method, room, recipe.rank, settings)
    asked = joined(examples(EVALUATED)[1], 1, "eval-")[: chosen.prompts]
    template = template_text(template_source(recipe.template), engine.tokenizer)
    prompts = [
        Prompt(
            row.id,
            instruction_ids(engine.tokenizer, template, row.instruction, recipe.max_input_tokens),
            response_seed(0, recipe.method, EVALUATED, row.id),
        )
        for row in asked
    ]
    texts = []
    checkpoint = folder / recipe.method / checkpoint_name(recipe.steps)
    for weights in (None, Weights(name=recipe.method, kind=recipe.method, folder=checkpoint)):
        if weights is not None:
            engine.load(weights)
        texts.append([response.text for response in engine.generate(prompts, sampling)])
    engine.close()
    if chosen.judge == "reference":
        judge = open_judge(ReferenceJudge())
    else:
        model = folder / "judge"
        if not model.is_dir():
            make_base(chosen.judge, model)
        judge = open_judge(LocalJudge(model=chosen.judge), model, chosen.engine, settings)
    calls = [
        call
        for row, first, second in zip(asked, *texts, strict=True)
        for call in calls_for(row.id, row.instruction, first, second, row.response)
    ]
    found = score([(one.instruction_id, one.order, one.choice) for one in judge.judge(calls)])
    judge.close()
    return {"engine": why, "judge": chosen.judge, "against": "the base", **found.as_dict(), "sample": texts[1][0][:200]}


def main() -> None:
    recipe = load("paper").sweep.recipe
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--methods", nargs="+", choices=("full", "lora"), default=["full", "lora"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=recipe.batch_size)
    parser.add_argument("--pairs", type=int, default=16, help="pairs of the corpus joined into one example")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--engine", choices=("auto", "vllm", "transformers"), default="auto")
    parser.add_argument("--judge", default="reference", help="reference, or a base such as package:smollm2")
    chosen = parser.parse_args()
    if chosen.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # A process for each: what one leaves behind (memory, vLLM's process groups) is not the next one's.
    apart = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    with tempfile.TemporaryDirectory(prefix="pinch-benchmark-") as name, apart:
        folder = Path(name)
        apart.submit(make_base, "package:gemma3-270m", folder / "base").result()
        write_examples(folder / "examples.parquet", chosen.pairs)
        for method in chosen.methods:
            changes = {"method": method, "steps": chosen.steps, "batch_size": chosen.batch}
            changes |= {"learning_rate": chosen.learning_rate, "checkpoint_every": chosen.steps}
            tried = recipe.model_copy(update=changes)
            measures = (
                apart.submit(tune, folder / "base", tried, folder, chosen.device),
                apart.submit(judged, folder / "base", tried, folder, chosen),
            )
            for measure in measures:
                print(json.dumps(measure.result(), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
