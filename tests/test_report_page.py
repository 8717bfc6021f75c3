"""The report page: the answer first, what is missing marked, and whatever a model wrote inert."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.report import draw_figures, write_page
from orchestrator.report.charts import Charts, HeatMap, Plots, Strips
from orchestrator.report.page import render
from orchestrator.report.responses import BUDGET, LONGEST, direction, judged, pack, place_samples, visible
from orchestrator.report.rows import quality_table
from orchestrator.report.views import QUALITY, Details, Sample, StudyView, clean
from tests import page_example
from tests import report_example as example


class _Page(HTMLParser):
    """The tags of a page with their attributes, and the text of those that are asked for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def said(self, tag: str) -> list[str]:
        return [text.strip() for text in self.texts.get(tag, []) if text.strip()]

    @property
    def cells(self) -> dict:
        return json.loads(self.texts["script"][0])


def _report(table: pd.DataFrame, out: Path, details: Details | None = None, **changes: object) -> str:
    context = example.context(**changes)
    figures = draw_figures(table, example.STUDIES, context, out)
    page = write_page(context, table, figures, example.SAMPLES, out, example.STUDIES, details)
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _report(example.score_table(), tmp_path_factory.mktemp("whole"), page_example.details())


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _report(example.with_gaps(example.score_table()), tmp_path_factory.mktemp("half"), gaps=example.GAPS)


def _plain(**changes: object) -> str:
    return render(example.context(**changes), example.score_table(), [], [], example.STUDIES)


# What it says


def test_the_page_says_the_answer_first_and_what_it_is_worth(whole: str) -> None:
    headings = _Page(whole).said("h1")
    assert len(headings) == 1
    assert headings[0].startswith("The smallest pinch within 1 point")
    assert "not evidence about language models" in whole
    assert "not evidence about language models" not in _plain(working_model=False)


def test_the_numbers_beside_the_answer_have_their_intervals(whole: str) -> None:
    stats = re.findall(r'class="number">([\d.]+)<small>([\d.]+) – ([\d.]+)</small>', whole)
    assert len(stats) >= 3
    assert all(float(low) < float(value) < float(high) for value, low, high in stats)
    assert whole.count('class="stat chosen"') == 1


def test_missing_scores_are_marked_and_counted(half: str) -> None:
    empty = int(example.with_gaps(example.score_table())["if_score"].isna().sum())
    assert half.count('<td class="num missing" data-value=""><span>missing</span>') == empty
    assert "with gaps: 52 of 59 scores" in half


def test_gaps_are_told_with_a_sentence_each_before_anything_else(half: str) -> None:
    assert "The loss was not a number after step 31." in half
    assert "It needs the model mono-ru, which failed." in half
    assert half.index('id="gaps"') < half.index('id="figures"')


def test_a_running_sweep_says_how_far_it_is() -> None:
    assert "running: 23 of 36 comparisons" in _plain(running=True, counts={"comparison": (23, 36)})


def test_a_page_without_a_score_says_so() -> None:
    page = render(example.context(running=True), pd.DataFrame(), [], [], example.STUDIES)
    assert "No score is there yet" in page


def test_a_part_without_anything_to_say_is_left_out_and_the_contents_lead_to_every_part(whole: str) -> None:
    parts = {"findings", "differences", "corpus", "licences", "responses"}
    for text, there in ((whole, parts), (_plain(), set())):
        page = _Page(text)
        ids = {str(tag["id"]) for tag in page.of("h2")}
        assert ids & parts == there
        assert {f"#{name}" for name in ids} == {link["href"] for link in page.of("a") if link["href"][0] == "#"}


def test_findings_are_told_as_held_or_not_and_those_that_no_study_can_tell_apart_from_them(whole: str) -> None:
    assert re.search(r'<span class="pill good">held</span><div><b>A pinch helps.</b><p>It did here.', whole)
    assert "1 more cannot be told from this sweep" in whole


