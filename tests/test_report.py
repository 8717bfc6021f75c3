"""Reports: what is missing is marked, what a model wrote is inert, and somebody's files are left alone."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.report import StudyView, draw_figures, write_page
from orchestrator.report.headline import headline
from orchestrator.report.heatmap import matrix
from orchestrator.report.page import direction, render, visible
from orchestrator.report.views import Sample, clean, levels, study_rows
from tests import report_example as example
from trainables.errors import UserError


class _Page(HTMLParser):
    """The tags of a page with their attributes, and the text inside chosen ones."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open == "h1" and data.strip():
            self.headings.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def _report(table: pd.DataFrame, out: Path, **changes: object) -> str:
    context = example.context(**changes)
    figures = draw_figures(table, example.STUDIES, context, out)
    return write_page(context, table, figures, example.SAMPLES, out, example.STUDIES).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("whole")
    return _report(example.score_table(), out), out


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("half")
    return _report(example.with_gaps(example.score_table()), out, gaps=example.GAPS), out


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
    numbers = _draw(table, tmp_path, study)["permutations"].set_index(["tuning_languages", "eval_language"])
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
    page = write_page(example.context(running=True), pd.DataFrame(), figures, [], tmp_path, example.STUDIES)
    assert "No score is there yet" in page.read_text()


def test_a_table_read_back_from_csv_is_drawn_alike(tmp_path: Path) -> None:
    table = example.score_table()
    buffer = io.StringIO(table.to_csv(index=False))
    back = pd.read_csv(buffer)
    one = draw_figures(table, example.STUDIES[:2], example.context(), tmp_path / "one")
    two = draw_figures(back, example.STUDIES[:2], example.context(), tmp_path / "two")
    assert [figure.csv.read_bytes() for figure in one] == [figure.csv.read_bytes() for figure in two]


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


# The page


def test_the_page_says_the_answer_first_and_what_it_is_worth(whole: tuple[str, Path]) -> None:
    page = _Page(whole[0])
    assert len(page.headings) == 1
    assert page.headings[0].startswith("The smallest pinch within 1 point")
    assert "not evidence about language models" in whole[0]
    assert "not evidence about language models" not in render(
        example.context(working_model=False), example.score_table(), [], [], example.STUDIES
    )


def test_the_page_asks_the_network_for_nothing(whole: tuple[str, Path]) -> None:
    page = _Page(whole[0])
    assert not page.of("link")
    assert not page.of("iframe")
    assert all("src" not in script for script in page.of("script"))
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.of("img"))
    assert not re.search(r"https?://", re.sub(r"data:[^\"]*", "", whole[0]))
    assert all(":" not in (link["href"] or "") for link in page.of("a"))


def test_the_policy_allows_the_pages_own_style_and_script_only(whole: tuple[str, Path]) -> None:
    page = _Page(whole[0])
    policy = next(m["content"] or "" for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert len(page.of("script")) == 1


def test_what_a_model_wrote_is_inert_text(whole: tuple[str, Path]) -> None:
    assert "&lt;script&gt;document.title=" in whole[0]
    assert "onerror=alert(1)&gt;" in whole[0]
    assert "\u202e" not in whole[0]
    assert "\x00" not in whole[0]
    page = _Page(whole[0])
    assert not [image for image in page.of("img") if "onerror" in image]


def test_hostile_names_are_inert_too() -> None:
    hostile = '"><script>alert(1)</script>'
    table = example.score_table()
    table.loc[table["model"] == "pinch-4-n40", "model"] = hostile
    text = render(
        example.context(judge=hostile, base=hostile, notes=(hostile,), commands=(hostile,)),
        table,
        [],
        [Sample(**{**vars(example.SAMPLES[0]), "model": hostile, "instruction_id": hostile, "language": hostile})],
        example.STUDIES,
    )
    assert len(_Page(text).of("script")) == 1


def test_responses_carry_their_language_and_direction(whole: tuple[str, Path]) -> None:
    said = [one for one in _Page(whole[0]).of("p") if (one.get("class") or "").startswith("said")]
    assert {(one["lang"], one["dir"]) for one in said} == {
        ("fi", "ltr"),
        ("es", "ltr"),
        ("ru", "ltr"),
        ("ar", "rtl"),
        ("he", "rtl"),
    }
    assert direction("xx") == "ltr"


def test_a_verdict_is_told_in_both_orders(whole: tuple[str, Path]) -> None:
    for outcome in ("win", "loss", "tie", "invalid", "not judged yet"):
        assert re.search(rf'<span class="pill \w+">{outcome}</span>', whole[0])
    tie = "Baseline shown first: the judge preferred the baseline. Model shown first: the judge preferred the model."
    assert tie in whole[0]


def test_missing_scores_are_marked_and_counted(half: tuple[str, Path]) -> None:
    text = half[0]
    empty = int(example.with_gaps(example.score_table())["if_score"].isna().sum())
    assert text.count("<span>missing</span>") == empty
    assert "with gaps: 52 of 59 scores" in text


def test_gaps_are_told_with_a_sentence_each(half: tuple[str, Path]) -> None:
    assert "The loss was not a number after step 31." in half[0]
    assert "It needs the model mono-ru, which failed." in half[0]


def test_a_running_sweep_says_how_far_it_is() -> None:
    context = example.context(running=True, counts={"comparison": (23, 36)})
    text = render(context, example.with_gaps(example.score_table()), [], [], example.STUDIES)
    assert "running: 23 of 36 comparisons" in text


def test_the_page_says_how_to_run_it_again_and_how_to_cite(whole: tuple[str, Path]) -> None:
    assert "pinch run demo\n" in whole[0]
    assert "arXiv:2401.01854" in whole[0]
    assert "@software{pinch_sweeps" in whole[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x00\x1b[31m", "␀␛[31m"),
        ("\u202eevil", "⟨U+202E⟩evil"),
        ("\ud800", "\ufffd"),
        ("שלום\u200f", "שלום\u200f"),
    ],
)
def test_control_characters_are_shown_instead_of_obeyed(text: str, shown: str) -> None:
    assert visible(text) == shown
