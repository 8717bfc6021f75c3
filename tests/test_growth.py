"""GPUs that are not there yet: who knows that they may come."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.run.growth import SAID, gpus_may_come
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