def test_differences_are_a_sentence_for_the_headlines_pinch_and_a_row_for_each(whole: str) -> None:
    assert "<li>pinch-4-n40 against mono-en.</li>" in whole
    assert "<li>pinch-4-p50 against mono-en.</li>" not in whole
    assert '<td class="num score" data-value="-0.8">-0.8</td>' in whole
    assert "All 3 differences" in whole


def test_the_corpus_card_has_a_row_for_each_language_and_part(whole: str) -> None:
    assert re.search(r"<td>Finnish</td><td>tuning</td><td>cldr</td><td class=num>1,600</td><td class=num>3</td>", whole)
    assert "<td>evaluation</td>" in whole


def test_the_judges_quality_is_averaged_over_distinct_cells_and_counts_what_is_invalid() -> None:
    table = clean(example.score_table())
    assert all(column not in table for column in QUALITY)
    judged_cells = table["n"] > 0
    table.loc[judged_cells, "order_agreement"] = 0.75
    table.loc[judged_cells & (table["eval_language"] == "fi"), "invalid"] = 16
    found = quality_table(table)
    assert found is not None
    rows = {cells[0][0]: [value for value, _ in cells[1:]] for cells in found.rows}
    assert [name for name, _ in found.columns[:4]] == ["Evaluated in", "Judged cells", "Invalid", "Orders agree"]
    assert rows["Finnish"][1:3] == ["25%", "75%"]
    distinct = table[judged_cells].drop_duplicates(["model_key", "baseline", "eval_language"])
    assert rows["All"][0] == str(len(distinct))


def test_the_page_says_how_to_run_it_again_and_how_to_cite_it_with_what_its_numbers_depend_on() -> None:
    text = _plain(version="1.2.3", base="ti{ny}\\", recipe={"learning rate": "2e-3"})
    assert "pinch run demo\n" in text
    assert "arXiv:2401.01854" in text
    assert "version = {1.2.3}," in text
    note = re.search(r"note    = \{(.*)\}", text)
    assert note is not None
    assert "Base model tiny. Judge reference-chrf." in note.group(1)
    assert "learning rate 2e-3" in note.group(1)
    assert not re.search(r"[{}\\]", note.group(1))


# Figures


def _charts(table: pd.DataFrame, study: StudyView, samples: dict | None = None) -> dict:
    return Charts(clean(table), samples or {}, page_example.details().averages).of_study(study)


def test_a_heat_map_says_of_each_cell_its_number_its_interval_and_its_counts() -> None:
    table = example.score_table()
    chart = _charts(table, example.STUDIES[1], {("mono-en", "mono-fi", "fi"): 7})["monolingual"]
    assert isinstance(chart, HeatMap)
    spot = chart.rows[0][2][2]
    row = table[(table["study"] == "monolingual") & (table["model"] == "mono-en") & (table["eval_language"] == "fi")]
    first = row.iloc[0]
    assert spot.text.split("\n") == [
        "Tuned on English, evaluated in Finnish",
        f"IF {first['if_score']:.1f}, 95% {first['ci_low']:.1f} to {first['ci_high']:.1f}",
        f"{first['wins']} wins, {first['ties']} ties, {first['losses']} losses",
    ]
    assert spot.sample == 7
    assert chart.outlined == {(0, 0), (1, 1), (2, 2), (3, 3)}
    assert "by definition" in chart.rows[1][2][1].text


def test_a_missing_cell_is_said_to_be_missing_and_so_is_its_average() -> None:
    chart = _charts(example.with_gaps(example.score_table()), example.STUDIES[1])["monolingual"]
    russian = chart.rows[3][2]
    assert [spot.value is None for spot in russian] == [True, True, True, False, True]
    assert russian[0].text.endswith("missing")


