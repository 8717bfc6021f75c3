"""What `test_ray_up` runs in namespaces of its own: a cluster of two addresses from `ray up` to `ray down`.

`ray up` logs in by SSH, copies files into homes, and `ray down` runs `ray stop`, which ends every Ray process it can
see. So this takes the machine's place first: processes, mounts and loopback are its own, /tmp, /run and /var/log are
empty, and its user's home is a folder of the test. It does nothing where it is not alone.

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

import psutil
import requests
import yaml

ROOT = Path(__file__).parent.parent
HEAD, WORKER = "127.0.0.2", "127.0.0.3"
DASHBOARD = f"http://{HEAD}:8265"
TOKEN = "a-token-of-this-test"


def main(folder: Path) -> None:
    if os.getpid() > 10 or len(psutil.pids()) > 10:
        raise SystemExit("this is not a process namespace of its own; nothing was done")
    take_the_machines_place(folder)
    home = folder / "home"
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
    seen: dict[str, object] = {}
    try:
        run(folder, "up", "ray", "up", "-y", "--no-config-cache", str(config))
        until("both nodes are there", lambda: len(alive()) == 2, 180)
        seen["nodes"] = sorted(alive())
        submit_and_lose_the_worker(folder, seen)
        with (folder / "scores.csv").open("wb") as file:
            subprocess.run(
                ["pinch", "scores", "sweep.yaml", "--store", str(folder / "store")], cwd=folder, stdout=file, check=True
            )
    finally:
        for log in Path("/tmp/ray/session_latest/logs").glob("monitor.*"):
            (folder / f"{log.stem}-{log.suffix[1:]}.log").write_bytes(log.read_bytes())
        run(folder, "down", "ray", "down", "-y", str(config))
        until("no Ray process is left", lambda: not ray_processes(), 60)
    seen["left"] = ray_processes()
    (folder / "result.json").write_text(json.dumps(seen))


def take_the_machines_place(folder: Path) -> None:
    """Mounts that hide what must not be touched; this and all it starts see them, nobody else does."""
    home = folder / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(TOKEN)
    (home / ".bashrc").write_text(
        f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT} RAY_AUTH_MODE=token HF_HUB_OFFLINE=1 "
        "RAY_USAGE_STATS_ENABLED=0\n"
    )
    for name, line in (("passwd", f"root:x:0:0:root:{home}:/bin/bash"), ("shadow", "root:*:20000:0:99999:7:::")):
        others = [text for text in Path("/etc", name).read_text().splitlines() if not text.startswith("root:")]
        (folder / name).write_text("\n".join([line, *others, ""]))
        mount("--bind", str(folder / name), f"/etc/{name}")
    mount("--rbind", "/tmp", "/mnt")
    for empty in ("/tmp", "/run", "/var/log"):
        mount("-t", "tmpfs", "tmpfs", empty)
    Path("/tmp").chmod(0o1777)
    Path("/run/sshd").mkdir()
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
    """A head that runs no work and one worker, which are one machine.

    So their start commands have no `ray stop`, and each has a /tmp/ray of its own: a node that comes back unpacks a
    job's working directory anew, and in one shared folder it would pull it away from under the others.
    """
    common = "--object-store-memory=200000000 --num-gpus=0 --disable-usage-stats"
    config = {
        "cluster_name": "in-a-namespace",
        "provider": {"type": "local", "head_ip": HEAD, "worker_ips": [WORKER]},
        "auth": {"ssh_user": "root", "ssh_private_key": str(folder / "key")},
        "head_start_ray_commands": [
            f"ray start --head --port=6379 --node-ip-address={HEAD} --dashboard-host={HEAD} --num-cpus=0 {common} "
            "--autoscaling-config=~/ray_bootstrap_config.yaml"
        ],
        "worker_start_ray_commands": [
            "mkdir -p /tmp/ray && unshare --mount sh -c 'mount -t tmpfs tmpfs /tmp/ray && "
            f"ray start --address={HEAD}:6379 --node-ip-address={WORKER} --num-cpus=2 {common}'"
        ],
    }
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def submit_and_lose_the_worker(folder: Path, seen: dict[str, object]) -> None:
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
        return any((store / "attempts").glob("*/checkpoint-*"))

    until("a fine-tune is under way", going_on, 600)
    seen["killed"] = kill_node(WORKER)
    until("the head has noticed", lambda: WORKER not in alive(), 120)
    seen["status"] = submit.wait(900)
    seen["nodes_afterwards"] = sorted(alive())


def kill_node(address: str) -> int:
    """SIGKILL to a node's raylet and all of its workers; returns how many processes that were."""
    raylets = [
        process
        for process in psutil.process_iter(["cmdline"])
        if f"--node_ip_address={address}" in (process.info["cmdline"] or []) and "raylet" in process.info["cmdline"][0]
    ]
    struck = [process for raylet in raylets for process in (raylet, *raylet.children(recursive=True))]
    for process in struck:
        process.kill()
    return len(struck)


def alive() -> list[str]:
    """Addresses of the nodes that the head counts as alive; from the State API: the dashboard's page lags behind."""
    answer = requests.get(f"{DASHBOARD}/api/v0/nodes", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20)
    answer.raise_for_status()
    nodes = answer.json()["data"]["result"]["result"]
    return [node["node_ip"] for node in nodes if node["state"] == "ALIVE"]


def ray_processes() -> list[str]:
    found = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
    return [" ".join(line)[:200] for line in found if "raylet" in line[0] or "gcs_server" in line[0]]


def until(what: str, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise SystemExit(f"in {seconds:.0f} s it did not happen that {what}")


def run(folder: Path, name: str, *command: str) -> None:
    with (folder / f"{name}.log").open("wb") as log:
        status = subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=False, timeout=600).returncode
    if status:
        raise SystemExit(f"{' '.join(command)}: exit {status}\n{(folder / f'{name}.log').read_text()[-4000:]}")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
