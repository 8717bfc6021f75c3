"""Base models: from the name in a sweep file to a folder that every engine loads alike.

A base is named, not described: ``tiny``, a local folder, a Hugging Face name, a GGUF file, a packaged model.
:func:`parse_base` says what a name means and what determines its weights, without loading anything and, once a
commit is known, without a network. :func:`prepare` writes the folder. All prepared folders look the same:
safetensors in bf16, an output head of its own (vLLM's reload keeps an old *tied* head without a word), a tokenizer
with EOS and padding, and a probe of what the weights answer.

No code from a model repository is ever run, and weights are read from safetensors only.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from trainables import gguf_base, hub_base, tiny_base, weight_files
from trainables.batches import prompt_ids
from trainables.errors import EnvironmentProblem, UserError
from trainables.probe import log_probabilities, probe_tokens, write_probe

RESULT_VERSION = 1
"""Raised when preparing the same source gives other weights or another tokenizer."""

PROBE_TEXT = (
    "Paris is the capital of France. Helsinki on Suomen pääkaupunki. Москва — столица России. "
    "القاهرة عاصمة مصر. 北京是中国的首都。 Roma è la capitale d'Italia."
)

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_COUNTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
_FORMS = "tiny, a folder, a Hugging Face name[@revision], gguf:PATH, package:gemma3-270m, package:smollm2"


@dataclass(frozen=True)
class BaseSource:
    """What a base name means. ``where`` is the path, the hub name or the package; empty for tiny."""

    kind: Literal["tiny", "folder", "hub", "gguf", "package"]
    where: str = ""
    revision: str | None = None

    @property
    def label(self) -> str:
        """A short name for paths and tables."""
        if self.kind == "tiny":
            return "tiny"
        return Path(self.where).stem if self.kind == "gguf" else Path(self.where).name

    @property
    def needs_statements(self) -> bool:
        """Whether :func:`prepare` pre-trains it on statements."""
        return self.kind == "tiny"

    def payload(self) -> dict[str, Any]:
        """What determines the weights, for the key; a few file reads at most, and a look at the hub for a branch.

        Raises:
            UserError: a missing or unusable file, folder, package or revision, with the cure.
        """
        content: dict[str, Any] = {"kind": self.kind, "result_version": RESULT_VERSION}
        if self.kind == "tiny":
            content |= {"recipe": dict(tiny_base.RECIPE), "recipe_version": tiny_base.RESULT_VERSION}
        elif self.kind == "folder":
            content["files"] = dict(_folder_digests(Path(self.where).resolve()))
        elif self.kind == "gguf":
            content["file"] = _digest(_existing_gguf(Path(self.where)))
        elif self.kind == "package":
            content |= {
                "package": gguf_base.PACKAGES[self.where],
                "version": gguf_base.package_version(self.where),
            }
        else:
            content |= {"name": self.where, "commit": hub_base.commit_of(self.where, self.revision)}
        return content


def parse_base(name: str) -> BaseSource:
    """The source a base name in a sweep file means; nothing is loaded.

    Raises:
        UserError: not one of the forms, or a file, folder or package that is not there.
    """
    if name == "tiny":
        return BaseSource("tiny")
    if name.startswith("gguf:"):
        return BaseSource("gguf", str(_existing_gguf(Path(name.removeprefix("gguf:")).expanduser())))
    if name.startswith("package:"):
        package = name.removeprefix("package:")
        gguf_base.package_version(package)
        return BaseSource("package", package)
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return BaseSource("folder", str(folder.resolve()))
    if _HUB_NAME.fullmatch(name) and not name.startswith("."):
        where, _, revision = name.partition("@")
        return BaseSource("hub", where, revision or None)
    raise UserError(f"base: {name!r} is not a folder here and no other form of base; write one of: {_FORMS}")


def prepare(
    source: BaseSource, out: Path, statements: Path | None, progress: Callable[[float, str], None]
) -> dict[str, Any]:
    """Write the prepared base into ``out`` and return facts about it (parameters, vocabulary, seconds, ...).

    ``statements`` is a parquet with columns language and text, in the order and shares to pre-train in; only tiny
    uses it. ``progress`` is told a fraction and a sentence.

    Raises:
        UserError: unusable input. EnvironmentProblem: the hub cannot be reached, or the disk is full.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {}
    if source.kind == "tiny":
        if statements is None:
            raise UserError("base: tiny is pre-trained on statements, and none were given")
        model, tokenizer, facts = tiny_base.build_tiny(statements, progress)
    elif source.kind in ("gguf", "package"):
        progress(0.0, f"dequantising {source.label}")
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".assemble-") as scratch:
            file = Path(source.where)
            if source.kind == "package":
                file = gguf_base.package_file(source.where, Path(scratch))
            model, tokenizer = gguf_base.load_gguf(file)
    else:
        folder = Path(source.where)
        if source.kind == "hub":
            progress(0.0, f"fetching {source.where} from the hub")
            folder = hub_base.fetch(source.where, hub_base.commit_of(source.where, source.revision))
        progress(0.3, f"reading {source.label}")
        model, tokenizer = _load_folder(folder)
    progress(0.9, f"writing {source.label}")
    try:
        facts |= write_base(model, tokenizer, out)
    except OSError as problem:
        raise EnvironmentProblem(f"{out}: the base model could not be written: {problem}") from problem
    return facts | {"seconds": time.monotonic() - started}


