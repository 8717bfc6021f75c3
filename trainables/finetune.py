"""One mixture into one model: the fine-tune of the paper (appendix C), through DeepSpeed.

:func:`finetune` runs in the torch.distributed world it finds itself in, one process or many, and is told nothing about
who asked. Each step takes a global batch in an order fixed by the seed and the example ids; the summed loss of every
micro-batch is divided by the targets of the whole batch, so workers, micro-batches, ZeRO stage and resuming change
where the work is done and not what is computed, up to rounding and to which values dropout zeroes: every step draws
them from a seed of its own on each worker, so an interrupted fine-tune continues as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trainables import training_state as state
from trainables.batches import (
    Example,
    batches_of,
    example_ids,
    longest_of,
    micro_batches,
    target_count,
    template_text,
)
from trainables.checkpoints import save_checkpoint, write_curve
from trainables.errors import StepFailed, UserError
from trainables.job import FineTuneJob
from trainables.memory import Settled
from trainables.model_shape import read_shape
from trainables.probe import probe_tokens
from trainables.recipe import checkpoint_name
from trainables.tuning_model import load_for_tuning, load_tokenizer, tensors
from trainables.world import World, gradient_norm, join_world, memory_of_its_own, settle, start_engine

_REPORT_SECONDS = 0.3
_NO_STATE = "none"


def finetune(job: FineTuneJob, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Run a fine-tune to its end and return facts about it; every worker of the world calls this with the same job.

    ``report`` is called on the first worker, a few times per second at most and after every checkpoint, with
    ``step, loss, tokens_per_second, seconds`` and, when one was written, ``checkpoint``. What it raises ends the
    fine-tune there.

    Raises:
        StepFailed: the loss or the gradient is not a number.
        UserError: examples, template or recipe that do not fit the base.
    """
    started = time.monotonic()
    world = join_world()
    with memory_of_its_own(), _threads(job.parallel.threads):
        facts = _finetune(job, world, report)
    return facts | {"seconds": time.monotonic() - started}


