"""One small sweep, run for real: Ray, Tune, a lane, DeepSpeed, vLLM, MLflow; then what its store is asked."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.keeping import Keeper
from orchestrator.plan import Plan
from orchestrator.store import Store
from orchestrator.sweep import LoadedSweep, Sweep, load
from tests.conftest import SMALL, Pinch

SWEEP = SMALL.replace("runtime: {engine: transformers}", "runtime: {engine: vllm}")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(sweep file, store, what was said) of a finished run."""
    import os
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(SWEEP)
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", "run", "small.yaml", "--store", "store"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-6000:]
    return folder / "small.yaml", folder / "store", ran.stderr


def test_a_run_makes_everything_and_says_where_to_look(done: tuple[Path, Path, str], pinch: Pinch) -> None:
    sweep, store, said = done
    assert "3 fine_tune, 3 selection, 6 generation_set, 4 comparison" in _sorted(said)
    assert "Scores: 6 of 6, by judge reference-chrf, base tiny." in said
    assert "Look: pinch scores" in said
    assert said.count("Engine ready") == 1, "vLLM is started once, not once per model"
    assert "engine vllm" in said
    assert json.loads(pinch("status", sweep, "--store", store, "--json").stdout)["steps"] == []
    assert "Everything is done." in pinch("status", sweep, "--store", store).stderr


def _sorted(said: str) -> str:
    """The counts of the summary line, in the order of the kinds."""
    line = next(line for line in said.splitlines() if line.startswith("small: "))
    parts = line.removeprefix("small: ").split(", in ")[0].split(", ")
    kinds = ("corpus", "base", "fine_tune", "selection", "generation_set", "comparison")
    return ", ".join(sorted(parts, key=lambda part: kinds.index(part.split()[1])))


def test_a_second_run_does_nothing(done: tuple[Path, Path, str], pinch: Pinch) -> None:
    sweep, store, _ = done
    before = sorted(str(path) for path in store.glob("*/*/*"))
    again = pinch("run", sweep, "--store", store)
    assert "nothing was missing" in again.stderr
    assert sorted(str(path) for path in store.glob("*/*/*")) == before
    plan = json.loads(pinch("plan", sweep, "--store", store, "--json").stdout)
    assert {step["action"] for step in plan["steps"]} == {"reuse"}


def test_scores_are_complete_with_their_intervals_and_a_diagonal_of_fifty(
    done: tuple[Path, Path, str], pinch: Pinch
) -> None:
    sweep, store, _ = done
    rows = list(csv.DictReader(io.StringIO(pinch("scores", sweep, "--store", store).stdout)))
    assert len(rows) == 6
    for row in rows:
        score = float(row["if_score"])
        assert 0 <= score <= 100
        assert row["judge"] == "reference-chrf"
        if row["model"] == f"mono-{row['eval_language']}":
            assert score == 50
            assert row["n"] == "0"
            assert row["ci_low"] == ""
        else:
            assert float(row["ci_low"]) <= score <= float(row["ci_high"])
            assert int(row["wins"]) + int(row["ties"]) + int(row["losses"]) == int(row["n"]) == 6


def test_every_verdict_is_stored_in_both_orders(done: tuple[Path, Path, str]) -> None:
    _, store, _ = done
    files = list(store.glob("comparison/*/verdicts.parquet"))
    assert len(files) == 4
    for file in files:
        rows = pq.read_table(file).to_pylist()
        assert set(rows[0]) == {"instruction_id", "order", "choice", "raw", "seconds"}
        assert len({(row["instruction_id"], row["order"]) for row in rows}) == len(rows) == 12
        assert {row["choice"] for row in rows} <= {1, 2, None}


def test_the_dev_examples_of_a_fine_tune_were_not_trained_on(done: tuple[Path, Path, str]) -> None:
    sweep, store, _ = done
    plan = Plan(load(str(sweep)))
    for file in store.glob("fine_tune/*/mixture.parquet"):
        rows = pq.read_table(file).to_pylist()
        assert len(rows) == 64
        assert {row["id"] for row in rows if row["dev"]} == plan.dev
    assert not list(store.glob("fine_tune/*/examples.parquet"))
    manifest = json.loads(next(store.glob("fine_tune/*/manifest.json")).read_text())
    assert manifest["facts"]["examples"] == 60


