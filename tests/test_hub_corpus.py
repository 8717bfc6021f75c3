"""Rules of the paper's public data: what of LIMA, OASST1 and AlpacaFarm is taken, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.corpus.base import Example, read_examples
from orchestrator.corpus.hub import HubCorpus
from orchestrator.corpus.hub_data import PUBLIC, Source
from orchestrator.plan import Plan
from orchestrator.sweep import load
from tests.conftest import Pinch
from tests.hub_examples import ENGLISH, Row, factory, gair, lines, message, prompts, tree
from trainables.errors import UserError
from trainables.translators import GoogleTranslator


def pairs(source: Source) -> list[tuple[str, str | None]]:
    return [(example.instruction, example.response) for example in source.examples]


def oasst1(tmp_path: Path, rows: list[Row]) -> Source:
    return Source("oasst1", copy=str(lines(tmp_path / "oasst1.jsonl", rows)))


# LIMA


@pytest.mark.parametrize("form", [gair, factory])
def test_of_lima_the_single_turns_are_taken_in_the_files_order(form: Any, tmp_path: Path) -> None:
    source = Source("lima", copy=str(lines(tmp_path / "lima.jsonl", form())))
    assert source.examples[0] == Example("lima-0000", "q0", "a0")
    assert pairs(source) == [("q0", "a0"), ("q1", "a1"), ("q2", "a2"), ("q3", "a3"), ("q5", "a5")]
    assert source.left_out == {"more than one turn": 1}


def test_one_content_is_one_corpus_in_whatever_form_it_comes(tmp_path: Path) -> None:
    listed = tmp_path / "lima.json"
    listed.write_text(json.dumps(factory(), indent=2))
    table = tmp_path / "lima.parquet"
    pq.write_table(pa.Table.from_pylist(gair()), table)
    copies = [lines(tmp_path / "lima.jsonl", gair()), listed, table]
    assert len({json.dumps(Source("lima", copy=str(copy)).payload) for copy in copies}) == 1
    other = lines(tmp_path / "other.jsonl", gair(7))
    assert Source("lima", copy=str(other)).payload != Source("lima", copy=str(listed)).payload


def test_an_input_follows_its_instruction_as_alpacaeval_prints_it(tmp_path: Path) -> None:
    row = factory(1)[0] | {"input": "this"}
    assert pairs(Source("lima", copy=str(lines(tmp_path / "lima.jsonl", [row])))) == [("q0\n\nthis", "a0")]


# OASST1


def test_of_each_tree_the_first_prompt_has_its_best_ranked_reply(tmp_path: Path) -> None:
    later = [message("b3", "b1", role="prompter"), message("b4", "b3", role="assistant", rank=0)]
    source = oasst1(tmp_path, [*tree("b"), *later, *reversed(tree("a"))])
    assert source.examples == [Example("oasst1-0000", "text a", "text a1"), Example("oasst1-0001", "text b", "text b1")]
    assert source.left_out == {"a lower-ranked reply": 2, "a later turn": 2}


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"deleted": True}, "deleted"),
        ({"review_result": False}, "not let pass by a review"),
        ({"review_result": None}, "not let pass by a review"),
        ({"lang": "es"}, "not in English"),
        ({"text": " "}, "blank"),
        ({"text": None}, "blank"),
    ],
)
def test_messages_that_are_not_fit_are_left_out(what: Row, reason: str, tmp_path: Path) -> None:
    first, second, best = tree("a")
    assert pairs(oasst1(tmp_path, [first, second, best | what])) == [("text a", "text a2")]
    without = oasst1(tmp_path, [*tree("b"), first | what, second, best])
    assert pairs(without) == [("text b", "text b1")]
    assert without.left_out[reason] == 1


def test_a_tree_whose_replies_are_all_left_out_has_no_pair(tmp_path: Path) -> None:
    source = oasst1(tmp_path, [*tree("a"), message("b"), message("b1", "b", deleted=True)])
    assert pairs(source) == [("text a", "text a1")]
    assert source.left_out["a first prompt without a reply"] == 1


@pytest.mark.parametrize(
    ("ranks", "taken"),
    [((2, 1, None), 1), ((None, 3, 2), 2), ((None, None, None), 0), ((1, 1, 0.0), 2), (("10", "9", "none"), 1)],
)
def test_the_lowest_rank_is_best_and_none_is_last(ranks: tuple[Any, ...], taken: int, tmp_path: Path) -> None:
    replies = [message(f"a{at}", "a", rank=rank) for at, rank in enumerate(ranks)]
    assert pairs(oasst1(tmp_path, [message("a"), *reversed(replies)])) == [("text a", f"text a{taken}")]


def test_ranks_parents_and_truth_values_may_be_left_away_or_be_text(tmp_path: Path) -> None:
    plain = [*tree("a"), *tree("b", deleted=True), message("c"), message("c1", "c", review_result=False)]
    as_text = [{name: str(value) for name, value in row.items()} for row in plain]
    sparse = [{name: value for name, value in row.items() if value is not None} for row in plain]
    expected = pairs(oasst1(tmp_path, plain))
    assert expected == [("text a", "text a1")]
    assert pairs(oasst1(tmp_path, as_text)) == pairs(oasst1(tmp_path, sparse)) == expected


def test_ids_do_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [row for key in "cab" for row in tree(key)]
    assert oasst1(tmp_path, rows).payload == oasst1(tmp_path, rows[::-1]).payload


def test_no_more_is_taken_than_the_paper_took(tmp_path: Path) -> None:
    rows = [row for at in range(3645) for row in (message(f"{at:05d}"), message(f"{at:05d}r", f"{at:05d}"))]
    source = oasst1(tmp_path, rows)
    assert source.size == len(source.examples) == 3640
    assert source.examples[-1] == Example("oasst1-3639", "text 03639", "text 03639r")
    assert source.left_out == {"beyond the first 3640": 5}


# AlpacaFarm


def test_of_alpacafarm_oassts_prompts_are_left_out_and_no_output_is_a_reference(tmp_path: Path) -> None:
    source = Source("alpacafarm", copy=str(lines(tmp_path / "farm.jsonl", prompts())))
    assert pairs(source) == [("do 0", None), ("do 1", None), ("do 3", None), ("do 4", None)]
    assert source.left_out == {"from OASST1": 1}


# What cannot be used


def _spoilt(tmp_path: Path, name: str, content: str) -> str:
    path = tmp_path / f"copy.{'json' if content.lstrip().startswith('[') else 'jsonl'}"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as found:
        _ = Source(name, copy=str(path)).examples
    assert str(found.value).startswith(str(path))
    return str(found.value)


LIST = json.dumps(factory(), indent=1)
SPOILT = {
    "a list that ends inside a row": ("lima", LIST[: LIST.index("q3") + 1], ["row 4", "cut off", "again"]),
    "a list that ends after a row": ("lima", LIST[: LIST.index("q3")].rpartition("},")[0] + "}", ["after row 3"]),
    "a list that is only begun": ("lima", "[", ["row 1", "cut off"]),
    "a broken row in a list": ("lima", LIST.replace('"q3"', "q3"), ["row 4", "not JSON"]),
    "a row that is no object": ("lima", '[{"instruction": "a", "output": "b"}, 7]', ["row 2", "a number"]),
    "a line that is cut off": ("oasst1", json.dumps(message("a")) + '\n{"message_id": "b', ["row 2", "not JSON"]),
    "a doubled message": ("oasst1", json.dumps(message("a")) + "\n" + json.dumps(message("a")), ["row 2", "second"]),
    "a strange truth value": ("oasst1", json.dumps(message("a", deleted="maybe")), ["row 1", "maybe", "deleted"]),
    "a strange rank": ("oasst1", json.dumps(message("a1", "a", rank="best")), ["row 1", "best", "rank"]),
    "a strange role": ("oasst1", json.dumps(message("a", role="system")), ["row 1", "system", "role"]),
    "no message id": ("oasst1", json.dumps({"text": "a"}), ["row 1", "message_id"]),
    "half a character": ("oasst1", json.dumps(message("a", text="\ud800")), ["row 1", "half a character"]),
    "an empty answer": ("lima", json.dumps(factory(1)[0] | {"output": " "}), ["row 1", "empty output"]),
    "a conversation without an answer": ("lima", '{"conversations": ["a"]}', ["row 1", "without an answer"]),
    "turns that are not text": ("lima", '{"conversations": [{"from": "human"}]}', ["row 1", "list of texts"]),
    "no data set": ("alpacafarm", '{"instruction": "a"}', ["row 1", "dataset", "OASST1"]),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_copy_is_refused_with_its_row(case: str, tmp_path: Path) -> None:
    name, content, words = SPOILT[case]
    said = _spoilt(tmp_path, name, content)
    for word in words:
        assert word in said, said


def test_a_hub_that_holds_less_than_planned_is_refused_with_both_numbers(tmp_path: Path) -> None:
    made = corpus(tmp_path, train_count=8)
    made.train = (made.train[0], oasst1(tmp_path, tree("a")))
    with pytest.raises(UserError, match="8 is more than the 6 pairs of lima and oasst1; lower it to 6"):
        made.prepare(["en"])


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    path.write_text('{"instruction": "a"}')
    with pytest.raises(UserError, match="not a JSON list"):
        _ = Source("lima", copy=str(path)).examples


# The corpus


def corpus(tmp_path: Path, train_count: int = 7, eval_count: int = 4, references: bool = False) -> HubCorpus:
    messages = [row for key in "abc" for row in tree(key)]
    return HubCorpus(
        train=[Source("lima", copy=str(lines(tmp_path / "l.jsonl", gair()))), oasst1(tmp_path, messages)],
        evaluation=Source("alpacafarm", copy=str(lines(tmp_path / "f.jsonl", prompts()))),
        translator=GoogleTranslator(),
        train_count=train_count,
        eval_count=eval_count,
        needs_references=references,
    )


def test_a_build_holds_the_whole_pool_and_says_what_was_left_out(tmp_path: Path) -> None:
    made = corpus(tmp_path, train_count=6)
    assert made.train_ids() == [f"lima-{at:04d}" for at in range(5)] + ["oasst1-0000"]
    assert made.eval_ids() == [f"alpacafarm-{at:04d}" for at in range(4)]
    found = made.build("en", tmp_path)
    assert (found["train"], found["eval"]) == (8, 4)
    assert found["left_out"] == {
        "lima": {"more than one turn": 1},
        "oasst1": {"a lower-ranked reply": 3},
        "alpacafarm": {"from OASST1": 1},
    }
    assert [row.id for row in read_examples(tmp_path / "train.parquet")][:6] == made.train_ids()
    assert [row.response for row in read_examples(tmp_path / "eval.parquet")] == [None] * 4


def test_the_reference_judge_is_refused_for_prompts_without_references(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="AlpacaFarm's prompts have none"):
        corpus(tmp_path, references=True)


def test_counts_move_no_key_and_parts_are_keyed_apart(tmp_path: Path) -> None:
    before = corpus(tmp_path).payload("en")
    assert corpus(tmp_path, train_count=2, eval_count=1).payload("en") == before
    made = corpus(tmp_path)
    made.evaluation = Source("alpacafarm")
    assert {name for name, value in made.payload("en").items() if before[name] != value} == {"eval"}


def test_other_languages_are_translated_and_never_built(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fi is translated"):
        corpus(tmp_path).build("fi", tmp_path)
    payload = corpus(tmp_path).payload("fi")
    assert payload["translator"]["engine"] == "google"
    assert payload["train"] == corpus(tmp_path).payload("en")["train"]


def test_every_source_is_pinned_to_a_commit() -> None:
    for name, data in PUBLIC.items():
        assert Source(name).payload == {"name": data.repository, "revision": data.revision, "version": 1}
        with pytest.raises(UserError, match="a branch may move"):
            Source(name, revision="main")


# The commands


@pytest.fixture
def english(tmp_path: Path) -> Path:
    path = tmp_path / "english.yaml"
    path.write_text(ENGLISH)
    return path


def _copies(tmp_path: Path) -> str:
    made = corpus(tmp_path)
    copies = {source.data.name: str(source.copy) for source in (*made.train, made.evaluation)}
    return f"corpus.copies={json.dumps(copies)}"


def test_too_few_pairs_are_refused_with_both_numbers_and_the_cure(english: Path, pinch: Pinch, tmp_path: Path) -> None:
    copies = ["--set", _copies(tmp_path), "--store", tmp_path / "store"]
    said = pinch("run", english, *copies, "--set", "corpus.train_count=9", check=2).stderr
    assert "corpus.train_count: 9 is more than the 8 pairs of lima and oasst1; lower it to 8." in said
    assert not (tmp_path / "store").exists()
    pinch("plan", english, *copies)


def test_a_truncated_copy_is_refused_before_anything_is_written(english: Path, pinch: Pinch, tmp_path: Path) -> None:
    cut = tmp_path / "cut.json"
    cut.write_text(LIST[: LIST.index("q3") + 1])
    done = pinch("run", english, "--set", f"corpus.copies={{lima: {cut}}}", "--store", tmp_path / "store", check=2)
    assert f"{cut}: row 4 is cut off; get the whole file again." in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("corpus.copies={lima: none.json}", ["corpus.copies.lima", "none.json", "not there"]),
        ("corpus.copies={lima: lima.txt}", ["corpus.copies.lima", ".txt", ".parquet"]),
        ("corpus.copies={limo: a.json}", ["limo"]),
        ("corpus.revisions={lima: main}", ["corpus.revisions.lima", "main", "commit"]),
        ("corpus.train=[lima, lima]", ["corpus.train", "twice"]),
        ("judge={kind: reference}", ["judge", "reference", "AlpacaFarm"]),
    ],
)
def test_a_bad_setting_is_refused_in_a_sentence(setting: str, words: list[str], english: Path, pinch: Pinch) -> None:
    said = pinch("plan", english, "--set", setting, check=2).stderr
    assert len(said.strip().splitlines()) == 1
    for word in words:
        assert word in said


REAL = os.environ.get("PINCH_REAL_DATA", "")
real = pytest.mark.skipif(not REAL, reason="PINCH_REAL_DATA names no folder with the public files")


@real
def test_real_lima_has_a_thousand_single_turns() -> None:
    source = Source("lima", copy=f"{REAL}/lima.json")
    assert source.size == 1000
    assert source.left_out == {"more than one turn": 29}
    assert source.examples[0].instruction.startswith("Can brain cells move?")


@real
def test_real_alpacafarm_has_617_prompts() -> None:
    source = Source("alpacafarm", copy=f"{REAL}/alpaca_farm_eval_805.json")
    assert source.size == 617
    assert source.left_out == {"from OASST1": 188}


@real
def test_every_real_tree_of_oasst1_has_its_pair() -> None:
    path = Path(REAL) / "oasst1_en_validation.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    roots = sorted((row for row in rows if row["parent_id"] is None), key=lambda row: row["message_id"])
    source = Source("oasst1", copy=str(path))
    assert [example.instruction for example in source.examples] == [root["text"] for root in roots]
    for root, example in zip(roots, source.examples, strict=True):
        fit = [row for row in rows if row["parent_id"] == root["message_id"] and row["review_result"]]
        ranks = {row["message_id"]: row["rank"] for row in fit if not row["deleted"] and row["rank"] is not None}
        best = {row["text"] for row in fit if row["rank"] == min(ranks.values(), default=None)}
        assert example.response in best


@real
def test_the_real_files_make_a_plan_and_too_few_of_them_do_not() -> None:
    copies = {"lima": "lima.json", "oasst1": "oasst1_en_validation.jsonl", "alpacafarm": "alpaca_farm_eval_805.json"}
    setting = f"corpus.copies={json.dumps({name: f'{REAL}/{file}' for name, file in copies.items()})}"
    with pytest.raises(UserError, match="4640 is more than the 1188 pairs of lima and oasst1; lower it to 1188"):
        Plan(load("paper", [setting]))
    assert Plan(load("paper", [setting, "corpus.train_count=1188"])).counts()["judge_calls"] == 693508
