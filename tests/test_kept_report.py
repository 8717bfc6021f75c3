"""What a run tells of its results when it ends: the report that MLflow gets, the responses beside a score, the cost."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.kept_report import kept_report
from orchestrator.people.side_by_side import TABLE, Chosen, as_table
from orchestrator.plan import Plan
from orchestrator.scores.score_table import ScoreTable
from orchestrator.spent import human_time, spent
from orchestrator.store import Store
from tests.conftest import SMALL
from tests.page_example import finished_store


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    folder = tmp_path_factory.mktemp("kept")
    (folder / "small.yaml").write_text(SMALL)
    return finished_store(folder / "small.yaml", folder / "store")


def test_a_report_is_drawn_again_only_when_something_changed(done: tuple[Plan, Store]) -> None:
    plan, store = done
    first = kept_report(plan, store)
    page = first.files[0]
    drawn = page.stat().st_mtime_ns
    assert kept_report(plan, store) == first
    assert page.stat().st_mtime_ns == drawn
    store.record_failure(plan.of_kind("comparison")[0], "gone")
    try:
        kept_report(plan, store)
        assert page.stat().st_mtime_ns != drawn
    finally:
        store.forget_failure(plan.of_kind("comparison")[0].key)


def test_a_report_that_lost_a_file_is_drawn_again(done: tuple[Plan, Store]) -> None:
    lost = kept_report(*done).files[-1]
    lost.unlink()
    assert lost in kept_report(*done).files
    assert lost.is_file()


def test_the_responses_shown_are_chosen_by_the_same_rule_every_time(done: tuple[Plan, Store]) -> None:
    plan, store = done
    samples, again = (Chosen(plan, store, ScoreTable(plan, store)).samples(plan.cells) for _ in range(2))
    assert samples == again
    by_comparison: dict[tuple[str, str], list[str]] = {}
    for sample in samples:
        by_comparison.setdefault((sample.model, sample.language), []).append(sample.instruction_id)
    assert len(by_comparison) == len(plan.of_kind("comparison"))
    assert len({ids[0] for ids in by_comparison.values()}) == 1, "the first is the same instruction everywhere"
    assert all(len(set(ids)) == len(ids) <= 2 for ids in by_comparison.values())
    table = as_table(samples)
    assert table["columns"] == list(TABLE)
    assert json.loads(json.dumps(table)) == table


def test_what_results_took_is_added_up_from_their_manifests(done: tuple[Plan, Store]) -> None:
    plan, store = done
    told = dict(spent(plan, store))
    tuned = len(plan.of_kind("fine_tune"))
    assert told["Fine-tuning"] == f"{human_time(15 * tuned)}, {tuned} models, 9,000 tokens a second (median)"
    verdicts = sum(
        pq.read_metadata(store.root / entry.place / "verdicts.parquet").num_rows
        for entry in store.entries("comparison").values()
    )
    assert told["Judging"].endswith(f"{verdicts:,} verdicts")


def test_nothing_was_spent_on_a_store_that_is_empty(done: tuple[Plan, Store], tmp_path: Path) -> None:
    assert spent(done[0], Store(tmp_path / "empty")) == []


@pytest.mark.parametrize(
    ("seconds", "said"), [(48, "48 s"), (89.6, "90 s"), (700, "12 min"), (5400, "1 h 30 min"), (12000, "3 h 20 min")]
)
def test_time_is_told_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert human_time(seconds) == said
