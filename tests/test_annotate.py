"""People: a draw that can be drawn again and whose sides nobody can tell, answers checked row by row, what they say."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.people.annotations import COLUMNS, all_verdicts, answers_in, own_ratings, take_in
from orchestrator.people.asking import export
from orchestrator.people.draws import Draw, contests, draw, stored
from orchestrator.plan import Plan
from orchestrator.report.sheet import Question, as_csv, render
from orchestrator.report.tables import agreement_table
from orchestrator.reporting import write_report
from orchestrator.scores.agreement import agreement
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.page_example import HOSTILE, finished_store

LANGUAGES = ("en", "fi", "he")
SWEEP = (
    SMALL.replace("languages: [en, fi], train", "languages: [en, fi, he], train")
    .replace("eval_count: 6", "eval_count: 24")
    .replace("monolingual, languages: [en, fi]", "monolingual, languages: [en, fi, he]")
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sweep file, store) of a sweep with made-up responses and verdicts."""
    folder = tmp_path_factory.mktemp("annotate")
    (folder / "small.yaml").write_text(SWEEP)
    finished_store(folder / "small.yaml", folder / "store")
    return folder / "small.yaml", folder / "store"


class Room:
    """A sweep whose store this test alone adds to, with sheets of twelve instructions in each language."""

    def __init__(self, sweep: Path, store: Path, folder: Path) -> None:
        root = folder / "store"
        shutil.copytree(store, root, ignore=shutil.ignore_patterns("annotations"))
        self.sweep, self.folder = sweep, folder
        self.plan, self.store = Plan(load(str(sweep))), Store(root)
        self.said = export(self.plan, self.store, folder / "sheets", [], 12, 0)
        self.html = (folder / "sheets" / "small-annotate.html").read_text()
        self.csv = (folder / "sheets" / "small-annotate.csv").read_text(encoding="utf-8-sig")

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.csv)))

    @property
    def draws(self) -> dict[str, Draw]:
        return {drawn.language: drawn for drawn, _ in stored(self.plan, self.store)}

    def answers(
        self,
        rater: str,
        languages: tuple[str, ...] = ("fi",),
        preference: Callable[[str], str] = lambda item: "1",
        ratings: Callable[[str], tuple[str, str]] = lambda item: ("pass", "fail"),
    ) -> Path:
        """A file of one person's answers."""
        path = self.folder / f"{rater}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for row in self.rows:
                if row["language"] in languages:
                    writer.writerow((row["item"], rater, preference(row["item"]), *ratings(row["item"])))
        return path

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.store.root.glob("annotations/*/*.csv"))

    def judge(self) -> dict[str, str]:
        """The judge's verdict on each item, a, b or tie, from the verdict files themselves."""
        sets = {step.family: step.key for step in self.plan.of_kind("generation_set")}
        found = {}
        for drawn in self.draws.values():
            for item in drawn.items:
                (entry,) = (
                    entry
                    for entry in self.store.entries("comparison").values()
                    if entry.manifest["payload"]["baseline"] == sets[drawn.own]
                    and entry.manifest["payload"]["model"] == sets[item.other]
                )
                said = {
                    row["order"]: row["choice"]
                    for row in pq.read_table(self.store.root / entry.place / "verdicts.parquet").to_pylist()
                    if row["instruction_id"] == item.instruction_id
                }
                found[item.id] = {(1, 2): "a", (2, 1): "b"}.get((said["ab"], said["ba"]), "tie")
        return found

    def place(self, verdict: Callable[[str], str]) -> Callable[[str], str]:
        """The preference a person writes on the sheet to say a, b or tie of an item."""
        first = {item.id: item.own_first for drawn in self.draws.values() for item in drawn.items}

        def written(item: str) -> str:
            said = verdict(item)
            return said if said == "tie" else "1" if (said == "a") == first[item] else "2"

        return written


@pytest.fixture
def room(finished: tuple[Path, Path], tmp_path: Path) -> Room:
    return Room(*finished, tmp_path)


# The draw


def test_a_draw_holds_other_monolingual_models_against_the_languages_own(room: Room) -> None:
    families = {step.family: step.name for step in room.plan.of_kind("generation_set")}
    assert set(room.draws) == set(LANGUAGES)
    for code, drawn in room.draws.items():
        assert families[drawn.own] == f"mono-{code}.{code}"
        others = {families[item.other] for item in drawn.items}
        assert others == {f"mono-{other}.{code}" for other in LANGUAGES if other != code}
        assert len({item.instruction_id for item in drawn.items}) == 12
        assert {item.own_first for item in drawn.items} == {True, False}


