"""The page in a browser: it opens from disk under its own policy, answers pointer and keyboard, and fits a phone.

Each test does what a reader does in a frame as wide as a phone; see `tests.browser`.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.report import draw_figures, write_page
from orchestrator.report.views import Sample
from orchestrator.reporting import write_report
from tests import page_example
from tests import report_example as example
from tests.browser import PHONE, ask, browse, needs_chromium

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page")
    table, context = example.score_table(), example.context()
    figures = draw_figures(table, example.STUDIES, context, out)
    return write_page(context, table, figures, example.SAMPLES, out, example.STUDIES, page_example.details())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page all of whose texts mean harm."""
    out = tmp_path_factory.mktemp("hostile")
    text = "".join(page_example.HOSTILE[:8])
    table = example.score_table()
    table.loc[table["model"] == "pinch-4-n40", "model"] = text
    known = Sample(**{**vars(example.SAMPLES[0]), "model": text, "model_response": text})
    context = example.context(base=text, judge=text, notes=(text,), commands=(text,))
    samples = [known, *page_example.hostile_samples()]
    return write_page(context, table, [], samples, out, example.STUDIES, page_example.details(text))


def test_the_page_opens_from_disk_without_breaking_its_own_policy(page: Path, tmp_path: Path) -> None:
    shown = browse(page.as_uri(), tmp_path)
    assert "Content Security Policy" not in shown
    assert "Refused to" not in shown
    assert "<title>demo · Pinch report</title>" in shown


def test_a_place_in_a_figure_tells_its_numbers_to_a_pointer(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """
        const tip = page.getElementById("tip"), before = tip.hidden;
        const cell = page.querySelectorAll(".heat .hit")[1], column = page.querySelectorAll(".plot rect.hit")[1];
        point("pointermove", cell, "mouse");
        const box = tip.getBoundingClientRect();
        const first = tip.textContent, inView = box.left >= 0 && box.right <= inside.innerWidth;
        point("pointermove", column, "mouse");
        const second = tip.textContent;
        point("pointermove", page.querySelector("h1"), "mouse");
        return { before, first, inView, second, after: tip.hidden, said: cell.getAttribute("aria-label") };
        """,
    )
    assert found["before"] is True
    assert found["after"] is True
    assert found["inView"] is True
    assert found["first"].startswith("Tuned on English, evaluated in SpanishIF ")
    assert "95%" in found["first"]
    assert found["second"].startswith("40 examples")


def test_a_first_touch_tells_and_a_second_opens_the_responses(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """
        const spot = page.querySelector(".plots.small rect.hit[data-sample]");
        const touch = async () => { point("pointerdown", spot, "touch"); point("click", spot, "touch"); await soon(); };
        await touch();
        const told = !page.getElementById("tip").hidden, stayed = inside.location.hash;
        await touch();
        const where = page.querySelector("#shown h3").textContent;
        return { told, stayed, hash: inside.location.hash, sample: spot.dataset.sample, where,
                 name: spot.getAttribute("aria-label") };
        """,
    )
    assert found["told"] is True
    assert found["stayed"] == ""
    assert found["hash"] == f"#cell-{found['sample']}"
    assert found["where"].endswith(found["name"].split(",")[0])


def test_a_figure_is_walked_with_arrow_keys_and_one_tab_stop(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """
        const grid = page.querySelector("table[data-grid]"), spots = [...grid.querySelectorAll(".hit")];
        const at = () => spots.indexOf(page.activeElement);
        spots[0].focus();
        const walk = [at()];
        for (const key of ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "End", "Home"]) {
          press(key); walk.push(at());
        }
        press("ArrowRight");
        const told = page.getElementById("tip").textContent, open = !page.getElementById("tip").hidden;
        press("Escape");
        return { walk, told, open, closed: page.getElementById("tip").hidden,
                 stops: spots.filter((spot) => spot.tabIndex === 0).length };
        """,
    )
    assert found["walk"] == [0, 1, 6, 5, 0, 0, 19, 0]
    assert found["open"] is True
    assert found["closed"] is True
    assert "evaluated in Spanish" in found["told"]
    assert found["stops"] == 1


def test_the_score_table_sorts_and_filters(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """
        const table = page.getElementById("score-table"), filter = page.getElementById("filter");
        const head = [...table.querySelectorAll("th")].find((th) => th.textContent.trim() === "IF");
        head.querySelector("button").click();
        const values = [...table.tBodies[0].rows].map((row) => parseFloat(row.cells[2].textContent));
        const sorted = values.every((value, at) => !at || values[at - 1] >= value);
        const visible = () => [...table.tBodies[0].rows].filter((row) => row.offsetHeight).map((row) => row.dataset);
        const set = (column, value) => {
          const field = filter.querySelector(`[data-column="${column}"]`);
          field.value = value;
          field.dispatchEvent(new inside.Event("input", { bubbles: true }));
        };
        set("study", "pinch-4"); set("eval_language", "fi"); set("", "unseen");
        const none = visible().length;
        set("", "pinch seen");
        const some = visible(), count = filter.querySelector("output").textContent;
        set("", ""); set("study", ""); set("eval_language", "");
        return { sorted, aria: head.getAttribute("aria-sort"), none, count, all: visible().length, total: values.length,
                 studies: [...new Set(some.map((row) => row.study))], codes: some.map((row) => row.eval_language) };
        """,
    )
    assert found["sorted"] is True
    assert found["aria"] == "descending"
    assert found["none"] == 0
    assert found["studies"] == ["pinch-4"]
    assert set(found["codes"]) == {"fi"}
    assert found["count"] == f"{len(found['codes'])} of {found['total']} rows"
    assert found["all"] == found["total"]


