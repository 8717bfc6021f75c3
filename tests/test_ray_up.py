"""From `ray up` to `ray down`, on two addresses of this machine, in namespaces in which nothing else is there."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL

UNSHARE = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"]
"""Processes, mounts and network of its own; whatever is left in there ends with it."""


def _what_is_missing() -> str:
    tools = {"sshd": "openssh-server", "ssh": "openssh-client", "rsync": "rsync", "ip": "iproute2"}
    absent = [
        package for tool, package in tools.items() if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None
    ]
    if absent:
        return f"ray up needs apt-get install {' '.join(absent)}"
    if subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        return "this process may not unshare processes, mounts and network; elsewhere `ray up` would touch the machine"
    return ""


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_cluster_from_ray_up_to_ray_down_with_a_worker_lost_in_between(tmp_path: Path) -> None:
    if missing := _what_is_missing():
        pytest.skip(missing)
    (tmp_path / "sweep.yaml").write_text(SMALL)
    before = _left_by_ray()
    decoy = subprocess.Popen(["bash", "-c", "exec -a /usr/bin/raylet sleep 3000"])
    try:
        inside = subprocess.run(
            [*UNSHARE, sys.executable, str(Path(__file__).with_name("ray_up_inside.py")), str(tmp_path)],
            env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            capture_output=True,
            text=True,
            check=False,
            timeout=2300,
        )
        logs = "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(tmp_path.glob("*.log")))
        assert inside.returncode == 0, f"{inside.stderr}\n{logs}"
        assert decoy.poll() is None, "`ray stop` reached out of the namespace"
    finally:
        decoy.kill()
        decoy.wait()
    seen = json.loads((tmp_path / "result.json").read_text())
    assert seen["nodes"] == ["127.0.0.2", "127.0.0.3"]
    assert seen["killed"] > 1, "the raylet of the worker and what it ran"
    assert seen["nodes_afterwards"] == ["127.0.0.2", "127.0.0.3"], "Ray has brought the worker back"
    assert seen["status"] == 0
    assert seen["left"] == []
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == 6
    assert all(row["if_score"] for row in rows)
    assert _left_by_ray() == before


def _left_by_ray() -> set[Path]:
    """What `ray up` copies into the home of whoever it logs in as, and what it keeps of a cluster of this name."""
    return {*Path.home().glob("*ray*"), *(Path.home() / ".ssh").glob("*"), *Path("/tmp").glob("ray/cluster-in-a-*")}