def test_the_same_seed_draws_the_same_and_another_seed_something_else(room: Room) -> None:
    cells = contests(room.plan)["fi"]
    again = draw(Plan(load(str(room.sweep))), "fi", cells, 12, 0)
    assert again == room.draws["fi"]
    assert draw(room.plan, "fi", list(reversed(cells)), 12, 0) == again
    other = draw(room.plan, "fi", cells, 12, 1)
    assert [item.instruction_id for item in other.items] != [item.instruction_id for item in again.items]
    assert not {item.id for item in other.items} & {item.id for item in again.items}


def test_a_draw_outlives_a_larger_set_of_prompts(room: Room) -> None:
    larger = Plan(load(str(room.sweep), ["corpus.eval_count=40"]))
    assert {drawn.language for drawn, _ in stored(larger, room.store)} == set(LANGUAGES)
    longer = Plan(load(str(room.sweep), ["recipe.steps=12"]))
    assert list(stored(longer, room.store)) == []


# The sheets


def test_each_side_shows_the_response_that_the_key_says(room: Room) -> None:
    sets = {step.family: step.key for step in room.plan.of_kind("generation_set")}
    rows = {row["item"]: row for row in room.rows}
    assert len(rows) == 36
    for drawn in room.draws.values():
        for item in drawn.items:
            texts = []
            for family in (drawn.own, item.other) if item.own_first else (item.other, drawn.own):
                entry = room.store.find("generation_set", sets[family])
                assert entry is not None
                found = pq.read_table(room.store.root / entry.place / "responses.parquet").to_pylist()
                texts += [row["text"] for row in found if row["instruction_id"] == item.instruction_id]
            shown = rows[item.id]
            assert [shown["response_1"].removeprefix("'"), shown["response_2"].removeprefix("'")] == texts


def test_nothing_on_a_sheet_tells_the_sides_apart(room: Room) -> None:
    data = json.loads(re.search(r'id="data">(.*?)</script>', room.html, re.S).group(1))  # type: ignore[union-attr]
    assert set(data) == {"sweep", "sheet", "languages", "questions"}
    assert {len(question) for question in data["questions"]} == {5}
    for text in (room.html, room.csv):
        assert "mono-" not in text
        assert "own_first" not in text
        for drawn in room.draws.values():
            for item in drawn.items:
                assert not any(key[:12] in text for key in (drawn.own, item.other, drawn.key))


def test_exporting_again_changes_nothing_and_a_filled_sheet_is_never_replaced(room: Room, pinch: Pinch) -> None:
    told = ("annotate", "export", room.sweep, "--store", room.store.root, "--out", room.folder / "sheets")
    pinch(*told, "--count", "12")
    filled = room.folder / "sheets" / "small-annotate.csv"
    filled.write_text(filled.read_text().replace(",,,,", ",ann,1,pass,fail", 1))
    before = filled.read_text()
    again = pinch(*told, "--count", "12", check=2)
    assert "small-annotate.csv: is there already" in again.stderr
    assert filled.read_text() == before


def test_fewer_prompts_than_asked_for_and_languages_are_said(room: Room, pinch: Pinch, tmp_path: Path) -> None:
    told = ("annotate", "export", room.sweep, "--store", room.store.root, "--out", tmp_path / "more")
    said = pinch(*told, "--language", "he").stderr
    assert "24 instructions in each of Hebrew." in said
    assert "no more prompts than that; 50 were asked for" in said
    refused = pinch(*told, "--language", "ru", check=2).stderr
    assert "--language ru: the sweep's monolingual models meet in en, fi, he" in refused


def test_responses_that_are_not_there_are_named_and_nothing_is_written(
    finished: tuple[Path, Path], pinch: Pinch, tmp_path: Path
) -> None:
    told = ("annotate", "export", finished[0], "--store", tmp_path / "none", "--out", tmp_path / "sheets")
    said = pinch(*told, check=2).stderr
    assert "mono-" in said and "is not there yet" in said and "pinch run" in said
    assert not (tmp_path / "sheets").exists() and not (tmp_path / "none").exists()
    alone = ("--set", "studies=[{study: pinch, languages: [en, fi], percents: [50], counts: []}]")
    assert "monolingual study" in pinch(*told, *alone, check=2).stderr


def test_hostile_texts_stand_on_a_sheet_as_text_alone() -> None:
    questions = [Question(f"fi-{at}", "he", text, f"1{text}", text) for at, text in enumerate(HOSTILE)]
    page = render("demo", questions)
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    assert "default-src 'none'" in unescape(page)
    assert "unsafe" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert data["questions"][0][2] == HOSTILE[0]
    assert data["languages"] == {"he": ["Hebrew", "rtl"]}


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_spreadsheet_takes_no_response_for_a_formula(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([Question("fi-0", "fi", text, text, text)])))
    assert row["instruction"] == row["response_1"] == row["response_2"] == f"'{text}"


