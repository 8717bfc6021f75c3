"""Figures: what is missing stays missing, intervals are the sweep's, published values stand apart."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator.report import StudyView, draw_figures, published
from orchestrator.report.cells import Cells, Value, difference
from orchestrator.report.heatmap import matrix
from orchestrator.report.painting import differences, paint, scores
from orchestrator.report.shares import correlate, read_shares
from orchestrator.report.views import Figure, clean, levels, study_rows
from tests import paper_example as paper
from tests import report_example as example
from tests.conftest import SMALL, Pinch
from tests.page_example import finished_store
from trainables.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("whole")
    draw_figures(example.score_table(), example.STUDIES, example.context(), out)
    return "", out


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("half")
    draw_figures(example.with_gaps(example.score_table()), example.STUDIES, example.context(), out)
    return "", out


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figure]:
    """Every figure of the paper's grid, with averages and shares."""
    table = paper.score_table()
    figures = draw_figures(
        table,
        paper.STUDIES,
        example.context(),
        tmp_path_factory.mktemp("grid"),
        averages=paper.averages(table),
        pretraining=paper.SHARES,
    )
    return {figure.name: figure for figure in figures}


def _draw(table: pd.DataFrame, out: Path, study: StudyView) -> dict[str, pd.DataFrame]:
    figures = draw_figures(table, [study], example.context(), out)
    return {figure.name: pd.read_csv(figure.csv) for figure in figures}


# Figures