def test_the_best_checkpoint_by_dev_rouge_l_is_the_one_selected(done: tuple[Path, Path, str]) -> None:
    _, store, _ = done
    for file in store.glob("selection/*/scores.json"):
        content = json.loads(file.read_text())
        assert [row["step"] for row in content["scores"]] == [4, 8]
        best = max(content["scores"], key=lambda row: (row["rouge_l"], -row["step"]))
        assert content["selected"] == best["step"]


def test_more_prompts_generate_and_judge_only_the_new_ones(done: tuple[Path, Path, str], pinch: Pinch) -> None:
    sweep, store, _ = done
    more = ["--store", store, "--set", "corpus.eval_count=8", "--set", "studies.1.percents=[]"]
    more += ["--set", "studies.1={study: monolingual, name: again, languages: [en, fi]}"]
    reasons = json.loads(pinch("plan", sweep, *more, "--json").stdout)["steps"]
    new = [step for step in reasons if step["action"] == "run"]
    assert {step["kind"] for step in new} == {"generation_set", "comparison"}
    assert all("prompts 6 -> 8" in step["reason"] for step in new if step["kind"] == "generation_set")
    pinch("run", sweep, *more)
    opened = Store(store)
    for entry in opened.entries("generation_set").values():
        if entry.manifest["payload"]["prompts"] == 8:
            assert entry.facts["taken_over"] == 6
            small = [other for other in opened.relatives(_step(entry)) if other.key != entry.key]
            texts = [
                pq.read_table(store / e.place / "responses.parquet")["text"].to_pylist() for e in (small[0], entry)
            ]
            assert texts[1][:6] == texts[0]


def _step(entry: object) -> object:
    class Family:
        kind = "generation_set"
        family = entry.manifest["family"]  # type: ignore[attr-defined]

    return Family()


def test_mlflow_has_one_run_per_model_with_every_score(done: tuple[Path, Path, str]) -> None:
    from mlflow import MlflowClient

    _, store, _ = done
    client = MlflowClient(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    models = {run.info.run_name: run for run in runs if run.data.tags.get("pinch.kind") == "model"}
    assert set(models) == {"mono-en", "mono-fi", "pinch-2-p50"}
    assert sum(run.data.tags.get("pinch.kind") == "sweep" for run in runs) == 1
    for run in models.values():
        assert {"if_score.en", "if_score.fi", "if_avg.all"} <= set(run.data.metrics)
        assert "loss" in run.data.metrics


def test_the_report_opens_from_disk_and_names_judge_and_base(
    done: tuple[Path, Path, str], pinch: Pinch, tmp_path: Path
) -> None:
    sweep, store, _ = done
    pinch("report", sweep, "--store", store, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "small-report.html").read_text()
    assert "reference-chrf" in page
    assert "tiny" in page
    assert "http-equiv" in page.lower()
    assert list((tmp_path / "report").glob("*.png"))
    assert list((tmp_path / "report").glob("*.pdf"))


def test_a_store_that_holds_verifies(done: tuple[Path, Path, str], pinch: Pinch) -> None:
    assert "0 did not" in pinch("verify", "--store", done[1]).stderr


def test_gc_frees_what_the_keep_rule_allows_and_scores_stay(done: tuple[Path, Path, str], pinch: Pinch) -> None:
    sweep, store, _ = done
    assert "0 B would be freed" in pinch("gc", "--store", store, "--dry-run").stderr
    before = pinch("scores", sweep, "--store", store).stdout
    for path in (store / "sweeps").glob("*.json"):  # each that was run there is run again by another rule
        asked = json.loads(path.read_text())
        asked["runtime"]["keep"] = "best"
        plan = Plan(LoadedSweep(Sweep.model_validate(asked), str(path), ()))
        Keeper(plan, Store(store), lambda sentence: None).remember()
    dry = pinch("gc", "--store", store, "--dry-run").stderr
    assert "checkpoint-" in dry
    assert len(list(store.glob("fine_tune/*/checkpoint-*"))) == 6
    pinch("gc", "--store", store)
    assert len(list(store.glob("fine_tune/*/checkpoint-*"))) == 3
    assert pinch("scores", sweep, "--store", store).stdout == before
    assert "0 did not" in pinch("verify", "--store", store).stderr