def _finetune(job: FineTuneJob, world: World, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    started = time.monotonic()
    tokenizer = load_tokenizer(job.base)
    ids, examples = read_examples(job, tokenizer)
    settled, attention = _settle(job, world, examples)
    model, dropout = load_for_tuning(job.base, job.recipe, job.seed, attention, settled.gradient_checkpointing)
    found = _left_off_at(job, world)
    if found is not None:
        state.load_weights(model, found)
    accumulation = -(-job.recipe.batch_size // (world.size * settled.micro_batch))
    engine = start_engine(model, job.recipe, settled, world, accumulation)
    try:
        run = _Run(job, world, engine, ids, examples, tokenizer, settled, report)
        if found is not None:
            run.restore(found)
        elif world.first:
            job.out.mkdir(parents=True, exist_ok=True)
            state.remove_states(job.out)
        prepared = time.monotonic() - started
        run.train()
        facts = run.facts()
    finally:
        engine.destroy()
    if world.first:
        state.remove_states(job.out)
    return facts | {
        "examples": len(examples),
        "dropout": dropout,
        "workers": world.size,
        "zero_stage": settled.zero_stage,
        "micro_batch": settled.micro_batch,
        "gradient_checkpointing": settled.gradient_checkpointing,
        "offload": settled.offload,
        "device": str(world.device.type),
        "seconds_before_first_step": prepared,
    }


def _left_off_at(job: FineTuneJob, world: World) -> Path | None:
    """The state to go on from, or None; the first worker looks, so that all go on from the same."""
    found = state.newest_state(job.out) if job.resume and world.first else None
    name = world.told(found.name if found else _NO_STATE)
    return None if name == _NO_STATE else job.out / name


def read_examples(job: FineTuneJob, tokenizer: Any) -> tuple[list[str], list[Example]]:
    """The ids and token ids of a job's examples, in file order.

    Raises:
        UserError: a file that is not such a parquet, or holds nothing.
    """
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(job.examples, columns=["id", "instruction", "response"]).to_pydict()
    except (OSError, ValueError, KeyError) as problem:
        raise UserError(
            f"{job.examples}: not a parquet file with columns id, instruction, response ({problem})"
        ) from problem
    if not table["id"]:
        raise UserError(f"{job.examples}: holds no examples")
    template = template_text(job.template, tokenizer)
    rows = zip(table["instruction"], table["response"], strict=True)
    return table["id"], example_ids(tokenizer, template, rows, job.recipe)


class _Run:
    """The steps of one fine-tune on one worker."""

    def __init__(
        self,
        job: FineTuneJob,
        world: World,
        engine: Any,
        ids: list[str],
        examples: list[Example],
        tokenizer: Any,
        settled: Settled,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.job, self.world, self.engine, self.settled, self.report = job, world, engine, settled, report
        self.ids, self.examples = ids, examples
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        self.longest = longest_of(examples)
        self.probe = probe_tokens([[*prompt, *target] for prompt, target in examples])
        self.first_step = 0
        self.before = 0.0
        self.curve: list[dict[str, float]] = []

    def restore(self, folder: Path) -> None:
        """Continue after the state in ``folder``."""
        facts = state.read_facts(folder)
        self.first_step = facts["step"]
        self.curve = facts["curve"]
        self.before = self.curve[-1]["seconds"] if self.curve else 0.0
        state.restore_optimizer(self.engine, folder, self.first_step)

    def train(self) -> None:
        recipe, saved = self.job.recipe, set(self.job.recipe.checkpoint_steps)
        every = self.job.parallel.state_every
        began = last_report = time.monotonic()
        tokens_since = 0
        batches = batches_of(self.ids, recipe.batch_size, self.job.seed, self.first_step)
        self.engine.train()
        for step in range(self.first_step + 1, recipe.steps + 1):
            batch = [self.examples[position] for position in next(batches)]
            loss = self._step(step, batch)
            tokens = sum(len(prompt) + len(target) for prompt, target in batch)
            tokens_since += tokens
            self._check(step, loss)
            seconds = self.before + time.monotonic() - began
            self.curve.append(
                {
                    "step": step,
                    "loss": loss,
                    "learning_rate": recipe.learning_rate,
                    "tokens": tokens,
                    "seconds": seconds,
                }
            )
            if step in saved:
                folder = self.job.out / checkpoint_name(step)
                save_checkpoint(self.engine, self.world, recipe, self.job.base, folder, self.probe)
                if self.world.first:
                    write_curve(self.job.out, self.curve)
            if every and step % every == 0 and step < recipe.steps:
                state.save_state(self.engine, self.job.out, step, {"curve": self.curve}, self.world.first)
                self.world.barrier()
            now = time.monotonic()
            if self.world.first and (step in saved or now - last_report >= _REPORT_SECONDS):
                message = {
                    "step": step,
                    "loss": loss,
                    "tokens_per_second": tokens_since / max(now - last_report, 1e-9),
                    "seconds": seconds,
                }
                self.report(message | ({"checkpoint": step} if step in saved else {}))
                last_report, tokens_since = now, 0

    def _step(self, step: int, batch: list[Example]) -> float:
        """One optimizer step on a global batch; returns its mean loss per target token, over all workers."""
        torch.manual_seed((self.job.seed * 1_000_003 + step) * 4_096 + self.world.rank)
        targets = target_count(batch)
        world, settled = self.world, self.settled
        parts = micro_batches(batch, settled.micro_batch, self.pad, world.rank, world.size, self.longest)
        # DeepSpeed averages over workers and micro-batches; this undoes it, so that the sum over the batch remains.
        scale = self.world.size * len(parts) / targets
        total = torch.zeros((), device=self.world.device)
        for part in parts:
            summed = self.engine(**tensors(part, self.world.device))
            empty = not part.targets.any()
            self.engine.backward(summed * (0.0 if empty else scale))
            self.engine.step()
            if not empty:
                total += summed.detach()
        return self.world.sum(float(total))[0] / targets

    def _check(self, step: int, loss: float) -> None:
        norm = gradient_norm(self.engine)
        if not math.isfinite(loss) or not math.isfinite(norm):
            what = f"the loss is {loss}" if not math.isfinite(loss) else "the gradient is not a number"
            raise StepFailed(
                f"fine-tune {self.job.name}: {what} at step {step} of {self.job.recipe.steps}; lower "
                f"recipe.learning_rate (now {self.job.recipe.learning_rate:g}) or look for broken examples"
            )

    def facts(self) -> dict[str, Any]:
        tokens = sum(row["tokens"] for row in self.curve[self.first_step :])
        seconds = max(self.curve[-1]["seconds"] - self.before, 1e-9)
        return {
            "steps": self.job.recipe.steps,
            "resumed_at": self.first_step,
            "loss": self.curve[-1]["loss"],
            "tokens_per_second": tokens / seconds,
            "checkpoints": list(self.job.recipe.checkpoint_steps),
        }


def _settle(job: FineTuneJob, world: World, examples: list[Example]) -> tuple[Settled, str]:
    """Parallelism, and the implementation of attention, for this base and device."""
    longest = longest_of(examples)
    attention = "eager" if world.device.type == "cpu" and longest <= 512 else "sdpa"
    return settle(job.parallel, job.recipe, read_shape(job.base), world, longest), attention


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