def test_every_figure_is_there_as_png_pdf_and_csv(whole: tuple[str, Path]) -> None:
    names = ("monolingual", "pinch-4-averages", "pinch-4-languages", "pairs")
    for name in names:
        assert (whole[1] / f"demo-{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (whole[1] / f"demo-{name}.pdf").read_bytes().startswith(b"%PDF")
        assert len(pd.read_csv(whole[1] / f"demo-{name}.csv")) > 0


def test_the_heat_map_averages_a_row_with_its_diagonal() -> None:
    table = matrix(study_rows(clean(example.score_table()), example.STUDIES[1]), example.STUDIES[1])
    assert table.loc["en", "avg"] == pytest.approx(table.loc["en", ["en", "es", "fi", "ru"]].mean())
    assert list(table.columns) == ["en", "es", "fi", "ru", "avg"]


def test_what_is_missing_is_empty_in_the_csv_and_never_zero(half: tuple[str, Path]) -> None:
    table = pd.read_csv(half[1] / "demo-monolingual.csv", index_col=0)
    assert table.loc["ru", ["en", "es", "fi", "avg"]].isna().all()
    assert table.loc["ru", "ru"] == 50


def test_an_average_that_lacks_a_cell_is_missing(half: tuple[str, Path]) -> None:
    numbers = pd.read_csv(half[1] / "demo-pinch-4-averages.csv").set_index(["series", "level"])["if_score"]
    assert pd.isna(numbers["Non-English", "50%"])
    assert numbers["Non-English", "10%"] > 0
    assert numbers["English", "50%"] > 0


def test_a_row_that_is_absent_is_as_missing_as_an_empty_one(half: tuple[str, Path]) -> None:
    numbers = pd.read_csv(half[1] / "demo-pairs.csv").set_index(["tuned_on", "eval_language"])["if_score"]
    assert pd.isna(numbers["fi+ru", "es"])
    assert pd.isna(numbers["fi+ru", "avg"])


def test_missing_places_change_the_picture(tmp_path: Path) -> None:
    study = example.STUDIES[1]
    whole = draw_figures(example.score_table(), [study], example.context(), tmp_path / "a")[0]
    half = draw_figures(example.with_gaps(example.score_table()), [study], example.context(), tmp_path / "b")[0]
    assert (whole.missing, half.missing) == (0, 4)
    assert whole.png.read_bytes() != half.png.read_bytes()
    assert "4 values are missing" in half.caption


def test_every_caption_names_the_judge_and_the_base_model(tmp_path: Path) -> None:
    context = example.context(base="gemma3-270m", judge="local-smollm2")
    for figure in draw_figures(example.score_table(), example.STUDIES, context, tmp_path):
        assert "gemma3-270m" in figure.caption
        assert "local-smollm2" in figure.caption


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    table, study = example.score_table(), example.STUDIES[:1]
    one = draw_figures(table, study, example.context(), tmp_path / "one")
    two = draw_figures(table, study, example.context(), tmp_path / "two")
    for a, b in zip(one, two, strict=True):
        assert a.png.read_bytes() == b.png.read_bytes()
        assert a.pdf.read_bytes() == b.pdf.read_bytes()
        assert a.csv.read_bytes() == b.csv.read_bytes()


def test_levels_given_by_count_are_labelled_by_their_count_and_sorted_among_the_percents() -> None:
    found = levels(study_rows(clean(example.score_table()), example.STUDIES[0]))
    assert [level.label for level in found] == ["0%", "40 ex.", "10%", "50%", "100%"]


def test_seen_and_unseen_are_averaged_apart_and_neither_holds_english(tmp_path: Path) -> None:
    table = example.score_table()
    study = StudyView(label="pinch-4", kind="pinch", languages=("en", "fi"), evaluate_in=example.LANGUAGES)
    numbers = _draw(table, tmp_path, study)["pinch-4-averages"]
    assert set(zip(numbers["series"], numbers["languages"], strict=True)) == {
        ("English", "en"),
        ("Seen languages", "fi"),
        ("Unseen languages", "es+ru"),
    }


def test_models_of_a_permutation_are_averaged_by_how_many_languages_they_saw(tmp_path: Path) -> None:
    def row(languages: str, score: float | None) -> dict[str, object]:
        study = {"study": "permutations", "model": languages, "train_languages": languages, "eval_language": "cs"}
        return study | {"if_score": score}

    scores = [row("fi", 40), row("it", 44), row("en+fi", 46), row("fi+it", None)]
    study = StudyView(label="permutations", kind="permutations", languages=("en", "fi", "it"), evaluate_in=("cs",))
    table = pd.DataFrame(scores, columns=example.score_table().columns)
    means = _draw(table, tmp_path, study)["permutations"]
    numbers = means[means["train_languages"].isna()].set_index(["tuning_languages", "eval_language"])
    assert numbers.loc[(1, "cs"), "if_score"] == 42
    assert pd.isna(numbers.loc[(2, "avg"), "if_score"])


def test_several_seeds_of_a_model_are_averaged() -> None:
    one = example.score_table()
    other = one.assign(seed=1, if_score=one["if_score"] + 2)
    study = example.STUDIES[1]
    both = matrix(study_rows(clean(pd.concat([one, other])), study), study)
    alone = matrix(study_rows(clean(one), study), study)
    assert both.loc["en", "fi"] == pytest.approx(alone.loc["en", "fi"] + 1)


def test_a_table_without_rows_is_drawn_too(tmp_path: Path) -> None:
    figures = draw_figures(pd.DataFrame(), example.STUDIES, example.context(), tmp_path)
    assert {figure.name for figure in figures} == {"monolingual", "pairs"}


def test_a_table_read_back_from_csv_is_drawn_alike(tmp_path: Path) -> None:
    table = example.score_table()
    buffer = io.StringIO(table.to_csv(index=False))
    back = pd.read_csv(buffer)
    one = draw_figures(table, example.STUDIES[:2], example.context(), tmp_path / "one")
    two = draw_figures(back, example.STUDIES[:2], example.context(), tmp_path / "two")
    assert [figure.csv.read_bytes() for figure in one] == [figure.csv.read_bytes() for figure in two]


# The paper's grid


def test_the_papers_grid_has_all_its_figures(grid: dict[str, Figure]) -> None:
    heat = {"monolingual", "monolingual-in-language", "slavic", "slavic-in-language", "base"}
    curves = {"pinch-12-averages", "pinch-12-languages", "pinch-6-averages", "pinch-6-languages", "permutations"}
    assert set(grid) == heat | curves | {"pairs", "monolingual-shares", "monolingual-published", "base-published"}
    assert not any(figure.missing for figure in grid.values())


def test_every_figure_fits_a_printed_page(grid: dict[str, Figure]) -> None:
    """A PNG has 200 pixels to the inch of print; the text of a page is 6.9 inches wide."""
    for figure in grid.values():
        width = int.from_bytes(figure.png.read_bytes()[16:20], "big")
        assert 700 <= width <= 1380, figure.name


def test_intervals_of_averages_are_the_sweeps(grid: dict[str, Figure]) -> None:
    lines = pd.read_csv(grid["pinch-6-averages"].csv)
    averaged = lines[lines["series"] != "English"]
    assert (averaged["ci_high"] - averaged["if_score"]).to_numpy() == pytest.approx(1.4, abs=0.02)
    for name in ("permutations", "pairs"):
        numbers = pd.read_csv(grid[name].csv)
        assert numbers.loc[numbers["eval_language"] == "avg", "ci_low"].notna().all(), name
    scores = pd.read_csv(grid["monolingual"].csv, index_col=0)
    assert ((scores["avg_ci_low"] < scores["avg"]) & (scores["avg"] < scores["avg_ci_high"])).all()


def test_without_averages_no_interval_is_made_up(tmp_path: Path) -> None:
    figures = draw_figures(paper.score_table(), [paper.STUDY["permutations"]], example.context(), tmp_path)
    numbers = pd.read_csv(figures[0].csv)
    assert numbers.loc[numbers["eval_language"] == "avg", "ci_low"].isna().all()
    assert "interval" not in figures[0].caption


def test_an_interval_of_another_number_is_not_drawn() -> None:
    table, study = clean(paper.score_table()), paper.STUDY["monolingual"]
    averages = paper.averages(paper.score_table())
    averages[["average", "ci_low", "ci_high"]] += 1
    cells = Cells(study_rows(table, study), study, lambda row: row.train_languages, averages)
    assert not cells.average("ar", study.evaluate_in, "all").known


def test_several_seeds_share_the_interval_of_their_average() -> None:
    one = paper.score_table()
    both = pd.concat([one.assign(model=one["model"] + f"-s{seed}", seed=seed) for seed in (0, 1)])
    study = paper.STUDY["monolingual"]
    cells = Cells(study_rows(clean(both), study), study, lambda row: row.train_languages, paper.averages(one))
    assert cells.average("ar", study.evaluate_in, "all").known
    assert cells.models("ar") == ("mono-ar",)


def test_a_mean_over_models_has_the_mean_of_their_intervals() -> None:
    table, study = clean(paper.score_table()), paper.STUDY["permutations"]
    averages = paper.averages(table)
    wider = averages["model"] == "mono-fi"
    averages.loc[wider, "ci_high"] += 3
    cells = Cells(study_rows(table, study), study, lambda row: row.train_languages.count("+"), averages)
    value = cells.average(0, study.evaluate_in, "all")
    assert value.high - value.value == pytest.approx(1.4 + 3 / 3)
    assert value.value - value.low == pytest.approx(1.4)


def test_a_difference_of_averages_is_as_wide_as_if_they_were_independent() -> None:
    gap = difference(Value(48, 45, 51), Value(40, 36, 44))
    assert gap == pytest.approx((8, 3, 13))


@pytest.mark.parametrize("name", ["monolingual-published", "base-published"])
def test_published_values_stand_beside_the_runs(grid: dict[str, Figure], name: str) -> None:
    numbers = pd.read_csv(grid[name].csv)
    assert numbers["difference"].to_numpy() == pytest.approx(numbers["if_score"] - numbers["published"], abs=0.02)
    assert len(numbers) == 12 * 13
    english = numbers[(numbers["train_language"] == "en") & (numbers["eval_language"] == "avg")]
    assert english["published"].item() == (46.8 if name.startswith("mono") else 96.7)
    assert "The scores themselves cannot" in grid[name].caption


def test_the_diagonal_is_left_out_of_the_correlation_with_the_published_values(grid: dict[str, Figure]) -> None:
    assert "over 132 cells" in grid["monolingual-published"].caption
    assert "over 144 cells" in grid["base-published"].caption


def test_the_published_matrices_average_to_their_published_averages() -> None:
    for kind in ("monolingual", "base"):
        table = published.matrix(paper.STUDY[kind])
        assert table is not None
        assert table.drop(columns="avg").mean(axis=1).to_numpy() == pytest.approx(table["avg"], abs=0.11)


def test_published_values_stand_beside_the_papers_languages_only() -> None:
    study = paper.STUDY["monolingual"]
    fewer = StudyView(
        label="monolingual", kind="monolingual", languages=study.languages[:-1], evaluate_in=study.evaluate_in
    )
    assert published.matrix(fewer) is None
    assert published.matrix(paper.STUDY["slavic"]) is None


def test_a_monolingual_study_of_the_slavic_languages_is_figure_7(tmp_path: Path) -> None:
    study = dataclasses.replace(paper.STUDY["slavic"], kind="monolingual")
    figures = draw_figures(paper.score_table(), [study], example.context(), tmp_path, pretraining=paper.SHARES)
    assert [figure.name for figure in figures] == ["slavic", "slavic-in-language"]
    assert figures[0].caption.startswith("As figure 7 of the paper.")
    assert "mutually intelligible" in figures[0].caption


def test_half_a_run_is_drawn_with_its_gaps(tmp_path: Path) -> None:
    table = paper.score_table()
    gone = table["model"].str.contains("he|zh|p30") & (table["baseline"] != table["model"])
    table.loc[gone, ["if_score", "ci_low", "ci_high"]] = np.nan
    figures = draw_figures(
        table, paper.STUDIES, example.context(), tmp_path, averages=paper.averages(table), pretraining=paper.SHARES
    )
    missing = {figure.name: figure.missing for figure in figures}
    assert missing["monolingual"] == missing["monolingual-published"] == 2 * 12
    assert missing["monolingual-shares"] == 2
    assert missing["pinch-12-averages"] == 2
    shares = pd.read_csv(tmp_path / "demo-monolingual-shares.csv", index_col=0)
    assert shares.loc[["he", "zh"], "average"].isna().all()


@pytest.mark.parametrize("empty", ["no row", "no score"])
def test_a_run_that_has_no_score_yet_is_drawn(tmp_path: Path, empty: str) -> None:
    table = paper.score_table()
    if empty == "no row":
        table = table.iloc[:0]
    else:
        table[["if_score", "ci_low", "ci_high", "in_language_share"]] = None
    figures = draw_figures(table, paper.STUDIES, example.context(), tmp_path, pretraining=paper.SHARES)
    values = pd.read_csv(next(figure.csv for figure in figures if figure.name == "base"), index_col=0)
    assert values.isna().all(axis=None)


def test_names_are_never_read_as_formulas(tmp_path: Path) -> None:
    context = example.context(base="$\\frac{1}{2", judge="$x^$")
    assert draw_figures(example.score_table(), example.STUDIES[1:2], context, tmp_path)[0].png.exists()


# Cells


def test_a_heat_maps_numbers_can_be_read_on_every_colour() -> None:
    values = np.array([[0.0, 5, 30, 50, 64], [np.nan, 10, 40, 45, 55]])
    for scale in (scores(values), scores(values + 36), differences(values - 32)):
        for value in np.linspace(scale.low, scale.high, 50):
            text, under = (_luminance(colour) for colour in (scale.ink(value), scale.colour(value)))
            assert (max(text, under) + 0.05) / (min(text, under) + 0.05) >= 4.5  # WCAG 2, AA


def _luminance(colour: object) -> float:
    from matplotlib.colors import to_rgb

    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]  # type: ignore[arg-type]
    return float(np.dot(parts, (0.2126, 0.7152, 0.0722)))


