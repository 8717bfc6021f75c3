"""What `test_ray_up` runs in namespaces of its own: clusters/local.yaml on two addresses, from `ray up` to `ray down`.

`ray up` logs in by SSH, copies files into homes, and `ray down` runs `ray stop`, which ends every Ray process it can
see. So this takes the machine's place first: processes, mounts and loopback are its own, /tmp, /run, /var/log and
/dev/shm are empty, and its user's home is a folder of the test. It does nothing where it is not alone.

Usage: python ray_up_inside.py FOLDER, in FOLDER a sweep.yaml; leaves there what it saw (result.json, scores.csv, logs).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

ROOT = Path(__file__).parent.parent
HEAD, WORKER = "127.0.0.2", "127.0.0.3"
DASHBOARD = f"http://{HEAD}:8265"
MLFLOW = "http://127.0.0.1:5000"
TOKEN = "a-token-of-this-test"
IMPATIENCE = {
    "AUTOSCALER_UPDATE_INTERVAL_S": 1,
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": 10,
    "RAY_health_check_period_ms": 1000,
}
"""Ray's own settings, so that a lost worker is noticed and brought back in seconds and not in half a minute."""


def main(folder: Path) -> None:
    if os.getpid() > 10 or len(psutil.pids()) > 10:
        raise SystemExit("this is not a process namespace of its own; nothing was done")
    home = folder / "home"
    furnish(home)
    take_the_machines_place(folder, home)
    os.environ.pop("TMPDIR", None)
    os.environ.update(
        HOME=str(home),
        PATH=f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        PYTHONPATH=str(ROOT),
        RAY_AUTH_MODE="token",
        RAY_UP_enable_autoscaler_v2="0",
        RAY_USAGE_STATS_ENABLED="0",
        COLUMNS="200",
    )
    start_sshd(folder)
    config = write_config(folder)
    seen: dict[str, Any] = {}
    try:
        run(folder, "up", "ray", "up", "-y", "--no-config-cache", str(config))
        until("both nodes are there", lambda: len(alive()) == 2, 180)
        seen["nodes"] = sorted(alive())
        seen["session"] = Path("/tmp/ray/session_latest").resolve().name
        submit_and_lose_the_worker(folder, seen)
        with (folder / "scores.csv").open("wb") as file:
            subprocess.run(
                ["pinch", "scores", "sweep.yaml", "--store", str(folder / "store")], cwd=folder, stdout=file, check=True
            )
        seen["experiments"] = experiments()
    finally:
        for log in Path("/tmp/ray/session_latest/logs").glob("monitor.*"):
            (folder / f"{log.stem}-{log.suffix[1:]}.log").write_bytes(log.read_bytes())
        run(folder, "down", "ray", "down", "-y", str(config))
    until("no process of the cluster is left", lambda: not left_over(), 60)
    (folder / "result.json").write_text(json.dumps(seen))


