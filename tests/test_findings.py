"""Findings: held only where the interval says so, and never told from what is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from orchestrator.report.findings import Finding, findings
from tests import paper_example as paper
from tests import report_example as example

BEST, LOWEST, SEEN_12, SEEN_6, UNSEEN, UNIFORM, RISES, ALMOST, SATURATES = range(9)


def _tell(table: pd.DataFrame, half: float = 1.4, paired: float = 0.8) -> list[Finding]:
    averages = paper.averages(table, half)
    return findings(table, paper.STUDIES, averages=averages, differences=paper.differences(averages, paired))


def _with(changes: dict[str, float], study: str) -> pd.DataFrame:
    """The paper's grid with all scores of some models of a study set; the diagonal too, for plain averages."""
    table = paper.score_table()
    for model, value in changes.items():
        place = (table["study"] == study) & (table["model"] == model)
        assert place.any()
        table.loc[place, ["if_score", "ci_low", "ci_high"]] = [value, value - 2, value + 2]
    return table


def test_the_papers_findings_hold_on_numbers_like_the_papers() -> None:
    found = _tell(paper.score_table(), half=0.3)
    assert [one.verdict for one in found] == ["held"] * 9


def test_wide_intervals_tell_nothing() -> None:
    table = paper.score_table()
    table["ci_low"], table["ci_high"] = table["if_score"] - 30, table["if_score"] + 30
    found = _tell(table, half=30, paired=30)
    assert {one.verdict for one in found} == {"cannot be told"}


def test_without_intervals_the_numbers_decide_and_it_is_said() -> None:
    table = paper.score_table()
    table[["ci_low", "ci_high"]] = None
    found = findings(table, paper.STUDIES)
    assert [one.verdict for one in found] == ["held"] * 9
    assert all("no interval" in one.here for place, one in enumerate(found) if place != UNIFORM)


@pytest.mark.parametrize(("hindi", "verdict"), [(20.0, "held"), (34.3, "cannot be told"), (45.0, "not held")])
def test_hindi_is_the_lowest_only_where_the_interval_says_so(hindi: float, verdict: str) -> None:
    found = _tell(_with({"mono-hi": hindi, "mono-zh": 35}, "monolingual"))
    assert found[LOWEST].verdict == verdict


@pytest.mark.parametrize(("czech", "verdict"), [(30.0, "held"), (43.0, "cannot be told"), (60.0, "not held")])
def test_the_best_three_have_to_be_better_than_every_other(czech: float, verdict: str) -> None:
    ours = {"mono-en": 50.0, "mono-it": 46.0, "mono-es": 44.0, "mono-ru": 38.0, "mono-cs": czech}
    assert _tell(_with(ours, "monolingual"))[BEST].verdict == verdict


def test_a_paired_difference_tells_what_two_averages_do_not() -> None:
    table = _with({"pinch-12-n40": 51.0, "pinch-12-p0": 49.0}, "pinch-12")
    assert _tell(table, half=5, paired=0.5)[SEEN_12].verdict == "held"
    assert findings(table, paper.STUDIES, averages=paper.averages(table, 5))[SEEN_12].verdict == "cannot be told"


def test_seen_and_unseen_are_told_apart() -> None:
    table = paper.score_table()
    place = (table["study"] == "pinch-6") & (table["model"] == "pinch-6-n40") & ~table["seen"].astype(bool)
    table.loc[place, "if_score"] = 20.0
    found = _tell(table)
    assert (found[SEEN_6].verdict, found[UNSEEN].verdict) == ("held", "not held")


@pytest.mark.parametrize(
    ("above", "below", "verdict"),
    [(8, 4, "held"), (7, 5, "not held"), (7, 4, "cannot be told"), (2, 4, "cannot be told"), (12, 0, "held")],
)
def test_the_uniform_mixture_is_counted_language_by_language(above: int, below: int, verdict: str) -> None:
    table = paper.score_table()
    place = table.index[(table["study"] == "pinch-12") & (table["model"] == "pinch-12-p100")]
    values = np.array([55.0] * above + [50.5] * (12 - above - below) + [45.0] * below)
    table.loc[place, "if_score"], table.loc[place, "ci_low"], table.loc[place, "ci_high"] = (
        values,
        values - 3,
        values + 3,
    )
    found = _tell(table)[UNIFORM]
    assert found.verdict == verdict
    assert f"50 or more in {12 - below} of 12" in found.here
    assert len(found.numbers) == 12


def _by_size(*means: float) -> pd.DataFrame:
    table = paper.score_table()
    sizes = table["train_languages"].str.count(r"\+")
    for size, mean in enumerate(means):
        table.loc[(table["study"] == "permutations") & (sizes == size), "if_score"] = mean
    return table


@pytest.mark.parametrize(
    ("means", "verdicts"),
    [
        ((40, 44, 47, 50, 50, 50), ("held", "held", "held")),
        ((40, 39, 38, 36, 36, 36), ("not held", "not held", "cannot be told")),
        ((40, 42, 44, 46, 48, 50), ("held", "cannot be told", "cannot be told")),
        ((30, 31, 32, 33, 43, 53), ("held", "not held", "not held")),
    ],
)
def test_more_languages_raise_reach_and_saturate(means: tuple[float, ...], verdicts: tuple[str, ...]) -> None:
    found = _tell(_by_size(*means), half=1.2)
    assert tuple(found[place].verdict for place in (RISES, ALMOST, SATURATES)) == verdicts


def test_what_is_missing_cannot_be_told() -> None:
    table = paper.score_table()
    table.loc[table["eval_language"] == "cs", ["if_score", "ci_low", "ci_high"]] = None
    found = _tell(table)
    assert [place for place, one in enumerate(found) if one.verdict != "cannot be told"] == [SEEN_6]
    assert all("missing" in one.here for place, one in enumerate(found) if place != SEEN_6)


def test_a_finding_that_no_study_tells_says_what_it_takes() -> None:
    found = findings(example.score_table(), example.STUDIES)
    needs = {one.here for one in found if one.here.startswith("It takes")}
    assert any("permutations study" in one for one in needs)
    assert any("monolingual study with English, Italian, Spanish, Hindi" in one for one in needs)
    assert all(one.verdict == "cannot be told" for one in found if one.here in needs)


def test_a_run_without_a_row_tells_nothing() -> None:
    found = findings(paper.score_table().iloc[:0], paper.STUDIES)
    assert {one.verdict for one in found} == {"cannot be told"}
    assert {one.verdict for one in findings(pd.DataFrame(), [])} == {"cannot be told"}