def test_a_line_stops_where_a_value_is_missing_and_its_place_is_marked() -> None:
    chart = _charts(example.with_gaps(example.score_table()), example.STUDIES[0])["pinch-4-averages"]
    assert isinstance(chart, Plots)
    line = next(line for line in chart.plots[0].lines if line.tone == "seen")
    assert (len(line.points), len(line.segments)) == (4, 2)
    gaps = [column.spot.value is None for column in chart.plots[0].columns]
    assert gaps == [False, False, False, True, False]
    said = chart.plots[0].columns[1].spot.text
    assert re.fullmatch(r"40 examples\nOther than English [\d.]+, 95% [\d.]+ to [\d.]+\nEnglish .*", said)


def test_points_lie_inside_their_plot_and_better_ones_are_higher() -> None:
    chart = _charts(example.score_table(), example.STUDIES[0])["pinch-4-languages"]
    for plot in chart.plots:
        for line in plot.lines:
            assert all(0 <= point.x <= 100 and 0 <= point.y <= 85 for point in line.points)
    spots = [column.spot for column in chart.plots[2].columns]
    heights = [point.y for point in chart.plots[2].lines[-1].points]
    assert sorted(range(5), key=lambda at: spots[at].value) == sorted(range(5), key=lambda at: -heights[at])


def test_pairs_are_drawn_over_the_languages_of_neither() -> None:
    chart = _charts(example.score_table(), example.STUDIES[2])["pairs"]
    assert isinstance(chart, Strips)
    strip = chart.groups[0][1][2]
    assert (strip.name, strip.mixed, len(strip.marks)) == ("English + Spanish", True, 2)
    assert strip.spot.text.split("\n")[2].startswith("Finnish ")


def test_every_place_of_a_figure_can_be_reached_by_keyboard_one_at_a_time(whole: str) -> None:
    page = _Page(whole)
    hits = [tag for name, tag in page.tags if tag.get("class") == "hit"]
    assert len(hits) > 4 * 5
    assert all(tag["aria-label"] and tag["tabindex"] in ("0", "-1") for tag in hits)
    grids = [tag for _, tag in page.tags if "data-grid" in tag]
    assert sum(tag["tabindex"] == "0" for tag in hits) == len(grids)


def test_a_print_without_a_drawing_of_the_pages_own_is_shown_as_it_is(tmp_path: Path) -> None:
    figures = draw_figures(example.score_table(), example.STUDIES[1:2], example.context(), tmp_path)
    text = render(example.context(), example.score_table(), figures, [], [])
    assert 'class="hit"' not in text
    assert len(_Page(text).of("img")) == len(figures)


# Responses


def test_a_cell_leads_to_its_responses_under_every_name_of_its_model(whole: str) -> None:
    samples = [*example.SAMPLES, Sample(**{**vars(example.SAMPLES[0]), "instruction_id": "2", "also": ("another",)})]
    places = place_samples(samples)
    assert places["pinch-4-n40", "mono-fi", "fi"] == places["another", "mono-fi", "fi"] == 0
    cells = json.loads(pack(samples, {}))["cells"]
    assert [sample[0] for sample in cells[0][4]] == ["cldr-eval-0003", "2"]
    page = _Page(whole)
    linked = {tag["data-sample"] for _, tag in page.tags if "data-sample" in tag}
    assert {"0", "1", "2"} <= linked
    assert all(int(str(at)) < len(page.cells["cells"]) for at in linked)


def test_responses_carry_their_language_and_direction(whole: str) -> None:
    languages = _Page(whole).cells["languages"]
    assert {code: side for code, (_, side) in languages.items()} == {
        "fi": "ltr",
        "es": "ltr",
        "ru": "ltr",
        "ar": "rtl",
        "he": "rtl",
    }
    assert direction("xx") == "ltr"


@pytest.mark.parametrize(
    ("choices", "outcome", "first"),
    [
        ({"ab": 2, "ba": 1}, "win", "preferred the model"),
        ({"ab": 1, "ba": 2}, "loss", "preferred the baseline"),
        ({"ab": 1, "ba": 1}, "tie", "preferred the baseline"),
        ({"ab": None, "ba": 1}, "invalid", "gave no answer that can be read"),
        ({"ba": 1}, "not judged yet", "was not asked yet"),
    ],
)
def test_a_verdict_is_told_in_both_orders(choices: dict[str, int | None], outcome: str, first: str) -> None:
    found = judged(choices)
    assert found[0] == outcome
    assert found[1] == f"Baseline shown first: the judge {first}."
    assert found[2].startswith("Model shown first: the judge ")


