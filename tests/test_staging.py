"""A fine-tune's files find their way to the machine it runs on, and from there to the store."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.plan import Plan
from orchestrator.run.jobs import Place, make_corpus
from orchestrator.run.staging import EXAMPLES_FILE, StoreStaging, order
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.store_places import Place as StorePlace
from trainables.errors import LaneDied, StepFailed
from trainables.job import FineTuneJob


class Room:
    """A store with a base and corpora, and the first fine-tune of a sweep ordered."""

    def __init__(self, place: StorePlace, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan = Plan(load(str(sweep)))
        self.store = place.open()
        self.store.create()
        self.store.sessions.start("test")
        self.place = Place(self.store.location, self.store.sessions.id)
        for code, step in self.plan.corpora.items():
            make_corpus(self.place, step, self.plan.corpus, code)
        base = self.store.attempt(self.plan.base)
        (base / "model.safetensors").write_text("weights")
        self.store.publish(self.plan.base, base, {})
        self.model = next(model for model in self.plan.models if model.name == "pinch-2-p50")
        assert self.model.fine_tune is not None
        self.step = self.model.fine_tune
        order(self.store, self.plan, self.model)
        self._monkeypatch = monkeypatch

    def machine(self, folder: Path) -> StoreStaging:
        """The staging as a lane's worker on another machine has it (of a folder, all machines see the same)."""
        self._monkeypatch.setenv("PINCH_CACHE", str(folder))
        staging = StoreStaging(self.place, self.plan.base.key, {self.step.folder: self.step})
        return pickle.loads(pickle.dumps(staging))

    def job(self) -> FineTuneJob:
        return FineTuneJob(
            name=self.step.name,
            base=Path(self.plan.base.key),
            examples=Path(EXAMPLES_FILE),
            recipe=self.plan.sweep.recipe,
            seed=0,
            template="plain",
            out=Path(self.step.folder),
            resume=True,
        )


@pytest.fixture
def room(place: StorePlace, small: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(place, small, monkeypatch)


def test_every_worker_finds_base_and_examples_on_its_own_machine(room: Room, tmp_path: Path) -> None:
    first, second = room.machine(tmp_path / "a"), room.machine(tmp_path / "b")
    begun = room.machine(tmp_path / "a").begin(room.job())
    for staging, folder in ((first, "a"), (second, "b")):
        room.machine(tmp_path / folder)
        job = staging.bring(FineTuneJob.model_validate_json(begun.model_dump_json()))
        assert (job.base / "model.safetensors").read_text() == "weights"
        rows = pq.read_table(job.examples).to_pylist()
        assert room.model.mixture is not None
        assert [row["id"] for row in rows] == sorted(room.model.mixture.without(room.plan.dev))
        assert {row["language"] for row in rows} == {"en", "fi"}
        elsewhere = room.store.elsewhere
        assert all((str(tmp_path / folder) in str(path)) == elsewhere for path in (job.base, job.examples, job.out))


def test_a_lost_machines_fine_tune_is_gone_on_with_on_another(room: Room, tmp_path: Path) -> None:
    lost = room.machine(tmp_path / "a")
    job = lost.bring(lost.begin(room.job()))
    (job.out / "state-000004").mkdir()
    (job.out / "state-000004" / "state.json").write_text(json.dumps({"step": 4}))
    Store(room.store.location, room.store.sessions.id).save(job.out)
    if room.store.elsewhere:
        shutil.rmtree(tmp_path / "a")
    other = room.machine(tmp_path / "b")
    again = other.bring(other.begin(room.job()))
    assert json.loads((again.out / "state-000004" / "state.json").read_text())["step"] == 4
    assert again.examples.is_file()
    shutil.rmtree(again.out / "state-000004")
    (again.out / "checkpoint-000008").mkdir()
    (again.out / "checkpoint-000008" / "model.safetensors").write_text("tuned")
    other.publish(again, {"steps": 8})
    entry = Store(room.store.location).find("fine_tune", room.step.key)
    assert entry is not None
    assert set(entry.manifest["files"]) == {"mixture.parquet", "checkpoint-000008/model.safetensors"}
    assert list(room.store.storage.attempts()) == []
    assert room.store.storage.names("orders") == []
    assert not [name for name in room.store.storage.names("fine_tune") if "state" in name or "examples" in name]


def test_only_what_cannot_be_gone_on_from_is_dropped(room: Room, tmp_path: Path) -> None:
    staging = room.machine(tmp_path / "a")
    job = staging.begin(room.job())
    staging.failed(job, LaneDied("a worker died"))
    assert len(list(room.store.storage.attempts())) == 1
    staging.failed(job, StepFailed("the loss is nan"))
    assert list(room.store.storage.attempts()) == []


def test_a_spoiled_input_is_no_failure_of_the_fine_tune(room: Room, place: StorePlace, tmp_path: Path) -> None:
    entry = room.store.find("base", room.plan.base.key)
    assert entry is not None
    staging = room.machine(tmp_path / "a")
    job = staging.begin(room.job())
    place.spoil(entry, "model.safetensors", b"WEIGHTS")
    with pytest.raises(LaneDied, match="does not have the content"):
        staging.bring(job)
    assert Store(room.store.location).find("base", room.plan.base.key) is None