def test_responses_are_chosen_from_the_table_and_from_the_lists(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """
        const shown = () => ({
          head: page.querySelector("#shown h3").textContent,
          texts: [...page.querySelectorAll("#shown .said")].map((said) => [said.textContent, said.lang, said.dir]),
          pill: page.querySelector("#shown .pill").textContent,
        });
        page.querySelector('#score-table tr[data-model="pinch-4-p10"] [data-sample]').click();
        await soon();
        const russian = shown();
        const language = page.getElementById("pick-language");
        language.value = "he";
        language.dispatchEvent(new inside.Event("change"));
        return { russian, hebrew: shown(), focus: page.activeElement.id, hash: inside.location.hash };
        """,
    )
    assert found["russian"]["head"] == "pinch-4-p10 against mono-ru, evaluated in Russian"
    assert ["Следующий месяц: сентябрь", "ru", "ltr"] in found["russian"]["texts"]
    assert found["russian"]["pill"] == "win"
    assert found["focus"] == "responses"
    assert {(lang, side) for _, lang, side in found["hebrew"]["texts"]} == {("he", "rtl")}
    assert found["hebrew"]["pill"] == "not judged yet"


def test_hostile_texts_run_nothing_and_are_shown_as_they_are(hostile: Path, tmp_path: Path) -> None:
    found = ask(
        hostile,
        tmp_path,
        """
        const models = page.getElementById("pick-model"), language = page.getElementById("pick-language");
        const texts = [];
        for (const code of ["fi", "he"]) {
          language.value = code;
          language.dispatchEvent(new inside.Event("change"));
          for (const option of [...models.options]) {
            models.value = option.value;
            models.dispatchEvent(new inside.Event("change"));
            texts.push(page.querySelector("#shown .asked").textContent);
          }
        }
        for (const link of page.querySelectorAll("a")) if (link.protocol !== "https:") link.click();
        for (const spot of page.querySelectorAll(".hit")) point("pointermove", spot, "mouse");
        await soon();
        const far = [...page.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > 400
          && !one.closest(".scroll, nav ul, pre")).map((one) => one.outerHTML.slice(0, 90));
        return { title: page.title, texts, wide: page.documentElement.scrollWidth, far,
                 tags: page.querySelectorAll("#shown img, #shown script, #shown svg, #shown a, img, iframe").length };
        """,
    )
    assert found["title"] == "demo · Pinch report"
    assert found["tags"] == 0
    assert found["wide"] <= PHONE, found["far"]
    assert "</script><script>document.title='owned'</script>" in found["texts"]
    assert "line\u2028separator\u2029end" in found["texts"]
    assert "⟨U+202E⟩gnirts⟨U+202C⟩⟨U+2066⟩⟨U+2069⟩" in found["texts"]
    assert page_example.HOSTILE[7] in found["texts"]
    assert any(text.startswith("שלום") and "more characters" in text for text in found["texts"])


def test_nothing_of_the_page_is_wider_than_a_phone(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """
        for (const part of page.querySelectorAll("details")) part.open = true;
        await soon();
        const scrolls = (element) => element.closest(".scroll, .plate, nav ul, pre, .said");
        const out = [...page.querySelectorAll("main *, header *")]
          .filter((element) => !scrolls(element) && element.getBoundingClientRect().right > inside.innerWidth + 1)
          .map((element) => element.outerHTML.slice(0, 80));
        return { wide: page.documentElement.scrollWidth, out };
        """,
    )
    assert found["wide"] <= PHONE
    assert found["out"] == []


@pytest.mark.timeout(300)
def test_a_report_of_the_papers_size_is_drawn_in_a_minute_and_is_no_burden_to_a_browser(tmp_path: Path) -> None:
    plan, store = page_example.finished_store("paper-tiny", tmp_path / "store")
    began = time.monotonic()
    report = write_report(plan, store, "store", tmp_path / "out")
    assert time.monotonic() - began < 60
    assert report.page.stat().st_size < 15e6
    drawn = {path.name for path in report.files}
    for name in ("monolingual-shares", "table-slavic", "table-languages", "table-permutations"):
        assert f"paper-tiny-{name}.csv" in drawn, "figure 8, tables 1, 2 and 4"
    assert "avg_ci_low" in (tmp_path / "out" / "paper-tiny-monolingual.csv").read_text().splitlines()[0]
    found = ask(
        report.page,
        tmp_path,
        """
        const field = page.querySelector("#filter input"), times = [];
        const rows = page.querySelectorAll("#score-table tbody tr");
        for (const text of ["f", "fi", "finnish pinch", ""]) {
          const before = performance.now();
          field.value = text;
          field.dispatchEvent(new inside.Event("input", { bubbles: true }));
          page.body.offsetHeight;
          times.push(performance.now() - before);
        }
        const cells = JSON.parse(page.getElementById("cells").textContent).cells;
        return { rows: rows.length, cells: cells.length, samples: cells.map((cell) => cell[4].length), times,
                 linked: page.querySelectorAll("#score-table [data-sample]").length };
        """,
    )
    assert found["rows"] == 769 + 144
    assert found["cells"] == 562 + 144
    assert set(found["samples"]) <= {1, 2}
    assert max(found["times"]) < 1_000
    assert found["linked"] > 800
