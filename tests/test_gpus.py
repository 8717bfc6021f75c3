"""How many GPUs a fine-tune and an engine take: as the sweep says, or the fewest that hold the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.run.gpus import gpus_of_engine, gpus_of_lane
from orchestrator.run.growth import gpus_may_come
from orchestrator.sweep import Sweep, load
from trainables.errors import EnvironmentProblem
from trainables.model_shape import ModelShape

GB = 1e9
QWEN = ModelShape(
    parameters=7_615_616_512,
    hidden=3584,
    layers=28,
    vocabulary=152_064,
    feed_forward=18_944,
    gated=True,
    norms=2,
    heads=28,
    queries=3584,
    keys=512,
    matrices=(("embed_tokens", 152_064, 3584),),
)
"""Qwen2.5-7B, by its published configuration."""
SMALL = dataclasses.replace(QWEN, parameters=135_000_000, hidden=576, layers=30, feed_forward=1536, heads=9)


def paper(*changes: str) -> Sweep:
    return load("paper", list(changes)).sweep


def nodes(count: int, gpus: int) -> dict[str, int]:
    return {f"node-{at}": gpus for at in range(count)}


def test_a_fine_tune_takes_what_the_sweep_says() -> None:
    sweep = paper("runtime.gpus_per_fine_tune=3")
    assert gpus_of_lane(sweep, QWEN, (80 * GB, 900 * GB), nodes(2, 8), 56) == 3
    with pytest.raises(EnvironmentProblem, match=r"gpus_per_fine_tune: 3 .* has 2"):
        gpus_of_lane(sweep, QWEN, (80 * GB, 900 * GB), nodes(1, 2), 56)


def test_left_to_itself_it_takes_the_fewest_that_hold_it() -> None:
    for gigabytes, gpus in ((141, 2), (80, 4), (48, 4), (24, 8)):
        assert gpus_of_lane(paper(), QWEN, (gigabytes * GB, 900 * GB), nodes(8, 8), 56) == gpus
    assert gpus_of_lane(paper(), SMALL, (24 * GB, 200 * GB), nodes(8, 8), 56) == 1
    assert gpus_of_lane(paper(), None, None, nodes(1, 8), 56) == 1, "nobody knows, so nothing is presumed"


def test_it_moves_to_main_memory_only_where_no_number_of_gpus_holds_it() -> None:
    assert gpus_of_lane(paper(), QWEN, (24 * GB, 900 * GB), nodes(1, 8), 56) == 8
    assert gpus_of_lane(paper(), QWEN, (24 * GB, 900 * GB), nodes(1, 4), 56) == 1, "its optimizer is in main memory"
    assert gpus_of_lane(paper("runtime.offload=false"), QWEN, (24 * GB, 900 * GB), nodes(1, 4), 56) == 4, "no way"


def test_gpus_to_spare_go_to_the_fine_tunes_there_are() -> None:
    memory = (80 * GB, 900 * GB)
    assert gpus_of_lane(paper(), SMALL, memory, nodes(1, 8), 3) == 2
    assert gpus_of_lane(paper(), SMALL, memory, nodes(2, 8), 1) == 8, "up to a node's"
    assert gpus_of_lane(paper(), SMALL, memory, nodes(1, 8), 5) == 1


def test_an_engine_takes_the_fewest_gpus_of_one_node_that_hold_its_weights() -> None:
    def auto(shape: ModelShape | None, memory: float, gpus: int) -> int:
        return gpus_of_engine("auto", "gpus_per_engine", shape, (memory * GB, 1.0), nodes(2, gpus))

    assert auto(QWEN, 80, 8) == 1
    assert auto(QWEN, 16, 8) == 2
    assert auto(dataclasses.replace(QWEN, parameters=72_000_000_000, heads=64), 80, 8) == 4
    assert auto(None, 80, 8) == 1
    assert gpus_of_engine(2, "gpus_per_engine", QWEN, (80 * GB, 1.0), nodes(2, 8)) == 2
    with pytest.raises(EnvironmentProblem, match=r"gpus_per_engine: 2 GPUs in one node are needed .* has 1"):
        auto(QWEN, 16, 1)
    with pytest.raises(EnvironmentProblem, match=r"gpus_per_judge: 4 GPUs in one node are asked for.* has 2"):
        gpus_of_engine(4, "gpus_per_judge", None, None, nodes(9, 2))


def test_a_head_knows_whether_machines_with_gpus_can_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    assert not gpus_may_come(file)
    head = "available_node_types:\n  head: {resources: {CPU: 4, GPU: 0}, max_workers: 0}\n"
    file.write_text(head)
    assert not gpus_may_come(file)
    file.write_text(head + "  worker: {resources: {CPU: 32, GPU: 4}, min_workers: 0, max_workers: 8}\n")
    assert gpus_may_come(file)
    file.write_text("[")
    assert not gpus_may_come(file)
    monkeypatch.setenv("PINCH_CLUSTER_GROWS", "1")
    assert gpus_may_come(file)