def test_a_text_that_many_cells_share_is_written_once(whole: str) -> None:
    one = example.SAMPLES[0]
    text = "The same instruction to everybody."
    samples = [Sample(**{**vars(one), "model": f"m{at}", "instruction": text}) for at in range(50)]
    assert pack(samples, {}).count(text) == 1


def test_what_would_be_too_much_is_cut_at_one_length_and_says_so() -> None:
    one = vars(example.SAMPLES[0])
    samples = [Sample(**{**one, "model": f"m{at}", "model_response": f"{at} " + "ж" * 20_000}) for at in range(2_000)]
    text = pack(samples, {})
    assert len(text.encode()) < 1.2 * BUDGET
    shown = [said for said in json.loads(text)["texts"] if "ж" in said]
    lengths = {said.index(" … (") for said in shown}
    assert lengths < set(LONGEST)
    assert len(lengths) == 1
    assert "more characters are in the store)" in shown[0]


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


# What it does not let through


def test_the_page_asks_the_network_for_nothing(whole: str) -> None:
    page = _Page(whole)
    assert not page.of("link")
    assert not page.of("iframe")
    assert all("src" not in script for script in page.of("script"))
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in page.of("img"))
    links = [str(link["href"]) for link in page.of("a")]
    assert [link for link in links if ":" in link] == ["https://unicode.org/license.txt"]
    assert len(re.findall(r"https?://", re.sub(r"data:[^\"]*", "", whole))) == 1


def test_the_policy_allows_the_pages_own_style_and_script_only(whole: str) -> None:
    page = _Page(whole)
    policy = next(m["content"] or "" for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any("style" in attributes for _, attributes in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert [script.get("type") for script in page.of("script")] == ["application/json", None]


def test_a_link_of_a_licence_leads_to_the_web_and_nowhere_else() -> None:
    licences = [page_example.Terms("a", "b", "c", url) for url in ("javascript:alert(1)", "data:text/html,x", "")]
    text = render(example.context(), example.score_table(), [], [], [], Details(licences=licences))
    assert all(str(link["href"]).startswith("#") for link in _Page(text).of("a"))


@pytest.mark.parametrize("text", page_example.HOSTILE, ids=range(len(page_example.HOSTILE)))
def test_a_hostile_text_is_inert_wherever_it_stands(text: str) -> None:
    table = example.score_table()
    table.loc[table["model"] == "pinch-4-n40", "model"] = text.replace("\ud800", "")  # no table can hold it
    page = _Page(
        render(
            example.context(judge=text, base=text, corpus=text, notes=(text,), commands=(text,), recipe={text: text}),
            table,
            [],
            page_example.hostile_samples(),
            example.STUDIES,
            page_example.details(text),
        )
    )
    harmless = _Page(render(example.context(), table, [], example.SAMPLES, example.STUDIES, page_example.details()))
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in harmless.tags} | {"li"}
    assert len(page.of("script")) == 2
    assert not page.of("img")
    assert not [name for _, tag in page.tags for name in tag if name.startswith("on")]
    assert len(page.cells["cells"]) == len(page_example.HOSTILE)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=3))
def test_any_text_comes_back_from_the_block_of_samples_and_cannot_leave_it(texts: list[str]) -> None:
    one = vars(example.SAMPLES[0])
    samples = [Sample(**{**one, "model_response": text, "instruction_id": text}) for text in texts]
    block = pack(samples, {})
    assert not re.search("[<>&\u2028\u2029]", block)
    block.encode()
    found = json.loads(block)
    for text, packed in zip(texts, found["cells"][0][4], strict=True):
        assert packed[0] == visible(text)
        assert found["texts"][packed[4]] == visible(text)
