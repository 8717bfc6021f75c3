"""What a report shows beside its matrices: ratings by people (figure 2), and the paper's tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.report.ratings import draw_ratings, wilson
from orchestrator.report.tables import orders, tables, write_tables
from orchestrator.report.views import clean, study_rows
from orchestrator.scores.agreement import Rating, agreement
from tests import paper_example as paper
from tests import report_example as example

RATINGS: list[dict[str, object]] = [
    {"language": "fi", "excellent": 60, "pass": 30, "fail": 10, "n": 100},
    {"language": "en", "excellent": 80, "pass": 15, "fail": 5, "n": 100},
    {"language": "ru", "excellent": None, "pass": None, "fail": None, "n": 0},
]


def test_ratings_are_drawn_with_the_published_ones_below(tmp_path: Path) -> None:
    figure = draw_ratings(RATINGS, example.context(), tmp_path)
    table = pd.read_csv(figure.csv)
    places = list(zip(table["language"], table["source"], strict=True))
    assert places == [
        ("fi", "here"), ("en", "here"), ("en", "published"), ("ru", "here"), ("ru", "published"),
        ("LIMA in English", "published"),
    ]  # fmt: skip
    assert table.loc[3, ["excellent", "pass", "fail"]].isna().all()
    assert figure.missing == 1
    assert table.loc[2, ["excellent", "pass", "fail"]].tolist() == [83, 15, 2]


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(50, 100) == pytest.approx((40.38, 59.62), abs=0.01)
    assert wilson(100, 20)[1] == pytest.approx(100)
    assert all(math.isnan(end) for end in wilson(50, 0))


def test_the_slavic_table_marks_who_understands_whom() -> None:
    found = {table.name: table for table in tables(paper.score_table(), paper.STUDIES)}
    rows = {row[1]: row for row in found["table-slavic"].rows}
    assert [rows[code][-1] for code in ("sr", "hr", "cs", "sk", "ru")] == [
        "Croatian", "Serbian", "Slovak", "Czech", "",
    ]  # fmt: skip
    assert len(found["table-languages"].rows) == 17
    assert "table-agreement" not in found


def test_the_orders_are_told_by_the_rows() -> None:
    study = paper.STUDY["permutations"]
    rows = study_rows(clean(paper.score_table()), study)
    assert orders(rows) == [list(order) for order in paper.ORDERS]
    twice = pd.concat([rows.assign(seed=seed) for seed in (0, 1)])
    assert orders(twice) == [list(order) for order in paper.ORDERS]
    assert orders(rows[rows["train_languages"] != "en+fi"]) == []


def test_agreement_stands_beside_the_published() -> None:
    verdicts = {"judge": "aabb", "x": "aabt", "y": "abbb"}
    ratings = [
        Rating(str(place), rater, {"t": "tie"}.get(verdict, verdict), language)
        for language in ("es", "fi")
        for rater, said in verdicts.items()
        for place, verdict in enumerate(said)
    ]
    found = json.loads(json.dumps(agreement(ratings)))
    table = next(one for one in tables(paper.score_table(), paper.STUDIES, agreement=found) if "agree" in one.name)
    spanish, finnish = table.rows
    assert spanish[1] == "81.2"  # (87.5 + 75) / 2
    assert (spanish[3], spanish[6]) == ("77.0", "80.0")
    assert (finnish[3], finnish[6]) == ("", "")
    assert table.csv().startswith("language,judge_people,judge_people_95,judge_people_published,people_people,")


def test_tables_are_set_for_print(tmp_path: Path) -> None:
    figures = write_tables(tables(paper.score_table(), paper.STUDIES), example.context(), tmp_path)
    assert [figure.name for figure in figures] == ["table-slavic", "table-languages", "table-permutations"]
    for figure in figures:
        assert figure.pdf.read_bytes().startswith(b"%PDF")
        assert figure.csv.read_text().count("\n") > 3
