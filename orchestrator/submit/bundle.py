"""What of a sweep lies on this machine, and the folder in which it travels to a cluster.

A sweep names files in a few settings only (:func:`named_files`). Those that are small travel with the sweep, in the
job's working directory, which Ray unpacks on every node. A relative path keeps its place there, so the sweep means
the same on both sides; any other is rewritten. What is too large to be sent is looked for on the cluster at its own
absolute path: a folder that all nodes share will have it. Whether the cluster then sees the same content is for
`pinch run` to say, which is told the plan's digest.

This module must never know how a job is submitted or what is in the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator.cost import human_bytes
from orchestrator.sweep import Sweep
from trainables.batches import names_a_file
from trainables.judges.prompt import SHIPPED as JUDGE_PROMPTS
from trainables.translators.specs import PROMPTS as TRANSLATOR_PROMPTS

LIMIT = 90 * 2**20
"""Bytes that travel at most; a working directory is kept in the head's memory, and every node has a copy."""

FILE_SETTINGS = frozenset(
    {
        "corpus.train",
        "corpus.eval",
        "corpus.copies",
        "corpus.translator.model",
        "corpus.translator.prompt",
        "base",
        "recipe.template",
        "judge.model",
        "judge.prompt",
    }
)
"""Every setting that may name a file or folder of the user's; a test holds it against the specs."""

_LEFT_OUT = shutil.ignore_patterns(".git", ".gitignore", ".rayignore", ".cache")
"""Ray would leave out what an ignore file in a copied folder names, weights among it."""


@dataclasses.dataclass(frozen=True)
class NamedFile:
    """A file or folder that a setting names: ``setting`` is where, as steps into the sweep's plain form."""

    setting: tuple[str, ...]
    prefix: str
    written: str
    path: Path

    @property
    def name(self) -> str:
        return ".".join(self.setting)

    @property
    def bytes(self) -> int:
        if self.path.is_file():
            return self.path.stat().st_size
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    @property
    def inside(self) -> str:
        """Where it lies in the bundle; the last part of the name stays, for it may be part of a label."""
        written = Path(self.written)
        if not written.is_absolute() and not {"..", "~"} & set(written.parts) and not self.written.startswith("~"):
            return written.as_posix()
        return f"files/{self.name}/{self.path.name}"


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A folder with a sweep and the files it names."""

    folder: Path
    sweep: str
    """The sweep's file name in the folder."""
    left: tuple[NamedFile, ...]
    """What is too large to travel; the sweep names it by its absolute path."""

    def sentence(self) -> str:
        """What is said about what does not travel; empty where everything does."""
        if not self.left:
            return ""
        what = ", ".join(f"{file.name} {file.path} ({human_bytes(file.bytes)})" for file in self.left)
        return (
            f"Too large to be sent: {what}. The cluster looks for it at the same path: it must be on every node there, "
            "in a shared folder for example. A base or judge model may be a hub name instead."
        )


@contextlib.contextmanager
def bundle(sweep: Sweep, limit: int = LIMIT) -> Iterator[Bundle]:
    """The sweep, every override in it, and the files it names, in a folder that is gone afterwards."""
    files = sorted(named_files(sweep), key=lambda file: file.bytes)
    sent: list[NamedFile] = []
    for file in files:
        if sum(other.bytes for other in sent) + file.bytes <= limit:
            sent.append(file)
    plain = sweep.model_dump(mode="json")
    with tempfile.TemporaryDirectory(prefix="pinch-submit-") as scratch:
        folder = Path(scratch)
        for file in files:
            _set(plain, file.setting, file.prefix + (file.inside if file in sent else str(file.path.resolve())))
        for file in sent:
            target = folder / file.inside
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.path.is_dir():
                shutil.copytree(file.path, target, ignore=_LEFT_OUT, dirs_exist_ok=True)
            else:
                shutil.copy(file.path, target)
        name = f"{sweep.name}.yaml"
        (folder / name).write_text(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False), encoding="utf-8")
        yield Bundle(folder, name, tuple(file for file in files if file not in sent))


def named_files(sweep: Sweep) -> Iterator[NamedFile]:
    """Every file and folder of this machine that a sweep names. Its plan could be made, so they are there."""
    corpus, judge = sweep.corpus, sweep.judge
    if corpus.source == "files":
        yield _file(("corpus", "train"), corpus.train)
        yield _file(("corpus", "eval"), corpus.eval)
    if corpus.source == "hub":
        for name, copy in corpus.copies.items():
            yield _file(("corpus", "copies", name), copy)
        translator = corpus.translator
        if translator.engine == "local":
            yield from _model(("corpus", "translator", "model"), translator.model)
        prompt = getattr(translator, "prompt", None)
        if prompt is not None and ("/" in prompt or not (TRANSLATOR_PROMPTS / f"{prompt}.txt").is_file()):
            yield _file(("corpus", "translator", "prompt"), prompt)
    yield from _model(("base",), sweep.base)
    if names_a_file(sweep.recipe.template):
        yield _file(("recipe", "template"), sweep.recipe.template)
    if judge.kind == "local":
        yield from _model(("judge", "model"), judge.model)
    if judge.kind != "reference" and ("/" in judge.prompt or not (JUDGE_PROMPTS / judge.prompt).is_dir()):
        yield _file(("judge", "prompt"), judge.prompt)


def _model(setting: tuple[str, ...], name: str) -> Iterator[NamedFile]:
    if name.startswith("gguf:"):
        yield _file(setting, name.removeprefix("gguf:"), "gguf:")
    elif name != "tiny" and Path(name).expanduser().is_dir():
        yield _file(setting, name)


def _file(setting: tuple[str, ...], written: str, prefix: str = "") -> NamedFile:
    return NamedFile(setting, prefix, written, Path(written).expanduser())


def _set(plain: dict[str, Any], setting: tuple[str, ...], value: str) -> None:
    *above, last = setting
    for part in above:
        plain = plain[part]
    plain[last] = value
