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

from tests.tiny_models import random_model

UNSHARE = [
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "--propagation", "private"),
]
"""Processes, mounts and network of its own; whatever is left in there ends with it, and it with the test."""
SWEEP = """
name: in-a-namespace
corpus: {source: cldr, languages: [en, fi], train_count: 64, dev_count: 4, eval_count: 4}
base: base
recipe: {steps: 300, batch_size: 4, max_input_tokens: 160, max_target_tokens: 80, checkpoint_every: 150}
sampling: {temperature: 0.7, top_p: 0.9, max_new_tokens: 8}
studies: [{study: monolingual, languages: [en, fi]}]
runtime: {engine: transformers}
"""


def _what_is_missing() -> str:
    tools = {
        "sshd": "openssh-server",
        "ssh": "openssh-client",
        "rsync": "rsync",
        "ip": "iproute2",
        "setpriv": "util-linux",
    }
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
    random_model(tmp_path / "base", seed=0)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    before = _what_ray_up_would_touch()
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
    assert seen["status"] == 0, logs
    assert seen["nodes_afterwards"] == ["127.0.0.2", "127.0.0.3"], "Ray has brought the worker back"
    assert "in-a-namespace" in seen["experiments"]
    tuned = [json.loads(path.read_text())["facts"] for path in (tmp_path / "store/fine_tune").glob("*/manifest.json")]
    assert len(tuned) == 2
    assert max(facts["resumed_at"] for facts in tuned) > 0, "it went on from its last state"
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == 4
    assert all(row["if_score"] for row in rows)
    assert _what_ray_up_would_touch() == before
    assert not Path("/tmp/ray", seen["session"]).exists()


def _what_ray_up_would_touch() -> dict[Path, int]:
    """Time of change of what it writes where it logs in, and of what it keeps of a cluster of this name."""
    home, kept = Path.home(), Path("/tmp/ray")
    places = [*home.glob("ray_bootstrap*"), *home.glob(".ssh/*"), *home.glob("pinch*"), *kept.glob("*in-a-namespace*")]
    places += [place for place in (home / ".ray/auth_token", home / ".pinch.env") if place.exists()]
    return {place: place.stat().st_mtime_ns for place in places}
