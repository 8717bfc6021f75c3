"""GPUs that are not there yet: who knows that they may come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from orchestrator.run import growth as growth_module
from orchestrator.run.growth import SAID, Growth, gpus_may_come
from orchestrator.run.placement import Size
from tests.cluster_files import kuberay, ray_cluster
from trainables.errors import EnvironmentProblem


def test_a_head_knows_whether_machines_with_gpus_can_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAID, raising=False)
    file = tmp_path / "ray_bootstrap_config.yaml"
    assert not gpus_may_come(file)
    head = "available_node_types:\n  head: {resources: {CPU: 4, GPU: 0}, max_workers: 0}\n"
    file.write_text(head)
    assert not gpus_may_come(file)
    file.write_text(head + "  worker: {resources: {CPU: 32, GPU: 4}, min_workers: 0, max_workers: 8}\n")
    assert gpus_may_come(file)
    file.write_text("[")
    assert not gpus_may_come(file)


def test_where_no_file_says_so_a_variable_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("true", "false"):
        monkeypatch.setenv(SAID, said)
        assert gpus_may_come(tmp_path / "none.yaml") == (said == "true")
    monkeypatch.setenv(SAID, "8")
    with pytest.raises(EnvironmentProblem, match=f"{SAID}: '8' is neither true nor false"):
        gpus_may_come(tmp_path / "none.yaml")


def test_the_head_pod_says_what_its_cluster_may_grow_to() -> None:
    cluster = ray_cluster()
    limits = [
        group["maxReplicas"] * int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        for group in cluster["workerGroupSpecs"]
        for container in group["template"]["spec"]["containers"]
    ]
    (head,) = [
        container
        for container in cluster["headGroupSpec"]["template"]["spec"]["containers"]
        if container["name"] == "ray-head"
    ]
    said = {variable["name"]: variable["value"] for variable in head["env"]}[SAID]
    assert said == str(cluster["enableInTreeAutoscaling"] and sum(limits) > 0).lower()
    assert kuberay()["RayJob"]["spec"]["submissionMode"] == "HTTPMode", "the driver is on the head, where this is said"


def test_room_that_has_come_is_left_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth_module, "TAKEN_WITHIN", 3.0)
    ray.init(address="local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        growth, wanted = Growth(), Counter({Size(gpus=1): 3, Size(gpus=2): 1})
        growth.ask(wanted)
        _until(lambda: ray.available_resources().get("GPU", 0) == 0)
        growth.ask(wanted)
        _until(lambda: ray.available_resources().get("GPU", 0) == 2)
        growth.ask(wanted)
        time.sleep(1)
        assert ray.available_resources()["GPU"] == 2, "no other group took it"
        growth.stop()
    finally:
        ray.shutdown()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
