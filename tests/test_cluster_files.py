"""What `ray up` and KubeRay are given: accepted by those who will read it, and true to our own rules.

Nothing is bought: Ray's own launcher runs against moto's AWS, what Google is asked is held to the description of the
API that Google's client carries, and KubeRay's object is read by Ray's KubeRay autoscaler.
"""

from __future__ import annotations

import json
import logging
import re
import tomllib
from typing import Any

import pytest
from moto import mock_aws
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.event_logger import AutoscalerEventLogger
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ResourceRequestByCount

from tests.cluster_files import (
    CLOUDS,
    EVERYTHING,
    FILES,
    ROOT,
    kuberay,
    load,
    ray_cluster,
    starts,
)

LOCK = dict(
    line.split("==")
    for line in (ROOT / "requirements/gpu.txt").read_text().splitlines()
    if re.match(r"[\w.-]+==", line)
)


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    validate_config(prepare_config(load(name)))


def test_ray_launches_every_machine_of_the_aws_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes the SSH key it makes
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        import boto3
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        config = prepare_config(load("cluster.yaml"))
        region = config["provider"]["region"]
        boto3.client("cloudformation", region).create_stack(
            StackName="pinch",
            TemplateBody=(ROOT / "clusters/aws-stack.yaml").read_text(),
            Parameters=[{"ParameterKey": "BucketName", "ParameterValue": "pinch-stores"}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        config = AWSNodeProvider.fillout_available_node_types_resources(config)
        validate_config(config)
        config = AWSNodeProvider.bootstrap_config(config)
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        made = {
            name: next(iter(provider.create_node(kind["node_config"], {"ray-user-node-type": name}, 1).values()))
            for name, kind in config["available_node_types"].items()
        }
        resources = {name: kind["resources"] for name, kind in config["available_node_types"].items()}
        profiles = {name: machine.iam_instance_profile["Arn"].split("/")[-1] for name, machine in made.items()}
        iam = boto3.client("iam")
        role = iam.get_instance_profile(InstanceProfileName="pinch-worker")["InstanceProfile"]["Roles"][0]["RoleName"]
        policies = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        document = iam.get_policy_version(PolicyArn=policies[0]["PolicyArn"], VersionId="v1")["PolicyVersion"][
            "Document"
        ]
        own = iam.list_role_policies(RoleName=role)["PolicyNames"]

    assert resources["head"] == {"CPU": 0, "GPU": 0}
    assert resources["gpu-spot"] == resources["gpu-on-demand"]
    assert resources["gpu-spot"]["GPU"] == 4
    assert {name: machine.instance_lifecycle for name, machine in made.items()} == {
        "head": None,
        "gpu-on-demand": None,
        "gpu-spot": "spot",
    }
    assert profiles == {"head": "pinch-head", "gpu-on-demand": "pinch-worker", "gpu-spot": "pinch-worker"}
    # A worker may use the bucket and nothing else.
    document = json.loads(document) if isinstance(document, str) else document
    allowed = {action for statement in document["Statement"] for action in statement["Action"]}
    assert len(policies) == 1
    assert own == []
    assert {action.split(":")[0] for action in allowed} == {"s3"}
    assert all("pinch-stores" in statement["Resource"] for statement in document["Statement"])


def test_the_google_machines_are_instances_as_googles_api_describes_them() -> None:
    from googleapiclient.discovery_cache import get_static_doc

    described = json.loads(get_static_doc("compute", "v1"))["schemas"]
    for name, kind in load("clusters/gcp.yaml")["available_node_types"].items():
        problems = list(_unlike("Instance", kind["node_config"], described, name))
        assert not problems
    assert list(_unlike("Instance", {"machineTyp": "n2"}, described, ""))  # the check sees what it should


def _unlike(schema: str, value: dict[str, Any], described: dict[str, Any], where: str) -> Any:
    """How an object departs from a schema of a discovery document: unknown keys, wrong types, unknown values."""
    types = {"string": str, "boolean": bool, "integer": int, "array": list, "object": dict}
    for key, item in value.items():
        here, found = f"{where}.{key}", described[schema]["properties"].get(key)
        if found is None:
            yield f"{here}: not in {schema}"
            continue
        inner = found.get("items", found)
        is_list = found.get("type") == "array"
        if is_list and not isinstance(item, list):
            yield f"{here}: not a list"
            continue
        for each in item if is_list else [item]:
            if "$ref" in inner:
                yield from _unlike(inner["$ref"], each, described, here)
            elif inner.get("format") == "int64" and isinstance(each, int):
                continue  # a number in a string, or a number
            elif not isinstance(each, types[inner["type"]]):
                yield f"{here}: {each!r} is not a {inner['type']}"
            elif "enum" in inner and each not in inner["enum"]:
                yield f"{here}: {each!r} is none of {inner['enum']}"


RAY_JOB = {  # of what KubeRay 1.7 documents (docs.ray.io, "KubeRay CRD API reference"), what the file uses
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "RayJobSpec": {
        "entrypoint",
        "submissionMode",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    },
    "RayClusterSpec": {
        "rayVersion",
        "authOptions",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "AutoscalerOptions": {"version", "idleTimeoutSeconds"},
    "HeadGroupSpec": {"serviceType", "rayStartParams", "template"},
    "WorkerGroupSpec": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "priority",
        "rayStartParams",
        "template",
    },
    "PodTemplateSpec": {"metadata", "spec"},
    "PodSpec": {
        "restartPolicy",
        "serviceAccountName",
        "securityContext",
        "nodeSelector",
        "tolerations",
        "containers",
        "volumes",
    },
    "Container": {"name", "image", "command", "resources", "env", "envFrom", "volumeMounts"},
}


def test_the_ray_job_uses_only_keys_that_kuberay_documents() -> None:
    """No package ships KubeRay's schema: this holds the file to the documented names, level by level, and no closer."""
    job = kuberay()["RayJob"]
    cluster = job["spec"]["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    templates = [group["template"] for group in (head, *workers)]
    levels = {
        "RayJob": [job],
        "RayJobSpec": [job["spec"]],
        "RayClusterSpec": [cluster],
        "AutoscalerOptions": [cluster["autoscalerOptions"]],
        "HeadGroupSpec": [head],
        "WorkerGroupSpec": workers,
        "PodTemplateSpec": templates,
        "PodSpec": [template["spec"] for template in templates],
        "Container": [container for template in templates for container in template["spec"]["containers"]],
    }
    for level, objects in levels.items():
        for each in objects:
            assert set(each) <= RAY_JOB[level], level
    assert (job["apiVersion"], job["spec"]["submissionMode"]) == ("ray.io/v1", "HTTPMode")
    starting = [value for group in (head, *workers) for value in group["rayStartParams"].values()]
    assert all(isinstance(value, str) for value in starting)  # KubeRay's type


def _read_by_ray() -> dict[str, Any]:
    return _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": "pinch", "namespace": "default"}, "spec": ray_cluster()}
    )


def test_ray_reads_the_kuberay_cluster_as_it_is_meant() -> None:
    """Ray's own KubeRay autoscaler makes node types of the object, and validates them as it does for `ray up`."""
    read = _read_by_ray()
    kinds = read["available_node_types"]
    assert {name: kind["resources"]["GPU"] for name, kind in kinds.items()} == {
        "headgroup": 0,
        "gpu-on-demand": 4,
        "gpu-spot": 4,
    }
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    (head,) = [
        one for one in ray_cluster()["headGroupSpec"]["template"]["spec"]["containers"] if one["name"] == "ray-head"
    ]
    assert {"name": "PINCH_GPUS_COME", "value": "true"} in head["env"], "a run cannot read this file there"
    assert read["idle_timeout_minutes"] == load("cluster.yaml")["idle_timeout_minutes"]


def _workers(name: str) -> dict[str, dict[str, Any]]:
    """Node types of the workers: min_workers, max_workers, priority, and whatever says that one is spot, as text."""
    if name in FILES:
        kinds = load(name)["available_node_types"]
        return {kind: {**about, "text": json.dumps(about)} for kind, about in kinds.items() if kind != "head"}
    return {
        group["groupName"]: {
            "min_workers": group["minReplicas"],
            "max_workers": group["maxReplicas"],
            "priority": group["priority"],
            "text": json.dumps(group["template"]["spec"]["nodeSelector"]),
        }
        for group in ray_cluster()["workerGroupSpecs"]
    }


@pytest.mark.parametrize("name", [*CLOUDS, "clusters/kuberay.yaml"])
def test_gpu_workers_are_spot_first_then_on_demand_and_scale_to_zero(name: str) -> None:
    workers = _workers(name)
    assert set(workers) == {"gpu-spot", "gpu-on-demand"}
    assert all(about["min_workers"] == 0 and about["max_workers"] > 0 for about in workers.values())
    assert workers["gpu-spot"]["priority"] > workers["gpu-on-demand"]["priority"]
    assert [kind for kind, about in workers.items() if re.search("spot", about["text"], re.IGNORECASE)] == ["gpu-spot"]


@pytest.mark.parametrize("name", [*CLOUDS, "clusters/kuberay.yaml"])
def test_rays_autoscaler_asks_for_spot_and_without_spot_capacity_for_on_demand(name: str) -> None:
    config = load(name) if name in FILES else _read_by_ray()
    for kind in config["available_node_types"].values():
        kind["resources"] = kind["resources"] or {"CPU": 48, "GPU": 4}  # what AWS says of the machine
    kinds = AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs()
    two = [ResourceRequestByCount(request=ResourceRequestUtil.make({"GPU": 4}), count=2)]

    def launched(**availability: float) -> dict[str, int]:
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=kinds,
            max_num_nodes=config["max_workers"],
            resource_requests=two,
            recoverable_resource_availabilities={kind.replace("_", "-"): how for kind, how in availability.items()},
        )
        reply = ResourceDemandScheduler(AutoscalerEventLogger(logging.getLogger())).schedule(request)
        return {each.instance_type: each.count for each in reply.to_launch if each.instance_type.startswith("gpu")}

    assert launched() == {"gpu-spot": 2}
    assert launched(gpu_spot=0.0) == {"gpu-on-demand": 2}


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_that_are_not_needed_are_ended_with_their_disks(name: str) -> None:
    config = load(name)
    assert config["provider"]["cache_stopped_nodes"] is False
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert max(about["max_workers"] for about in _workers(name).values()) <= config["max_workers"]
    for kind in config["available_node_types"].values():
        node = kind["node_config"]
        disks = [disk["Ebs"]["DeleteOnTermination"] for disk in node.get("BlockDeviceMappings", [])]
        disks += [disk["autoDelete"] for disk in node.get("disks", [])]
        assert disks == [True]


def test_machines_of_ones_own_all_belong_to_the_cluster() -> None:
    """Ray does not know what a machine of this provider has before it joined, so none would come when there is work."""
    config = prepare_config(load("clusters/local.yaml"))
    (kind,) = config["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


@pytest.mark.parametrize("name", FILES)
def test_the_head_runs_no_work_and_keeps_its_dashboard_to_itself(name: str) -> None:
    head, worker = starts(name)
    assert {"--head", "--num-cpus=0", "--num-gpus=0"} <= set(head.split())
    for command in (head, worker):
        assert "--dashboard-host=127.0.0.1" in command.split()
    config = load(name)
    if name in CLOUDS:
        about = config["available_node_types"][config["head_node_type"]]
        assert about["resources"] == {"CPU": 0, "GPU": 0}
        assert about["max_workers"] == 0
        assert "accelerator" not in json.dumps(about["node_config"]).lower()


def test_the_head_pod_runs_no_work_and_lets_in_the_operator_only() -> None:
    cluster, objects = ray_cluster(), kuberay()
    head = cluster["headGroupSpec"]
    assert (head["rayStartParams"]["num-cpus"], head["rayStartParams"]["num-gpus"]) == ("0", "0")
    assert head["serviceType"] == "ClusterIP"
    assert "nvidia.com/gpu" not in json.dumps(head)
    assert set(objects) == {"RayJob", "NetworkPolicy", "PersistentVolumeClaim"}
    policy = objects["NetworkPolicy"]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    groups = (head, *cluster["workerGroupSpecs"])
    assert all(group["template"]["metadata"]["labels"] == labels for group in groups)
    assert policy["policyTypes"] == ["Ingress"]
    own, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": labels}}]}
    assert [port["port"] for port in operator["ports"]] == [8265]
    assert operator["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}


@pytest.mark.parametrize("name", FILES)
def test_every_ray_start_asks_for_the_token(name: str) -> None:
    for command in starts(name):
        assert command.startswith("source ~/pinch/clusters/env.sh && ray start ")  # test_cluster_scripts.py runs it
    assert load(name)["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_every_pod_asks_for_the_token() -> None:
    assert ray_cluster()["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE=token" in (ROOT / "clusters/Dockerfile").read_text()


SHARED = (
    "file_mounts",
    "rsync_exclude",
    "setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


@pytest.mark.parametrize("name", FILES[1:])
def test_variants_set_up_and_start_the_same(name: str) -> None:
    here, first = load(name), load("cluster.yaml")
    assert {key: here.get(key) for key in SHARED} == {key: first[key] for key in SHARED}
    assert not {"initialization_commands", "head_setup_commands", "docker"} & set(here)


def test_the_image_is_set_up_the_same() -> None:
    docker = (ROOT / "clusters/Dockerfile").read_text()
    copied = {
        word for line in re.findall(r"^COPY --chown=pinch (.*)$", docker, re.MULTILINE) for word in line.split()[:-1]
    }
    mounted = {local for local in load("cluster.yaml")["file_mounts"].values() if not local.startswith("~")}
    ignored = (ROOT / "clusters/Dockerfile.dockerignore").read_text()
    assert copied == mounted == set(re.findall(r"^!(.*)$", ignored, re.MULTILINE))
    assert "RUN bash clusters/setup.sh" in docker
    assert load("cluster.yaml")["setup_commands"] == ["bash ~/pinch/clusters/setup.sh"]


def test_what_is_brought_to_a_node_is_there() -> None:
    for remote, local in load("cluster.yaml")["file_mounts"].items():
        if not local.startswith("~"):
            assert (ROOT / local).exists(), remote
            assert remote == f"~/pinch/{local}"


def test_the_lock_has_what_the_files_rely_on() -> None:
    assert ray_cluster()["rayVersion"] == LOCK["ray"]
    assert {"vllm", "deepspeed", "setuptools", "ninja"} <= set(LOCK)
    # The head starts workers through the cloud's own client.
    assert {"boto3", "google-api-python-client", "google-auth-httplib2"} <= set(LOCK)
    # CUDA 13 needs driver 580: the number is in an image's name and in what is said about the others.
    assert LOCK["nvidia-cuda-runtime"].startswith("13.")
    assert "with-nvidia-580" in (ROOT / "clusters/gcp.yaml").read_text()


def test_setup_uses_the_makefiles_uv_and_a_python_that_pinch_supports() -> None:
    setup, makefile = (ROOT / "clusters/setup.sh").read_text(), (ROOT / "Makefile").read_text()
    assert re.search(r"^UV=(\S+)", setup, re.MULTILINE)[1] == re.search(r"uv==(\S+)", makefile)[1]  # type: ignore[index]
    python = re.search(r"^PYTHON=(\S+)", setup, re.MULTILINE)[1]  # type: ignore[index]
    assert f"--python-version {python}" in makefile  # what the lock was resolved for
    assert f"python{python}/site-packages" in (ROOT / "clusters/env.sh").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"] == ">=3.11,<3.13"


SECRETS = re.compile(
    r"AKIA[0-9A-Z]{12}|-----BEGIN|\bhf_\w{8}|\bsk-\w{8}|\bghp_\w{8}|\b[0-9a-f]{32,}\b|(?i:password|secret_access_key)\s*[:=]\s*\S"
)


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_holds_a_secret(path: Any) -> None:
    assert SECRETS.findall(path.read_text(encoding="utf-8")) == []
    assert SECRETS.search("token: 0123456789abcdef0123456789abcdef")  # the check sees what it should
