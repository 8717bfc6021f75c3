"""Rules of a lane, with real Ray Train workers: job after job, failures told, and no owner left waiting."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch

from tests.tuning_examples import job, make_tiny, write_examples
from trainables.errors import LaneDied, StepFailed, UserError
from trainables.finetune import finetune
from trainables.job import FineTuneJob
from trainables.lane import Lane, _failure, _said

ENV = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lane")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_tiny(folder, monkeypatch)
    write_examples(folder / "examples.parquet")
    return folder


@pytest.fixture(scope="module")
def base(room) -> Path:
    return room / "tiny"


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pair(cluster):
    lane = Lane(workers=2, env=ENV)
    lane.start()
    yield lane
    lane.stop()
    assert not lane.alive


def run(lane: Lane, job: FineTuneJob, on_report: Callable[[dict], None]) -> dict:
    """One fine-tune's facts, from the lane's reports."""
    lane.submit(job)
    while True:
        message = lane.next_report(300)
        assert message is not None, "the lane fell silent"
        if message["kind"] == "done":
            return message["facts"]
        on_report(message["report"])


def alone_and_in(lane: Lane, room: Path, base: Path, stage: int, method: str) -> tuple[dict, dict, list[dict]]:
    recipe = {"steps": 4, "checkpoint_every": 2, "dropout": 0.0, "precision": "fp32", "method": method}
    parallel = {"zero_stage": stage, "micro_batch": 2}
    alone = finetune(job(room, base, f"alone-{stage}-{method}", recipe, parallel=parallel), lambda report: None)
    reports: list[dict] = []
    this = job(room, base, f"lane-{stage}-{method}", recipe, parallel=parallel)
    together = run(lane, this, reports.append)
    assert (this.out / "checkpoint-000004" / "probe.json").is_file()
    return alone, together, reports


@pytest.mark.parametrize(("stage", "method"), [(2, "full"), (0, "lora"), (1, "full"), (2, "lora"), (0, "full")])
def test_two_workers_compute_what_one_does_job_after_job(pair, room, base, stage, method):
    alone, together, reports = alone_and_in(pair, room, base, stage, method)
    assert together["workers"] == 2
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)
    assert [report["checkpoint"] for report in reports if "checkpoint" in report] == [2, 4]


@pytest.mark.slow
def test_a_lane_alternates_with_zero_3(pair, room, base):
    for stage, method in ((3, "full"), (2, "full"), (3, "lora"), (1, "lora"), (3, "full")):
        alone, together, _ = alone_and_in(pair, room, base, stage, method)
        assert together["loss"] == pytest.approx(alone["loss"], rel=1e-4)


def test_the_next_job_of_a_lane_starts_within_two_seconds(pair, room, base):
    run(pair, job(room, base, "before", {"steps": 1}), lambda report: None)
    facts = run(pair, job(room, base, "after", {"steps": 1}), lambda report: None)
    assert facts["seconds_before_first_step"] < 2


def test_a_failed_job_is_told_and_poisons_the_lane(cluster, room, base):
    lane = Lane(workers=1, env=ENV)
    lane.start()
    try:
        with pytest.raises(StepFailed, match="learning_rate"):
            run(lane, job(room, base, "explodes", {"steps": 40, "learning_rate": 1e8}), lambda report: None)
        assert lane.poisoned
        with pytest.raises(LaneDied, match="poisoned"):
            lane.submit(job(room, base, "next"))
    finally:
        started = time.monotonic()
        lane.stop()
    assert time.monotonic() - started < 20
    assert not lane.alive


@pytest.mark.slow
def test_bad_input_in_a_job_stays_the_users_error(cluster, room, base):
    lane = Lane(workers=1, env=ENV)
    lane.start()
    try:
        missing = job(room, base, "missing").model_copy(update={"examples": room / "nowhere.parquet"})
        with pytest.raises(UserError, match=r"nowhere\.parquet"):
            run(lane, missing, lambda report: None)
    finally:
        lane.stop()


def test_a_worker_that_gets_no_memory_is_no_fault_of_the_fine_tune():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    failure = _failure(_said(refused.value, 1))
    assert isinstance(failure, LaneDied)
    assert "runtime.micro_batch" in str(failure)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_owner_hears_of_a_dead_worker(cluster, room, base, workers):
    lane = Lane(workers=workers, env=ENV)
    lane.start()
    try:
        killed: list[float] = []

        def kill(report: dict) -> None:
            if not killed:
                os.kill(lane.pids[workers - 1], signal.SIGKILL)
                killed.append(time.monotonic())

        with pytest.raises(LaneDied):
            run(lane, job(room, base, f"dies-{workers}", {"steps": 5000, "checkpoint_every": 5000}), kill)
        assert time.monotonic() - killed[0] < 30
    finally:
        lane.stop()
    assert not lane.alive


@pytest.mark.slow
def test_a_running_job_is_ended_by_stop(cluster, room, base):
    lane = Lane(workers=1, env=ENV)
    lane.start()
    lane.submit(job(room, base, "endless", {"steps": 100_000, "checkpoint_every": 100_000}))
    assert lane.next_report(60) is not None
    pid, started = lane.pids[0], time.monotonic()
    lane.stop()
    assert time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
def test_a_lane_that_cannot_be_placed_says_so(cluster):
    lane = Lane(workers=1, resources={"CPU": 64}, start_deadline=8)
    with pytest.raises(LaneDied, match="CPU 64"):
        lane.start()
    assert not lane.alive


@pytest.mark.slow
def test_a_lane_lives_in_a_reused_trial(cluster, room, base):
    from ray import tune

    jobs = {name: job(room, base, name, {"steps": 3}).model_dump_json() for name in ("first", "second", "third")}

    class Trial(tune.Trainable):
        def setup(self, config):
            self.config = config
            self.lane = Lane(workers=1, env=ENV)
            self.lane.start()

        def step(self):
            from trainables.job import FineTuneJob

            facts = run(self.lane, FineTuneJob.model_validate_json(self.config["job"]), lambda report: None)
            return {"loss": facts["loss"], "worker": self.lane.pids[0], "done": True}

        def reset_config(self, new_config):
            self.config = new_config
            return True

        def save_checkpoint(self, folder):
            return {}  # a lane holds nothing to save

        def load_checkpoint(self, state):
            pass

        def cleanup(self):
            self.lane.stop()

    tuner = tune.Tuner(
        tune.with_resources(Trial, {"CPU": 0.01}),
        param_space={"job": tune.grid_search(list(jobs.values()))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(room / "tune"), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    assert len({result.metrics["worker"] for result in results}) == 1
    assert len({result.metrics["loss"] for result in results}) == 1
