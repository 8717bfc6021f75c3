"""Rules of fetching: the pinned files of the hub and nothing else, once; and what is said when they cannot be had."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.corpus.hub_data import PUBLIC
from tests.hub_examples import ENGLISH, Row, gair, prompts, tree
from tests.hub_server import Hub


def _parquet(rows: list[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


FILES = {
    "GAIR/lima": {"train.jsonl": "".join(json.dumps(row) + "\n" for row in gair()).encode(), "lima.py": b"raise"},
    "OpenAssistant/oasst1": {
        "data/train-00000.parquet": _parquet([*tree("b"), *tree("c")]),
        "data/validation-00000.parquet": _parquet(tree("a")),
    },
    "tatsu-lab/alpaca_farm": {
        "alpaca_farm_evaluation.json": json.dumps(prompts()).encode(),
        "alpaca_farm.py": b"raise",
    },
}

SHOW = """
import json
from orchestrator.corpus.hub_data import Source
print(json.dumps([Source(name).examples for name in ("lima", "oasst1", "alpacafarm")]))
"""


def _client(tmp_path: Path, hub: str | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """A process that knows no hub but ``hub``, and none at all for None."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(Path(__file__).parent.parent)}
    environment |= {"HF_ENDPOINT": hub} if hub else {"HF_HUB_OFFLINE": "1"}
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_hubs_files_are_read_at_the_pinned_commit_and_once(tmp_path: Path) -> None:
    with Hub(FILES) as hub:
        fetched = _client(tmp_path, hub.url, "-c", SHOW)
        for data in PUBLIC.values():
            assert all(data.revision in path for path in hub.asked if data.repository in path)
        assert not [path for path in hub.asked if path.endswith(".py")]
    found = json.loads(fetched.stdout)
    assert found[0][0] == ["lima-0000", "q0", "a0"]
    assert found[1] == [[f"oasst1-000{at}", f"text {key}", f"text {key}1"] for at, key in enumerate("abc")]
    assert [row[1] for row in found[2]] == ["do 0", "do 1", "do 3", "do 4"]
    assert json.loads(_client(tmp_path, None, "-c", SHOW).stdout) == found, "what was fetched needs no network again"


@pytest.mark.parametrize(
    ("trouble", "status", "words"),
    [
        (
            {"gated": ("GAIR/lima",)},
            2,
            ["GAIR/lima is gated", "datasets/GAIR/lima", "hf auth login", "corpus.copies.lima"],
        ),
        ({"missing": ("GAIR/lima",)}, 2, ["GAIR/lima", "68958e98267f", "corpus.copies.lima"]),
        (None, 3, ["GAIR/lima", "connect", "corpus.copies.lima"]),
        ({}, 2, ["corpus.train_count: 9 is more than the 5 pairs of lima; lower it to 5."]),
    ],
    ids=["gated", "no such commit", "no network", "fewer than the plan counted on"],
)
def test_what_cannot_be_fetched_is_said_before_a_run_starts(
    trouble: dict[str, Any] | None, status: int, words: list[str], tmp_path: Path
) -> None:
    english = tmp_path / "english.yaml"
    english.write_text(ENGLISH)
    sweep = ["--set", "corpus.train_count=9"]
    with Hub(FILES, **(trouble or {})) as hub:
        command = ["-m", "orchestrator.cli", "run", english, *sweep, "--store", tmp_path / "store"]
        done = _client(tmp_path, hub.url if trouble is not None else None, *command)
    assert done.returncode == status, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (tmp_path / "store").exists()


def test_planning_the_papers_sweep_asks_no_hub(tmp_path: Path) -> None:
    with Hub({}) as hub:
        done = _client(tmp_path, hub.url, "-m", "orchestrator.cli", "plan", "paper", "--json")
        assert [path for path in hub.asked if "datasets" in path] == []
    assert json.loads(done.stdout)["judge_calls"] == 693508
