"""The pages of docs/cluster: every command in them exists, with its options, and sets what the token needs."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from orchestrator.cli import app
from tests.cluster_files import PAGES, ROOT, blocks, commands, page

SECTIONS = ["Once", "Start", "Submit", "Look", "Stop", "What it costs while idle"]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_start_submit_look_stop_and_cost(name: str) -> None:
    found = re.findall(r"^## (.*)$", page(name), re.MULTILINE)
    assert found == (SECTIONS if name != "kuberay.md" else ["Once", "Start and submit", *SECTIONS[3:]])
    assert PAGES[name] in page(name)
    assert not re.search(r"[$€£]\s?\d|\d\s?(USD|EUR|cents)", page(name))  # prices change; how to look them up does not


@pytest.mark.parametrize("name", PAGES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    named = re.findall(r"(?:\bclusters/[\w.-]+\w|\bcluster\.yaml)", page(name))
    assert named
    for file in named:
        assert (ROOT / file).is_file(), file


@pytest.mark.parametrize("name", PAGES)
def test_pinch_commands_of_a_page_exist(name: str) -> None:
    found = commands(name, "pinch")
    verbs = {words[0] for words in found}
    assert {"doctor", "status"} <= verbs
    if name != "kuberay.md":
        assert "submit" in verbs
    for words in found:
        _parses(typer.main.get_command(app), words)


@pytest.mark.parametrize("name", [name for name in PAGES if name != "kuberay.md"])
def test_ray_commands_of_a_page_exist(name: str) -> None:
    from ray.scripts.scripts import cli

    found = commands(name, "ray")
    assert {"up", "attach", "down"} <= {words[0] for words in found}
    for words in found:
        _parses(cli, words)


def _parses(group: Any, words: list[str]) -> None:
    """The command takes these words; it is not run."""
    verb, *rest = words
    assert verb in group.commands, f"no such command: {verb}"
    command = group.commands[verb]
    if hasattr(command, "commands"):
        _parses(command, rest)
        return
    rest = [word for word in rest if not word.startswith((">", "2>"))]
    command.make_context(verb, list(rest))


@pytest.mark.parametrize("name", [name for name in PAGES if name != "kuberay.md"])
def test_whoever_needs_the_token_has_asked_for_it(name: str) -> None:
    export = ["export", "RAY_AUTH_MODE=token"]
    needing = 0
    for block in blocks(name):
        for place, words in enumerate(block):
            words = [word for word in words if not re.fullmatch(r"RAY_UP_\w+=\S*", word)]
            if words[:2] in (["ray", "up"], ["ray", "job"], ["pinch", "submit"]):
                needing += 1
                assert export in block[:place], words
            if words[:2] == ["ray", "exec"]:
                assert ". ~/pinch/clusters/env.sh && " in words[3], words
    assert needing == 3


def test_the_index_names_every_page_and_file() -> None:
    links = re.findall(r"\]\(([^)]+)\)", page("README.md"))
    assert {*PAGES, *(f"../../{file}" for file in PAGES.values())} <= set(links)
    for link in links:
        assert (ROOT / "docs/cluster" / link).is_file(), link