def loadable(source: BaseSource) -> None:
    """Read a base's configuration and tokenizer, and no weights: whether it could be prepared here.

    Raises:
        UserError: it is not here, or not usable. EnvironmentProblem: the hub cannot be reached.
    """
    if source.kind == "package":
        gguf_base.package_version(source.where)
    elif source.kind == "gguf":
        _existing_gguf(Path(source.where))
    elif source.kind in ("folder", "hub"):
        folder = Path(source.where)
        if source.kind == "hub":
            commit = hub_base.commit_of(source.where, source.revision)
            folder = hub_base.fetch(source.where, commit, wanted=hub_base.WITHOUT_WEIGHTS)
        elif not folder.is_dir():
            raise UserError(f"base: there is no folder {folder} here; put it there, or name one that every node has")
        else:
            _check_folder(folder)
        readable(folder)


def readable(folder: Path) -> None:
    """Read the configuration and tokenizer in a folder; weights need not be there.

    Raises:
        UserError: they cannot be read.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as problem:
        raise UserError(f"base: {folder} cannot be loaded: {problem}") from problem


def write_base(model: Any, tokenizer: Any, out: Path) -> dict[str, Any]:
    """Write a loaded model as a prepared base: bf16, untied, with tokenizer and probe. Returns its sizes."""
    import torch

    if tokenizer.eos_token_id is None:
        raise UserError("base: its tokenizer has no eos_token, so no response could end; set one in its configuration")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    to_bf16(model)
    untie(model)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    ids = probe_tokens([prompt_ids(tokenizer, PROBE_TEXT)])
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    write_probe(out, ids, log_probabilities(logits, ids), "bf16")
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": int(model.get_output_embeddings().weight.shape[0]),
        "architecture": type(model).__name__,
        "chat_template": bool(getattr(tokenizer, "chat_template", None)),
    }


def to_bf16(model: Any) -> None:
    """Cast the parameters alone: rotary frequencies and other buffers stay as precise as a loader makes them."""
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16


def untie(model: Any) -> None:
    """Give the model an output head of its own, saved as ``lm_head.weight``, with the values of the embeddings."""
    import torch

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight.data_ptr() == embeddings.weight.data_ptr():
        head.weight = torch.nn.Parameter(embeddings.weight.detach().clone())
    for config in {id(part): part for part in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def _load_folder(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, trust_remote_code=False, use_safetensors=True
        )
    except (ValueError, KeyError, OSError) as problem:
        if "trust_remote_code" in str(problem):
            raise UserError(
                f"base: {folder} comes with code of its own, and code from a model is never run here; name a model "
                "that transformers knows by itself"
            ) from None
        raise UserError(f"base: {folder} cannot be loaded as a causal language model: {problem}") from problem
    return model, tokenizer


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise UserError(
            f"base: {folder} has no config.json, so it is not a Hugging Face model folder; write one of: {_FORMS}"
        )
    refused = weight_files.refusal(folder)
    if refused and "pickle" in refused:
        raise UserError(
            f'base: {refused}; convert it where you trust it: python -c "from transformers import '
            f"AutoModelForCausalLM as M; M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    if refused:
        raise UserError(f"base: {refused}; give the folder of a saved model")


def _existing_gguf(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"base: gguf:{path} is not a file; give the path of one GGUF file")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UserError(f"base: gguf:{path} is not a GGUF file (its first four bytes are not GGUF)")
    if besides := weight_files.adapter_in(path.parent):
        raise UserError(f"base: gguf:{path} lies beside an adapter ({besides}); give it a folder of its own")
    return path.resolve()


@lru_cache(maxsize=8)
def _folder_digests(folder: Path) -> tuple[tuple[str, str], ...]:
    _check_folder(folder)
    files = sorted({file for pattern in _COUNTED for file in folder.glob(pattern) if file.name != "probe.json"})
    with ThreadPoolExecutor(4) as pool:
        return tuple(zip((file.name for file in files), pool.map(_digest, files), strict=True))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
