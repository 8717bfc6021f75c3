"""cluster.yaml, its variants and their pages, read for the tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "clusters/gcp.yaml", "clusters/local.yaml")
"""For `ray up`."""
CLOUDS = FILES[:2]
KUBERAY = "clusters/kuberay.yaml"
PAGES = {"aws.md": FILES[0], "gcp.md": FILES[1], "local.md": FILES[2], "kuberay.md": KUBERAY}
EVERYTHING = [ROOT / "cluster.yaml", *sorted((ROOT / "clusters").iterdir()), *sorted((ROOT / "docs/cluster").iterdir())]


def load(name: str) -> dict[str, Any]:
    """A file for `ray up`."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def kuberay() -> dict[str, dict[str, Any]]:
    """Kind -> object."""
    return {each["kind"]: each for each in yaml.safe_load_all((ROOT / KUBERAY).read_text(encoding="utf-8"))}


def ray_cluster() -> dict[str, Any]:
    """The RayCluster that the RayJob makes."""
    return kuberay()["RayJob"]["spec"]["rayClusterSpec"]


def starts(name: str) -> list[str]:
    """Every `ray start` of a file, the head's first."""
    config = load(name)
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


def page(name: str) -> str:
    return (ROOT / "docs/cluster" / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[list[list[str]]]:
    """The page's blocks of shell, each a list of commands, each split into words."""
    found = []
    for text in re.findall(r"```sh\n(.*?)```", page(name), flags=re.DOTALL):
        lines = text.replace("\\\n", " ").splitlines()
        found.append([shlex.split(line, comments=True) for line in lines if line.strip()])
    return found


def commands(name: str, program: str) -> list[list[str]]:
    """What a page has one run with ``program``, as arguments; inside `ray exec` and `kubectl exec` too."""
    found = []
    for block in blocks(name):
        for words in block:
            for text in [" ".join(map(shlex.quote, words)), *(word for word in words if " " in word)]:
                for part in re.split(r"&&|;|\(|\)", text) if " " in text else [text]:
                    try:
                        inner = shlex.split(part)
                    except ValueError:
                        continue
                    while inner and re.fullmatch(r"\w+=\S*", inner[0]):
                        inner = inner[1:]
                    if "--" in inner and inner[0] == "kubectl":
                        inner = inner[inner.index("--") + 1 :]
                    if inner[:1] == [program]:
                        found.append(inner[1:])
    return found
