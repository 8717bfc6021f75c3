"""The resumable state of a fine-tune: fp32 weights and AdamW moments, in safetensors, for any ZeRO stage.

DeepSpeed's own checkpoints are pickles and fit one stage and world size. Here each trained parameter is gathered
whole and written under its name, so a fine-tune may continue under another stage, world size or library version.
A state counts when its ``state.json`` is there, written last; the one before is removed after that. It names the size
of every file that is gone on from, checkpoints written by then included: a machine that lost its power may have kept
the last file and not the pages of an earlier one.

Random numbers need no saving: every step draws from a seed of its own, and so does the data order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")
MASTER = "master"
_FILE_BYTES = 2 * 1024**3


def newest_state(out: Path) -> Path | None:
    """The newest state in an attempt folder that is complete and whole, or None."""
    return next((folder for folder in sorted(out.glob("state-*"), reverse=True) if _whole(folder)), None)


def _whole(folder: Path) -> bool:
    try:
        sizes = read_facts(folder).get("files", {})
        return all((folder.parent / name).stat().st_size == size for name, size in sizes.items())
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _sizes(out: Path, state: Path) -> dict[str, int]:
    """Bytes of each file that a state is gone on from, by its name in the attempt's folder."""
    below = (path for folder in (state, *out.glob("checkpoint-*")) for path in folder.rglob("*"))
    return {path.relative_to(out).as_posix(): path.stat().st_size for path in below if path.is_file()}


def remove_states(out: Path, keep: Path | None = None) -> None:
    """Remove all states but ``keep``, complete or not."""
    for folder in out.glob("state-*"):
        if folder != keep:
            shutil.rmtree(folder)


def save_state(engine: Any, out: Path, step: int, facts: dict[str, Any], writes: bool) -> None:
    """Write ``state-<step>`` and then remove older ones. Every worker calls this; the one that ``writes`` writes."""
    from safetensors.torch import save_file

    folder = out / f"state-{step:06d}"
    if writes:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    pending: dict[str, Tensor] = {}
    number = size = 0
    for name, value in _gathered(engine):
        if not writes:
            continue
        pending[name] = value.to("cpu", torch.float32, copy=True).contiguous()
        size += value.numel() * 4
        if size >= _FILE_BYTES:
            save_file(pending, folder / f"part-{number:04d}.safetensors")
            pending, number, size = {}, number + 1, 0
    if writes:
        if pending:
            save_file(pending, folder / f"part-{number:04d}.safetensors")
        facts = {"step": step, "files": _sizes(out, folder), **facts}
        partial = folder / "state.json.partial"
        partial.write_text(json.dumps(facts) + "\n", encoding="utf-8")
        partial.rename(folder / "state.json")
        remove_states(out, keep=folder)


def read_facts(folder: Path) -> dict[str, Any]:
    """What ``state.json`` says: the step, the sizes of files, and what was given to :func:`save_state`."""
    content: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return content


def load_weights(model: torch.nn.Module, folder: Path) -> None:
    """Put the saved weights, rounded to the model's precision, into a model that is not yet in DeepSpeed's hands."""
    values = _reader(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(values(f"{MASTER}.{name}"))


def restore_optimizer(engine: Any, folder: Path, step: int) -> None:
    """Put the saved fp32 weights and moments into a fresh engine, as they were after ``step`` steps."""
    values = _reader(folder)
    inner = _torch_optimizer(engine)
    # ZeRO 3 shows torch's optimizer one of its flat groups at a time, only while stepping.
    flats = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)
    for flat in flats or [flat for group in inner.param_groups for flat in group["params"]]:
        inner.state[flat] = {
            "step": torch.tensor(float(step), device=flat.device),
            **{moment: torch.zeros_like(flat) for moment in MOMENTS},
        }
    link = getattr(engine.optimizer, "_lazy_init_hp_params_optimizer_state", None)
    if link is not None:
        link()
    with torch.no_grad():
        for name, parameter in _trained(engine):
            for part in (MASTER, *MOMENTS):
                _set(engine, parameter, part, values(f"{part}.{name}"))
    engine.global_steps = step


def _gathered(engine: Any) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in _trained(engine):
        for part in (MASTER, *MOMENTS):
            yield f"{part}.{name}", _get(engine, parameter, part)


def _trained(engine: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in engine.module.named_parameters() if parameter.requires_grad]


def _torch_optimizer(engine: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside DeepSpeed's (ZeRO 0 in fp32 has no other)."""
    inner: torch.optim.Optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    return inner


def _whole_copy(engine: Any, parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """Without ZeRO: the fp32 tensor that AdamW updates for this parameter, itself where it is fp32 already."""
    wrapper = engine.optimizer
    for low, high in zip(getattr(wrapper, "fp16_groups", []), getattr(wrapper, "fp32_groups", []), strict=True):
        for candidate, master in zip(low, high, strict=True):
            if candidate is parameter:
                return master  # type: ignore[no-any-return]
    return parameter


def _get(engine: Any, parameter: torch.nn.Parameter, part: str) -> Tensor:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if engine.zero_optimization_stage() == 0:
        copy = _whole_copy(engine, parameter)
        value: Tensor = copy.detach() if part == MASTER else _torch_optimizer(engine).state[copy][part]
        return value
    value = safe_get_full_fp32_param(parameter) if part == MASTER else safe_get_full_optimizer_state(parameter, part)
    return value


def _set(engine: Any, parameter: torch.nn.Parameter, part: str, value: Tensor) -> None:
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    if engine.zero_optimization_stage() == 0:
        copy = _whole_copy(engine, parameter)
        target = copy if part == MASTER else _torch_optimizer(engine).state[copy][part]
        target.copy_(value)
        return
    value = value.to(engine.device)
    if part == MASTER:
        safe_set_full_fp32_param(parameter, value)
    else:
        safe_set_full_optimizer_state(parameter, value, part)


def _reader(folder: Path) -> Any:
    """A function from a tensor's name to the tensor, over all files of a state."""
    from safetensors import safe_open

    files = [safe_open(path, "pt") for path in sorted(folder.glob("part-*.safetensors"))]
    where = {name: file for file in files for name in file.keys()}  # noqa: SIM118  (not a mapping)
    return lambda name: where[name].get_tensor(name)
