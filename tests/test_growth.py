"""GPUs that are not there yet: who knows that they may come, and that Ray's autoscaler brings them when asked."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from orchestrator.run import growth as growth_module
from orchestrator.run.growth import SAID, Growth, gpus_may_come
from orchestrator.run.placement import Size
from tests.cluster_files import kuberay, ray_cluster
from tests.ray_head import ROOT, RayHead
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


ASKING = """
import time
from collections import Counter
import ray
from ray.util.placement_group import placement_group_table
from orchestrator.run import cluster
from orchestrator.run.growth import Growth
from orchestrator.run.placement import Size

def until(condition):
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, (ray.cluster_resources(), placement_group_table())
        growth.ask(wanted)
        time.sleep(0.5)

with cluster.connected("auto") as room:
    assert (room.gpus, room.grows) == (0, True), room
    assert cluster.share(room, small=False).use_gpus
    growth, wanted = Growth(), Counter({Size(gpus=2): 1})
    until(lambda: ray.cluster_resources().get("GPU") == 2)
    wanted = Counter()
    until(lambda: all(group["state"] == "REMOVED" for group in placement_group_table().values()))
    until(lambda: ray.available_resources().get("GPU") == 2)
"""


COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter"),
)
"""Of a cluster's configuration: Ray's wheel lacks the defaults of its own provider of nodes that do not exist."""


@pytest.fixture
def head(tmp_path: Path) -> Iterator[RayHead]:
    """A head without GPUs, and Ray's autoscaler, which may start one node with two."""
    config = tmp_path / "autoscaling.json"
    head = RayHead()
    identity = "f" * 51 + "00000"
    config.write_text(
        json.dumps(
            {
                **{name: [] for name in COMMANDS},
                "auth": {},
                "docker": {},
                "file_mounts": {},
                "upscaling_speed": 1.0,
                "cluster_name": "grows",
                "max_workers": 1,
                "idle_timeout_minutes": 5,
                "provider": {
                    "type": "external",
                    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                    "gcs_address": f"127.0.0.1:{head.ports['port']}",
                    "head_node_id": identity,
                    "launch_multiple": True,
                },
                "head_node_type": "ray.head.default",
                "available_node_types": {
                    "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
                    "worker": {
                        "resources": {"CPU": 1, "GPU": 2, "object_store_memory": 100_000_000},
                        "node_config": {},
                        "min_workers": 0,
                        "max_workers": 1,
                    },
                },
            }
        )
    )
    head.environment |= {
        SAID: "true",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": identity,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": identity,
    }
    head.start(f"--autoscaling-config={config}")
    yield head
    head.close()


@pytest.mark.slow
def test_on_a_cluster_of_no_gpus_work_that_waits_brings_them(head: RayHead, tmp_path: Path) -> None:
    asking = subprocess.run(
        [sys.executable, "-c", ASKING],
        cwd=tmp_path,
        env={**head.environment, "RAY_ADDRESS": f"127.0.0.1:{head.ports['port']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert asking.returncode == 0, asking.stderr[-4000:]