def test_a_missing_cell_has_no_colour_and_no_number() -> None:
    from matplotlib.figure import Figure as Drawing

    axes = Drawing().add_subplot()
    values = np.array([[1.0, np.nan], [2.0, 3.0]])
    paint(axes, values, scores(values), "{:.0f}".format, size=7)
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    assert len(axes.patches) == 1
    assert axes.patches[0].get_hatch()


# Figure 8


def test_the_correlation_with_pretraining_leaves_english_out(grid: dict[str, Figure]) -> None:
    numbers = pd.read_csv(grid["monolingual-shares"].csv)
    assert len(numbers) == 11
    assert "en" not in set(numbers["train_language"])
    assert "n = 11 (Fisher). Published: r = 0.22, n = 11." in grid["monolingual-shares"].caption


def test_the_correlation_has_fishers_interval() -> None:
    """r = 0.9 over 12: tanh(atanh(0.9) -+ 1.96 / 3)."""
    x = np.arange(12.0)
    noise = np.array([1, -1, 1, -1, 1, -1, -1, 1, -1, 1, -1, 1])
    found = correlate(pd.DataFrame({"percent": x, "average": x + 1.7 * noise}))
    half = 1.959964 / 3
    assert found.r == pytest.approx(np.corrcoef(x, x + 1.7 * noise)[0, 1])
    assert found.low == pytest.approx(math.tanh(math.atanh(found.r) - half))
    assert found.high == pytest.approx(math.tanh(math.atanh(found.r) + half))


