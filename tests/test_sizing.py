"""How large workers are is told from models that are there and GPUs that answer, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.plan import Plan
from orchestrator.run import sizing
from orchestrator.run.board import Board, State
from orchestrator.run.placement import Size
from orchestrator.run.sizing import ASKED, Sizing
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL
from trainables.errors import UserError

H100 = (80e9, 500e9)


class Cluster:
    """Two nodes of four GPUs, some of which others use; and what they say of their memory."""

    def __init__(self, **free: int) -> None:
        self.free = free
        self.answers: list[list[tuple[float, float] | None]] = [[H100]]
        self.asked: list[list[str]] = []

    def nodes(self) -> SimpleNamespace:
        return SimpleNamespace(whole=lambda: dict.fromkeys(self.free, 4), free=lambda: self.free)

    def gpu_memory(self, nodes: Iterable[str]) -> list[tuple[float, float] | None]:
        self.asked.append(list(nodes))
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


class Room:
    """A sweep whose base is in the store, on a cluster."""

    def __init__(self, folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
        folder.mkdir(exist_ok=True)
        sweep = folder / "small.yaml"
        sweep.write_text(SMALL)
        self.plan, self.store = Plan(load(str(sweep), overrides)), Store(folder / "store")
        self.store.create()
        attempt = self.store.attempt(self.plan.base)
        (attempt / "config.json").write_text("{}")
        self.store.publish(self.plan.base, attempt, {})
        self.board = Board(self.plan.steps, self.store, lambda step, state: None)
        self.said: list[str] = []
        monkeypatch.setattr(sizing, "gpu_memory", cluster.gpu_memory)
        self.sizing = Sizing(self.plan, self.board, cluster.nodes(), self.said.append)  # type: ignore[arg-type]

    def no_shape(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(folder: Path) -> None:
            raise UserError(f"{folder}: not a model that is known")

        monkeypatch.setattr(sizing, "read_shape", refused)


@pytest.fixture(autouse=True)
def shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "read_shape", lambda folder: SimpleNamespace(parameters=40e9, heads=32))


def test_as_long_as_others_use_every_gpu_nothing_is_asked_and_nothing_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(a=0, b=0)
    room = Room(tmp_path, cluster, monkeypatch, "runtime.engine=vllm")
    assert room.sizing.engine() is None
    assert not cluster.asked
    cluster.free["b"] = 1
    assert room.sizing.engine() == Size(gpus=2), "80 GB of weights, 52 GB on each GPU"
    assert cluster.asked == [["b"]], "a task would wait for the GPUs of the other"


def test_silence_is_asked_about_again_before_it_counts_as_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(a=4, b=4)
    cluster.answers = [[], [H100]]
    room = Room(tmp_path, cluster, monkeypatch, "runtime.engine=vllm")
    assert room.sizing.engine() is None
    assert room.sizing.engine() == Size(gpus=2)
    cluster.answers, cluster.asked = [[]], []
    silent = Room(tmp_path / "other", cluster, monkeypatch, "runtime.engine=vllm")
    assert [silent.sizing.engine() for _ in range(ASKED)] == [None] * (ASKED - 1) + [Size(gpus=1)]
    assert silent.said == ["No machine said how much memory its GPUs have; asking again."] * (ASKED - 1)


def test_an_engine_of_transformers_needs_no_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, Cluster(a=4), monkeypatch, "runtime.engine=transformers")
    room.no_shape(monkeypatch)
    assert room.sizing.engine() == Size(gpus=1)
    with pytest.raises(UserError):
        room.sizing.lane()


def test_a_base_that_is_gone_by_now_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(tmp_path, Cluster(a=4), monkeypatch, "runtime.engine=vllm")
    entry = room.store.find("base", room.plan.base.key)
    assert entry is not None
    assert room.board.state(room.plan.base) is State.DONE
    room.store.quarantine(entry, "spoiled by another session's word")
    assert room.sizing.engine() is None
    assert room.board.state(room.plan.base) is State.TODO


def test_what_is_left_of_a_base_is_put_aside_and_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, Cluster(a=4), monkeypatch, "runtime.engine=vllm")
    (room.store.root / "base" / room.plan.base.folder / "config.json").write_text("")
    assert room.sizing.engine() is None
    assert room.board.state(room.plan.base) is State.TODO
    assert list((room.store.root / "quarantine").glob("base-*"))
