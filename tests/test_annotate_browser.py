"""The sheet in a browser: filled in, kept, downloaded and taken in; hostile texts are read, not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.people.annotations import answers_in, take_in
from orchestrator.people.asking import export
from orchestrator.plan import Plan
from orchestrator.report.sheet import Question, render
from orchestrator.store import Store
from tests.browser import PHONE, ask, browse, needs_chromium
from tests.page_example import HOSTILE, finished_store
from tests.test_annotate import SWEEP

pytestmark = [pytest.mark.slow, needs_chromium]

READER = """
  const choose = (part, value) => page.querySelector(`[name=${part}][value="${value}"]`).click();
  const write = (id, value, kind) => {
    const field = page.getElementById(id);
    field.value = value;
    field.dispatchEvent(new inside.Event(kind, { bubbles: true }));
  };
  const saved = [];
  inside.Blob = class { constructor(parts) { saved.push(parts.join("")); } };
  inside.URL.createObjectURL = () => "blob:saved";
  inside.HTMLAnchorElement.prototype.click = function () { saved.push(this.download); };
"""


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, Path]:
    folder = tmp_path_factory.mktemp("sheet")
    (folder / "small.yaml").write_text(SWEEP)
    plan, store = finished_store(folder / "small.yaml", folder / "store")
    export(plan, store, folder, ["fi", "he"], 5, 0)
    return plan, store, folder / "small-annotate.html"


def test_a_filled_sheet_comes_back_as_a_file_that_is_taken_in(sheet: tuple[Plan, Store, Path], tmp_path: Path) -> None:
    plan, store, path = sheet
    found = ask(
        path,
        tmp_path,
        READER
        + """
        page.getElementById("download").click();
        const refused = page.getElementById("saved").textContent;
        write("rater", "Ann, =1", "input");
        write("rater", "Ann", "input");
        write("language", "he", "change");
        const shown = ["asked", "response_1"].map((id) => page.getElementById(id));
        const directions = shown.map((one) => [one.lang, one.dir]);
        for (let at = 0; at < 5; at += 1) {
          choose("rating_1", ["excellent", "pass", "fail"][at % 3]);
          choose("rating_2", "pass");
          if (at < 4) choose("preference", ["1", "tie", "2"][at % 3]);
          if (at < 4) page.getElementById("after").click();
        }
        const left = page.getElementById("left").textContent;
        choose("preference", "2");
        page.getElementById("download").click();
        return { refused, directions, left, done: page.getElementById("count").textContent,
                 end: page.getElementById("left").textContent, name: saved[1], text: saved[0] };
        """,
    )
    assert found["refused"] == "write your name first"
    assert found["directions"] == [["he", "rtl"], ["he", "rtl"]]
    assert found["left"].startswith("1 instruction is not answered")
    assert found["done"] == "5 of 5 in Hebrew"
    assert found["end"] == "Everything is answered. Thank you!"
    assert found["name"] == "small-Ann.csv"
    answers = tmp_path / found["name"]
    answers.write_text(found["text"])
    assert take_in(plan, store, [answers]) == ["Ann, Hebrew: 5 answers."]
    said = [one.answer for one in answers_in(plan, store)]
    assert [answer.preference for answer in said] == ["1", "tie", "2", "1", "2"]
    assert [answer.rating_1 for answer in said] == ["excellent", "pass", "fail", "excellent", "pass"]


def test_answers_are_there_again_when_the_sheet_is_opened_again(
    sheet: tuple[Plan, Store, Path], tmp_path: Path
) -> None:
    found = ask(
        sheet[2],
        tmp_path,
        READER
        + """
        write("rater", "Ben", "input");
        page.getElementById("after").click();
        choose("rating_2", "fail");
        const kept = page.getElementById("saved").textContent;
        await new Promise((done) => { frame.onload = done; inside.location.reload(); });
        const again = frame.contentDocument;
        return { kept, rater: again.getElementById("rater").value, number: again.getElementById("number").textContent,
                 chosen: [...again.querySelectorAll("input:checked")].map((input) => [input.name, input.value]),
                 state: again.getElementById("state").textContent };
        """,
    )
    assert found["kept"] == "kept in this browser"
    assert (found["rater"], found["number"], found["state"]) == ("Ben", "2 of 5", "not complete")
    assert found["chosen"] == [["rating_2", "fail"]]


def test_a_sheet_keeps_its_own_policy_and_fits_a_phone(sheet: tuple[Plan, Store, Path], tmp_path: Path) -> None:
    shown = browse(sheet[2].as_uri(), tmp_path / "alone")
    assert "Content Security Policy" not in shown
    assert "Refused to" not in shown
    found = ask(
        sheet[2],
        tmp_path,
        """
        const out = [...page.querySelectorAll("main *, header *")]
          .filter((one) => !one.closest(".places, .said") && one.getBoundingClientRect().right > inside.innerWidth + 1)
          .map((one) => one.outerHTML.slice(0, 80));
        const small = [...page.querySelectorAll(".choice span, .walk button, .finish button")]
          .filter((one) => one.getBoundingClientRect().height < 36).length;
        return { wide: page.documentElement.scrollWidth, out, small };
        """,
    )
    assert found["wide"] <= PHONE
    assert (found["out"], found["small"]) == ([], 0)


def test_hostile_texts_of_a_sheet_run_nothing_and_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    questions = [Question(f"fi-{at}", "fi", text, text, text) for at, text in enumerate(HOSTILE)]
    path.write_bytes(render("demo", questions).encode(errors="replace"))
    found = ask(
        path,
        tmp_path,
        READER
        + """
        const texts = [];
        for (let at = 0; at < page.querySelectorAll("#places li").length; at += 1) {
          page.querySelectorAll("#places button")[at].click();
          texts.push(page.getElementById("response_1").textContent);
        }
        write("rater", "<img src=x onerror=\\"document.title='owned'\\">", "input");
        choose("preference", "tie");
        page.getElementById("download").click();
        await soon();
        return { title: page.title, texts, wide: page.documentElement.scrollWidth, file: saved[0],
                 tags: page.querySelectorAll("#question :is(img, script, svg, a), img").length };
        """,
    )
    assert found["title"] == "demo · Pinch sheet"
    assert found["tags"] == 0
    assert found["wide"] <= PHONE
    assert found["texts"][:8] == list(HOSTILE[:8])
    assert "⟨U+202E⟩gnirts⟨U+202C⟩⟨U+2066⟩⟨U+2069⟩" in found["texts"]
    assert found["file"].splitlines()[1].startswith('"fi-13","<img src=x onerror=""document.title')