@pytest.mark.parametrize(
    ("percents", "averages"),
    [((1, 2), (3, 4)), ((5, 5, 5, 5), (1, 2, 3, 4)), ((1, 2, 3, 4), (7, 7, 7, 7)), ((1, 2, 3), (4, 5, None))],
)
def test_a_correlation_that_is_not_defined_is_not_a_number(
    percents: Sequence[float], averages: Sequence[float | None]
) -> None:
    table = pd.DataFrame({"percent": percents, "average": averages}, dtype=float)
    assert math.isnan(correlate(table).r)
    assert "not defined" in str(correlate(table))


def test_shares_are_read_from_a_csv(tmp_path: Path) -> None:
    path = tmp_path / "shares.csv"
    path.write_text("language,percent\nfi,0.45\nen,78\n")
    assert read_shares(path) == {"fi": 0.45, "en": 78.0}


def test_a_report_draws_figure_8_of_the_shares_it_is_given(small: Path, tmp_path: Path, pinch: Pinch) -> None:
    plain = yaml.safe_load(SMALL)
    plain["corpus"]["languages"] = codes = ["en", "es", "fi", "it", "ru"]
    small.write_text(yaml.safe_dump(plain | {"studies": [{"study": "monolingual", "languages": codes}]}))
    _, store = finished_store(small, tmp_path / "store")
    given = tmp_path / "shares.csv"
    given.write_text("language,percent\nes,3\nfi,0.5\nit,2\nru,1\n")
    pinch("report", small, "--store", store.location, "--out", tmp_path / "out", "--pretraining", given)
    drawn = pd.read_csv(tmp_path / "out" / "small-monolingual-shares.csv")
    assert dict(zip(drawn["train_language"], drawn["percent"], strict=True)) == {"es": 3, "fi": 0.5, "it": 2, "ru": 1}
    given.write_text("language,share\nes,3\n")
    assert str(given) in pinch("report", small, "--store", store.location, "--pretraining", given, check=2).stderr


@pytest.mark.parametrize(
    ("rows", "said"),
    [("fi,much", "row 2 has percent 'much'"), ("fi,120", "'120'"), ("fi,nan", "'nan'"), ("fi,1\nfi,2", "row 3 has fi"),
     ("fin,1", "did you mean fi")],
)  # fmt: skip
def test_shares_that_make_no_sense_are_bad_input(tmp_path: Path, rows: str, said: str) -> None:
    path = tmp_path / "shares.csv"
    path.write_text(f"language,percent\n{rows}\n")
    with pytest.raises(UserError, match=said):
        read_shares(path)