# Answers that do not hold


def _spoilt(change: Callable[[list[str]], list[str]]) -> Callable[[Room], str]:
    return lambda room: "\n".join(change(room.answers("ann").read_text().splitlines())) + "\n"


def _swap(row: int, old: str, new: str) -> Callable[[Room], str]:
    return _spoilt(lambda lines: [*lines[:row], lines[row].replace(old, new, 1), *lines[row + 1 :]])


BAD = {
    "wrong columns": (_swap(0, "preference", "better"), ["row 1", "preference", "needed"]),
    "an unknown item": (_swap(3, "fi-", "fi-x"), ["row 4", "fi-x", "no sheet"]),
    "a doubled row": (_spoilt(lambda lines: [*lines, lines[2]]), ["row 14", "second answer of ann", "row 3"]),
    "an unknown choice": (_swap(2, "ann,1", "ann,left"), ["row 3", "'left'", "1, 2, tie"]),
    "an unknown rating": (_swap(2, "pass", "good"), ["row 3", "rating_1", "'good'", "excellent, pass, fail"]),
    "an empty rating": (_swap(2, "fail", ""), ["row 3", "no rating_2", "excellent, pass, fail"]),
    "nobody's name": (_swap(2, "ann", ""), ["row 3", "rater", "a name"]),
    "a name that is a path": (_swap(2, "ann", "../ann"), ["row 3", "'../ann'", "a name"]),
    "the judge's name": (_swap(2, "ann", "judge"), ["row 3", "'judge'", "another name"]),
    "missing rows": (
        _spoilt(lambda lines: lines[:-2]),
        ["row 11", "10 answers of ann in Finnish, of 12", "and 1 more"],
    ),
    "no answers": (_spoilt(lambda lines: lines[:1]), ["row 1", "answer the sheet"]),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_do_not_hold_are_refused_with_file_and_row_and_nothing_is_kept(
    case: str, room: Room, pinch: Pinch
) -> None:
    spoil, words = BAD[case]
    bad = room.folder / "bad.csv"
    bad.write_text(spoil(room))
    good = room.answers("ben")
    done = pinch("annotate", "import", room.sweep, good, bad, "--store", room.store.root, check=2)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for word in ("bad.csv", *words):
        assert word in done.stderr
    assert room.kept() == []


def test_the_spreadsheet_comes_back_with_one_language_filled_in(room: Room) -> None:
    filled = room.folder / "filled.csv"
    lines = [
        line.replace(",,,,", ",Ann,tie,pass,pass") if line.startswith("fi-") else line for line in room.csv.splitlines()
    ]
    filled.write_text("\n".join(lines), encoding="utf-8-sig")
    assert take_in(room.plan, room.store, [filled]) == ["Ann, Finnish: 12 answers."]


def test_what_a_rater_said_is_never_replaced_in_silence(room: Room, pinch: Pinch) -> None:
    told = ("annotate", "import", room.sweep, "--store", room.store.root)
    first = room.answers("ann")
    assert "ann, Finnish: 12 answers." in pinch(*told, first).stderr
    assert "there already" in pinch(*told, first).stderr
    kept = next(room.store.root.glob("annotations/*/ann.csv"))
    before = kept.read_text()
    other = room.answers("ann", preference=lambda item: "tie")
    refused = pinch(*told, room.answers("ben"), other, check=2).stderr
    assert "has other answers of ann" in refused and "--replace" in refused
    assert kept.read_text() == before
    assert room.kept() == ["ann.csv"]
    assert "in the place of others" in pinch(*told, other, "--replace").stderr
    assert "tie" in kept.read_text()


@pytest.mark.parametrize("rater", ["Ann Lee", "מיכל", "दिव्या", "jean-luc"])
def test_a_rater_may_have_a_name_in_any_script(rater: str, room: Room) -> None:
    take_in(room.plan, room.store, [room.answers(rater)])
    assert {one.answer.rater for one in answers_in(room.plan, room.store)} == {rater}


# What it comes to


def test_agreement_between_people_is_one_a_half_or_nothing(room: Room) -> None:
    said = {"ann": "1", "ben": "1", "cem": "2", "dee": "tie"}
    take_in(
        room.plan, room.store, [room.answers(name, preference=lambda item, way=way: way) for name, way in said.items()]
    )
    found = agreement(all_verdicts(room.plan, room.store))
    pairs = {tuple(entry["raters"]): entry for entry in found["languages"]["fi"]}
    assert pairs["ann", "ben"] == {"raters": ["ann", "ben"], "agreement": 100.0, "n": 12}
    assert pairs["ann", "cem"]["agreement"] == 0.0
    assert pairs["ann", "dee"]["agreement"] == pairs["cem", "dee"]["agreement"] == 50.0


def test_people_and_the_judge_agree_on_responses_not_on_places(room: Room) -> None:
    judge = room.judge()
    assert set(judge.values()) == {"a", "b", "tie"}
    other = {"a": "b", "b": "a", "tie": "a"}
    files = [
        room.answers("same", LANGUAGES, room.place(judge.__getitem__)),
        room.answers("contrary", LANGUAGES, room.place(lambda item: other[judge[item]])),
        room.answers("undecided", LANGUAGES, lambda item: "tie"),
    ]
    take_in(room.plan, room.store, files)
    found = agreement(all_verdicts(room.plan, room.store))
    for code, drawn in room.draws.items():
        pairs = {tuple(entry["raters"]): entry for entry in found["languages"][code]}
        ties = sum(judge[item.id] == "tie" for item in drawn.items)
        assert pairs["judge", "same"] == {"raters": ["judge", "same"], "agreement": 100.0, "n": 12}
        assert pairs["contrary", "judge"]["agreement"] == pytest.approx(100 * ties / 2 / 12)
        assert pairs["judge", "undecided"]["agreement"] == pytest.approx(100 * (ties + (12 - ties) / 2) / 12)
    table = agreement_table(found)
    assert [row[0] for row in table.rows] == ["English", "Hebrew", "Finnish"]
    assert [row[3] for row in table.rows] == ["79.5", "75.0", ""]


def test_what_the_judge_could_not_say_is_no_verdict_of_its(room: Room) -> None:
    take_in(room.plan, room.store, [room.answers("ann")])
    no_judge = Plan(load(str(room.sweep), ["judge={kind: remote, model: m, base_url: 'http://localhost:1/v1'}"]))
    found = agreement(all_verdicts(no_judge, room.store))
    assert found["languages"] == {"fi": []}


def test_ratings_are_of_the_languages_own_model_wherever_it_stood(room: Room) -> None:
    first = {item.id: item.own_first for drawn in room.draws.values() for item in drawn.items}
    own = {row["item"]: ("excellent", "pass", "fail")[at % 3] for at, row in enumerate(room.rows)}
    files = [
        room.answers(
            "ann", ("en",), ratings=lambda item: ("excellent", "fail") if first[item] else ("fail", "excellent")
        ),
        room.answers("ben", ("fi",), ratings=lambda item: (own[item], "fail") if first[item] else ("fail", own[item])),
    ]
    take_in(room.plan, room.store, files)
    found = {row["language"]: row for row in own_ratings(answers_in(room.plan, room.store))}
    assert found["en"] == {"language": "en", "excellent": 100.0, "pass": 0.0, "fail": 0.0, "n": 12}
    expected = Counter(own[row["item"]] for row in room.rows if row["language"] == "fi")
    assert {part: found["fi"][part] for part in expected} == {part: 100 * n / 12 for part, n in expected.items()}


def test_the_report_has_figure_2_and_table_3_of_what_people_said(room: Room, pinch: Pinch) -> None:
    none = pinch("agreement", room.sweep, "--store", room.store.root, check=2).stderr
    assert "holds no annotations" in none and "pinch annotate export" in none
    take_in(room.plan, room.store, [room.answers("ann", ("en", "he")), room.answers("ben", ("en",))])
    printed = pinch("agreement", room.sweep, "--store", room.store.root)
    assert {tuple(entry["raters"]) for entry in json.loads(printed.stdout)["languages"]["en"]} == {
        ("ann", "ben"),
        ("ann", "judge"),
        ("ben", "judge"),
    }
    assert "English" in printed.stderr and "79.5" in printed.stderr
    report = write_report(room.plan, room.store, "store", room.folder / "report")
    page = report.page.read_text()
    assert "Responses as people rate them" in page
    assert "How far the judge agrees with people" in page
    rated = list(csv.DictReader((room.folder / "report" / "small-ratings.csv").open()))
    assert [(row["language"], row["source"], row["n"]) for row in rated[:3]] == [
        ("en", "here", "24"),
        ("en", "published", "100"),
        ("he", "here", "12"),
    ]
    table = list(csv.DictReader((room.folder / "report" / "small-table-agreement.csv").open()))
    assert [row["language"] for row in table] == ["English", "Hebrew"]
