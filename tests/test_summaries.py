"""What a sweep says of its mixtures, and two sweeps of each other, on stores whose verdicts are made by rule."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.plan import Plan
from orchestrator.scores import summaries
from orchestrator.scores.comparing import compare
from orchestrator.scores.score_table import ScoreTable
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import Pinch
from tests.page_example import finished_store

SWEEP = """
name: summaries
corpus: {source: cldr, languages: [en, es, fi], train_count: 120, dev_count: 4, eval_count: 20}
recipe: {steps: 8, batch_size: 8, checkpoint_every: 4}
seeds: {train: [0, 1]}
studies:
  - {study: monolingual, languages: [en, es, fi]}
  - {study: pinch, languages: [en, fi], evaluate_in: [en, es, fi], percents: [0, 50, 100], counts: [40]}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ScoreTable]:
    folder = tmp_path_factory.mktemp("summaries")
    (folder / "sweep.yaml").write_text(SWEEP)
    return folder, ScoreTable(*finished_store(folder / "sweep.yaml", folder / "store"))


def test_an_average_is_the_plain_mean_of_the_score_table_over_languages_and_seeds(
    done: tuple[Path, ScoreTable],
) -> None:
    table = done[1].frame()
    for row in summaries.averages(done[1]).itertuples():
        of_study = table[table["study"] == row.study]
        mine = of_study[of_study["model"].isin([f"{row.model}-s0", f"{row.model}-s1"])]
        groups = {
            "all": mine,
            "seen": mine[mine["seen"] & (mine["eval_language"] != "en")],
            "unseen": mine[~mine["seen"]],
            "non_english": mine[mine["eval_language"] != "en"],
        }
        assert row.average == pytest.approx(groups[row.group]["if_score"].mean())
        assert row.languages * row.seeds == len(groups[row.group])
        assert row.seeds == 2
        if not np.isnan(row.ci_low):
            assert row.ci_low <= row.average <= row.ci_high


def test_a_group_without_a_language_has_no_line(done: tuple[Path, ScoreTable]) -> None:
    found = summaries.averages(done[1])
    of_english = found[(found["study"] == "monolingual") & (found["model"] == "mono-en")]
    assert "seen" not in set(of_english["group"])


def test_every_level_is_held_against_english_only_and_against_uniform(done: tuple[Path, ScoreTable]) -> None:
    found = summaries.differences(done[1])
    assert set(found["study"]) == {"pinch-2"}
    assert set(zip(found["model"], found["against"], strict=True)) == {
        (model, against)
        for model in ("pinch-2-p0", "pinch-2-n40", "pinch-2-p50", "pinch-2-p100")
        for against in ("pinch-2-p0", "pinch-2-p100")
        if model != against
    }
    averages = summaries.averages(done[1]).set_index(["study", "model", "group"])["average"]
    for row in found.itertuples():
        expected = averages[row.study, row.model, row.group] - averages[row.study, row.against, row.group]
        assert row.difference == pytest.approx(expected)


def test_a_difference_is_told_in_a_sentence(done: tuple[Path, ScoreTable]) -> None:
    found = summaries.differences(done[1])
    sentences = summaries.difference_sentences(done[1].plan, found)
    at = next(
        at
        for at, row in enumerate(found.itertuples())
        if (row.model, row.against, row.group) == ("pinch-2-n40", "pinch-2-p0", "unseen")
    )
    row = found.iloc[at]
    assert sentences[at] == (
        f"40 examples against English only: {row.difference:+.1f} [{row.ci_low:.1f}, {row.ci_high:.1f}] "
        "on unseen languages"
    )


def test_what_is_not_judged_yet_has_no_average_and_the_diagonal_alone_has_no_interval(
    tmp_path: Path, done: tuple[Path, ScoreTable]
) -> None:
    plan, store = Plan(load(str(done[0] / "sweep.yaml"))), Store(tmp_path / "empty")
    found = summaries.averages(ScoreTable(plan, store))
    assert len(found) == len(summaries.averages(done[1]))
    # mono-es is seen in Spanish, mono-fi in Finnish: nothing but the diagonal, 50 by definition
    diagonal = found[(found["study"] == "monolingual") & (found["group"] == "seen")]
    assert set(diagonal["average"]) == {50.0}
    assert diagonal["ci_low"].isna().all()
    assert found.drop(diagonal.index)["average"].isna().all()


def test_a_sweep_compared_with_itself_differs_in_nothing(done: tuple[Path, ScoreTable]) -> None:
    found = compare(done[1], done[1])
    assert len(found.rows) == len(done[1].plan.cells)
    assert {row["difference"] for row in found.rows} == {0.0}
    assert found.same == found.judged
    assert found.overall.value == 0
    assert "cannot differ" in " ".join(found.sentences())


def test_differences_of_two_sweeps_are_those_of_their_scores(pinch: Pinch, done: tuple[Path, ScoreTable]) -> None:
    folder, table = done
    plan, store = Plan(load(str(folder / "sweep.yaml"), ["recipe.steps=4"])), Store(folder / "other")
    other = folder / "other.yaml"
    other.write_text(SWEEP.replace("steps: 8", "steps: 4"))
    plan, store = finished_store(other, folder / "other")
    printed = pinch("compare", folder / "sweep.yaml", other, "--store", folder / "store", "--store-b", store.root)
    rows = pd.read_csv(io.StringIO(printed.stdout))
    a = table.frame().set_index(["study", "model", "eval_language"])["if_score"]
    b = ScoreTable(plan, store).frame().set_index(["study", "model", "eval_language"])["if_score"]
    assert len(rows) == len(a)
    for row in rows.itertuples():
        name = (row.study, row.model, row.eval_language)
        assert row.difference == pytest.approx(b[name] - a[name])
        if row.n:
            assert row.ci_low <= row.difference <= row.ci_high
    assert "each score is against another baseline" in printed.stderr


def test_sweeps_without_a_cell_in_common_are_refused(pinch: Pinch, done: tuple[Path, ScoreTable]) -> None:
    other = done[0] / "apart.yaml"
    other.write_text(
        "name: apart\ncorpus: {source: cldr, languages: [cs, sk], train_count: 64, dev_count: 4, eval_count: 6}\n"
        "studies:\n  - {study: monolingual, name: slavic, languages: [cs, sk]}\n"
    )
    said = pinch("compare", done[0] / "sweep.yaml", other, "--store", done[0] / "store", check=2).stderr
    assert "no cell of one" in said
