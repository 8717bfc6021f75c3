"""Reports: somebody's own files are left alone, and the headline claims nothing that is not known."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.report import draw_figures, write_page
from orchestrator.report.headline import headline
from orchestrator.report.views import clean
from tests import report_example as example
from trainables.errors import UserError

# The folder


def test_a_report_replaces_its_own_files_and_leaves_others(tmp_path: Path) -> None:
    mine = tmp_path / "index.html"
    mine.write_text("my own page")
    for _ in range(2):
        figures = draw_figures(example.score_table(), example.STUDIES[1:2], example.context(), tmp_path)
        write_page(example.context(), example.score_table(), figures, [], tmp_path)
    assert mine.read_text() == "my own page"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".demo")]


def test_a_file_that_no_report_wrote_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "demo-report.html"
    mine.write_text("my own page")
    with pytest.raises(UserError, match=r"demo-report.html is there already"):
        write_page(example.context(), example.score_table(), [], [], tmp_path)
    assert mine.read_text() == "my own page"


def test_an_out_that_is_a_file_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="--out"):
        draw_figures(example.score_table(), example.STUDIES, example.context(), tmp_path / "out")


# The headline


def _levelled(values: dict[str, float | None]) -> pd.DataFrame:
    table = example.score_table()
    for model, value in values.items():
        others = (table["study"] == "pinch-4") & (table["model"] == model) & (table["eval_language"] != "en")
        table.loc[others, "if_score"] = value
    return clean(table)


_NAMES = ("mono-en", "pinch-4-n40", "pinch-4-p10", "pinch-4-p50", "uniform-en+es+fi+ru")


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ((20, 44.2, 46, 46, 45), "other than English: 40 examples."),
        ((20, 43.9, 44, 46, 45), "other than English: 10% of the examples."),
        ((44.5, 44, 44, 46, 45), "English alone is within 1 point"),
        ((20, 30, 35, 40, 45), "No pinch comes within 1 point"),
        ((20, None, 46, 46, 45), "No answer yet: 36 of 36 comparisons are judged"),
        ((20, 44.5, 46, 46, None), "No answer yet"),
        ((20, 44.5, None, None, 45), "other than English: 40 examples."),
    ],
)
def test_the_headline_is_the_smallest_level_within_a_point_or_that_it_is_not_known(
    scores: tuple[float | None, ...], sentence: str
) -> None:
    table = _levelled(dict(zip(_NAMES, scores, strict=True)))
    found = headline(table, example.STUDIES, example.context())
    assert sentence in found.sentence
    assert found.known == ("No answer" not in sentence)


def test_without_a_pinch_study_the_headline_is_the_best_single_language() -> None:
    found = headline(clean(example.score_table()), example.STUDIES[1:], example.context())
    assert re.search(r"(English|Finnish) carries over best: \d+\.\d", found.sentence)