def furnish(home: Path) -> None:
    """What a user has after docs/cluster/local.md's "Once", and a node after clusters/setup.sh, without the network."""
    for folder in (home / ".ray", home / ".local/bin", home / "pinch"):
        folder.mkdir(parents=True)
    (home / ".ray/auth_token").write_text(TOKEN)
    variables = {"PYTHONPATH": home / "pinch", "HF_HUB_OFFLINE": 1, **IMPATIENCE}
    (home / ".pinch.env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    (home / ".profile").write_text('PATH="$HOME/.local/bin:$PATH"\n')  # as Ubuntu's
    (home / "pinch/.venv").symlink_to(sys.prefix)
    for program in ("ray", "pinch"):
        (home / ".local/bin" / program).symlink_to(home / "pinch/.venv/bin" / program)


def take_the_machines_place(folder: Path, home: Path) -> None:
    """Mounts that hide what must not be touched; this and all it starts see them, nobody else does."""
    for name, line in (("passwd", f"root:x:0:0:root:{home}:/bin/bash"), ("shadow", "root:*:20000:0:99999:7:::")):
        others = [text for text in Path("/etc", name).read_text().splitlines() if not text.startswith("root:")]
        (folder / name).write_text("\n".join([line, *others, ""]))
        mount("--bind", str(folder / name), f"/etc/{name}")
    mount("--rbind", "/tmp", "/mnt")
    for empty in ("/tmp", "/run", "/var/log", "/dev/shm"):
        mount("-t", "tmpfs", "tmpfs", empty)
        Path(empty).chmod(0o1777)
    Path("/run/sshd").mkdir(mode=0o755)
    for needed in {ROOT, folder, Path(sys.prefix), Path(sys.base_prefix)}:
        if needed.is_relative_to("/tmp"):
            needed.mkdir(parents=True, exist_ok=True)
            mount("--rbind", f"/mnt/{needed.relative_to('/tmp')}", str(needed))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def start_sshd(folder: Path) -> None:
    for key in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    lines = [
        *(f"ListenAddress {address}" for address in (HEAD, WORKER)),
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'key.pub'}",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "StrictModes no",
        "UsePAM no",
        "MaxStartups 100",
        "MaxSessions 100",
    ]
    (folder / "sshd_config").write_text("\n".join([*lines, ""]))
    subprocess.run(["/usr/sbin/sshd", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")], check=True)


def write_config(folder: Path) -> Path:
    """clusters/local.yaml for these addresses, without what installs.

    As the two machines are one: without `ray stop` before the start, each node told its address and the head's ports
    left to the head.
    """
    config = yaml.safe_load((ROOT / "clusters/local.yaml").read_text())
    config["cluster_name"] = "in-a-namespace"
    config["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    config["setup_commands"] = config["worker_setup_commands"] = []
    stop, mlflow, head = config["head_start_ray_commands"]
    worker_stop, worker = config["worker_start_ray_commands"]
    assert stop == worker_stop == "~/pinch/.venv/bin/ray stop"
    both = "--object-store-memory=200000000"
    head = head.replace("--dashboard-host=127.0.0.1", f"--dashboard-host={HEAD} --node-ip-address={HEAD} {both}")
    ports = f"--node-ip-address={WORKER} --num-cpus=2 --num-gpus=0 --dashboard-agent-listen-port=52366"
    worker = worker.replace("--object-manager-port=8076", f"{ports} {both}")
    assert HEAD in head
    assert WORKER in worker
    # A /tmp/ray of its own: a node that comes back unpacks a job's working directory anew, and in one folder for both
    # it would pull it away from under the others.
    worker = f"mkdir -p /tmp/ray && unshare --mount bash -c 'mount -t tmpfs tmpfs /tmp/ray && {worker}'"
    config["head_start_ray_commands"], config["worker_start_ray_commands"] = [mlflow, head], [worker]
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def submit_and_lose_the_worker(folder: Path, seen: dict[str, Any]) -> None:
    """`pinch submit`; when the first fine-tune is under way the worker is struck, and has to be there again."""
    store = folder / "store"
    with (folder / "submit.log").open("wb") as log:
        submit = subprocess.Popen(
            ["pinch", "submit", "sweep.yaml", "--store", str(store), "--address", DASHBOARD],
            cwd=folder,
            stderr=log,
            stdout=log,
        )

    def going_on() -> bool:
        if submit.poll() is not None:
            raise SystemExit(f"pinch submit ended first: {(folder / 'submit.log').read_text()}")
        return any((store / "attempts").glob("*/state-*/state.json"))

    until("a fine-tune is under way", going_on, 600)
    seen["killed"] = kill_node(WORKER)
    until("the head has noticed", lambda: WORKER not in alive(), 120)
    seen["status"] = submit.wait(900)
    seen["nodes_afterwards"] = sorted(alive())


def kill_node(address: str) -> int:
    """SIGKILL to every process of a node, which are those that see its /tmp/ray; returns how many that were."""
    (raylet,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"--node_ip_address={address}" in (line := process.info["cmdline"] or []) and "raylet" in line[0]
    ]
    node = mounts_of(raylet)
    struck = [process for process in psutil.process_iter() if mounts_of(process) == node]
    for process in struck:
        process.kill()
    return len(struck)


def mounts_of(process: psutil.Process) -> Path | None:
    """The mount namespace that a process is in; None when it has ended."""
    try:
        return Path(f"/proc/{process.pid}/ns/mnt").readlink()
    except OSError:
        return None


def alive() -> list[str]:
    """Addresses of the nodes that the head counts as alive; from the State API: the dashboard's page lags behind."""
    answer = requests.get(f"{DASHBOARD}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    answer.raise_for_status()
    nodes = answer.json()["data"]["result"]["result"]
    return [node["node_ip"] for node in nodes if node["state"] == "ALIVE"]


def experiments() -> list[str]:
    """What the head's MLflow has heard of."""
    answer = requests.get(f"{MLFLOW}/api/2.0/mlflow/experiments/search", params={"max_results": 100}, timeout=20)
    answer.raise_for_status()
    return [experiment["name"] for experiment in answer.json()["experiments"]]


def left_over() -> list[str]:
    """Processes beside this one, the SSH connections that Ray keeps for a while, and MLflow, which is to go on."""
    found = []
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        others = process.info["name"].startswith("ssh") or "mlflow" in line
        if process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE and not others:
            found.append(line)
    return found


def until(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise SystemExit(f"in {seconds:.0f} s it did not happen that {what}; there are\n" + "\n".join(left_over()))


def run(folder: Path, name: str, *command: str) -> None:
    with (folder / f"{name}.log").open("wb") as log:
        status = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False, timeout=600).returncode
    if status:
        raise SystemExit(f"{' '.join(command)}: exit {status}\n{(folder / f'{name}.log').read_text()[-4000:]}")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
