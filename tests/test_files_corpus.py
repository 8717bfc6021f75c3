"""Rules of a user's own parallel files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.corpus.base import Corpus, Example, read_examples, write_examples
from orchestrator.corpus.files import FilesCorpus
from orchestrator.corpus.rows import JSON_LIST, read_rows
from trainables.errors import UserError

Row = dict[str, Any]


def rows(languages: str = "en fi", count: int = 4, kind: str = "t") -> list[Row]:
    return [
        {
            "id": f"{kind}{number}",
            "language": code,
            "instruction": f"say {number} in {code}",
            "response": f"{code} ä{number}",
        }
        for number in reversed(range(count))
        for code in languages.split()
    ]


def jsonl(path: Path, content: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content), encoding="utf-8")
    return path


def parquet(path: Path, content: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(content), path)
    return path


def corpus(
    tmp_path: Path, train: list[Row] | Path, prompts: list[Row] | Path | None = None, **changes: Any
) -> FilesCorpus:
    files = {"train": train, "eval": rows(count=2, kind="e") if prompts is None else prompts}
    paths = [
        content if isinstance(content, Path) else jsonl(tmp_path / f"{name}.jsonl", content)
        for name, content in files.items()
    ]
    settings: Row = {"languages": ["en", "fi"], "train_count": 3, "eval_count": 2, "needs_references": True}
    return FilesCorpus(train=paths[0], eval=paths[1], **(settings | changes))


def test_it_is_a_corpus(tmp_path: Path) -> None:
    found: Corpus = corpus(tmp_path, rows())
    assert found.source == "files"


def test_ids_are_the_first_in_sorted_order(tmp_path: Path) -> None:
    found = corpus(tmp_path, rows())
    assert found.train_ids() == ["t0", "t1", "t2"]
    assert found.eval_ids() == ["e0", "e1"]


@pytest.mark.parametrize("languages", [["en", "fi"], ["fi", "en"]])
def test_a_build_holds_the_whole_pool_of_one_language(tmp_path: Path, languages: list[str]) -> None:
    found = corpus(tmp_path, rows(), languages=languages)
    assert found.build("fi", tmp_path) == {"train": 4, "eval": 2}
    train = read_examples(tmp_path / "train.parquet")
    assert [row.id for row in train] == ["t0", "t1", "t2", "t3"]
    assert train[1] == Example("t1", "say 1 in fi", "fi ä1")
    assert read_examples(tmp_path / "eval.parquet")[0] == Example("e0", "say 0 in fi", "fi ä0")


def test_parquet_and_json_lines_of_one_content_are_one_corpus(tmp_path: Path) -> None:
    text = corpus(tmp_path, rows())
    table = corpus(
        tmp_path,
        parquet(tmp_path / "train.parquet", rows()),
        parquet(tmp_path / "e.parquet", rows(count=2, kind="e")),
    )
    assert table.payload("fi") == text.payload("fi")
    assert table.train_ids() == text.train_ids()


def test_numbers_are_ids_in_either_form(tmp_path: Path) -> None:
    numbered = [row | {"id": int(row["id"][1:])} for row in rows()]
    assert corpus(tmp_path, numbered).train_ids() == ["0", "1", "2"]
    assert corpus(tmp_path, parquet(tmp_path / "train.parquet", numbered)).train_ids() == ["0", "1", "2"]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content + rows("ru"),
        lambda content: list(reversed(content)),
        lambda content: [row | {"note": "more"} for row in content],
        lambda content: [row | ({"response": "new"} if row["language"] == "en" else {}) for row in content],
    ],
    ids=["another language", "another sequence", "another column", "another language's text"],
)
def test_a_languages_key_does_not_move_with_what_is_not_its_own(
    tmp_path: Path, change: Callable[[list[Row]], list[Row]]
) -> None:
    before = corpus(tmp_path, rows()).payload("fi")
    assert corpus(tmp_path, change(rows())).payload("fi") == before
    assert corpus(tmp_path, rows(), train_count=1, eval_count=1).payload("fi") == before
    assert corpus(tmp_path, change(rows()), languages=["fi"]).payload("fi") == before


@pytest.mark.parametrize("column", ["id", "instruction", "response"])
def test_a_languages_key_moves_with_each_of_its_texts(tmp_path: Path, column: str) -> None:
    before = corpus(tmp_path, rows()).payload("fi")
    changed = [row | ({column: "zzz"} if row["id"] == "t3" else {}) for row in rows()]
    after = corpus(tmp_path, changed).payload("fi")
    assert {key for key in before if before[key] != after[key]} == {"train"}


def test_references_are_keyed_apart_from_prompts(tmp_path: Path) -> None:
    prompts = rows(count=2, kind="e")
    before = corpus(tmp_path, rows(), prompts).payload("fi")
    after = corpus(tmp_path, rows(), [row | {"response": "new"} for row in prompts]).payload("fi")
    assert {key for key in before if before[key] != after[key]} == {"references"}


@pytest.mark.parametrize("without", [{"response": None}, {"response": ""}, {}])
def test_references_may_be_missing_where_no_judge_needs_them(tmp_path: Path, without: Row) -> None:
    prompts = [
        {key: value for key, value in row.items() if key != "response"} | without for row in rows(count=2, kind="e")
    ]
    found = corpus(tmp_path, rows(), prompts, needs_references=False)
    found.build("en", tmp_path)
    assert [row.response for row in read_examples(tmp_path / "eval.parquet")] == [None, None]
    with pytest.raises(UserError, match="response"):
        corpus(tmp_path, rows(), prompts).eval_ids()


def changed(number: int, **cells: Any) -> list[Row]:
    """The rows with some cells of row ``number`` (from 1) replaced."""
    return [row | cells if place == number else row for place, row in enumerate(rows(), start=1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows()[:-1], r"example 't0' is missing in fi \(1 of 4 are\)"),
        (rows("en"), r"has no row in language fi \(it has en\)"),
        (rows("en fin"), r"has no row in language fi \(it has en, fin\)"),
        ([], "has no rows? in language en"),
        (rows() + rows()[:1], "row 9 is a second example 't3' in en"),
        (changed(3, instruction="  "), "row 3 has an empty instruction"),
        (changed(4, response=""), "row 4 has an empty response"),
        (changed(4, response=None), "row 4 has null as response"),
        (changed(2, id=""), "row 2 has an empty id"),
        (rows(count=2), "has 2 examples, but corpus.train_count is 3"),
        (
            [{key: value for key, value in row.items() if key != "instruction"} for row in rows()],
            "row 1 has no instruction",
        ),
        (
            [{key: value for key, value in row.items() if key != "language"} for row in rows()],
            "row 1 has no language",
        ),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_data_that_is_not_quite_parallel_is_refused(
    tmp_path: Path, content: list[Row], message: str, form: str
) -> None:
    path = tmp_path / f"train.{form}"
    (parquet if form == "parquet" else jsonl)(path, content)
    with pytest.raises(UserError, match=message) as refused:
        corpus(tmp_path, path).train_ids()
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(5, instruction=7), "row 5 has a number as instruction"),
        (changed(5, instruction=["a"]), "row 5 has a list or an object as instruction"),
        (changed(2, id=True), "row 2 has a truth value as id"),
    ],
)
def test_a_cell_that_is_not_text_is_refused(tmp_path: Path, content: list[Row], message: str) -> None:
    with pytest.raises(UserError, match=message):
        corpus(tmp_path, content).train_ids()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"id": "a"}\n{"id": \n', "row 1 has no language"),
        ("t.jsonl", b'\n{"id": \n', r"row 2 is not JSON \(.*column 7\)"),
        ("t.jsonl", b"[1]\n", "row 1 is a list or an object; give one JSON object per line"),
        ("t.jsonl", b'{"id": "\xff"}\n', "row 1 is not UTF-8"),
        ("t.jsonl", b"[" * 100_000, r"row 1 is not JSON \(maximum recursion"),
        ("t.jsonl", b'{"id": ' + b"9" * 5000 + b"}", "row 1 is not JSON .*5000 digits"),
        ("t.jsonl", b'\n{"id": "a", "response": "b", "response": "c"}', "row 2 is not JSON .*names 'response' twice"),
        ("t.jsonl", b'{"id": "a\\u0000", "language": "en"}', "row 1 has a NUL character in its id; take it out"),
        (
            "t.jsonl",
            b'{"id": "a", "language": "en", "instruction": "\\ud83d", "response": "b"}',
            "half a character",
        ),
        ("t.parquet", b"PAR1 not really", "is not a readable Parquet file"),
        ("t.csv", b"", r"corpus.train: .* ends in .csv; give a file that ends in .jsonl"),
        ("t", b"", "ends in no extension"),
    ],
)
def test_a_broken_file_is_refused_with_row_and_cure(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        corpus(tmp_path, path).train_ids()


def test_a_table_whose_text_is_not_unicode_is_refused(tmp_path: Path) -> None:
    bytes_as_text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table({"id": bytes_as_text, "language": ["en"]}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: is not a readable Parquet file .*utf-8"):
        corpus(tmp_path, tmp_path / "t.parquet").train_ids()


def test_rows_of_a_list_are_read_as_carefully(tmp_path: Path) -> None:
    for content, word in (
        (b"[" * 100_000, "recursion"),
        (b'[{"id": ' + b"9" * 5000 + b"}]", "5000 digits"),
        (b'[{"id": 1, "id": 2}]', "names 'id' twice"),
    ):
        (tmp_path / "t.json").write_bytes(content)
        with pytest.raises(UserError, match=f"row 1 is not JSON .*{word}"):
            list(read_rows(tmp_path / "t.json", "corpus.copies.lima", JSON_LIST))


def test_a_missing_file_is_refused_by_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.eval: .*none.jsonl is not there"):
        corpus(tmp_path, rows(), tmp_path / "none.jsonl").eval_ids()


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "train.jsonl", rows())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert corpus(tmp_path, path).train_ids() == ["t0", "t1", "t2"]


def test_examples_that_must_not_be_stored_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'a' appears twice"):
        write_examples(tmp_path / "x.parquet", [Example("a", "b", None), Example("a", "c", None)])
    with pytest.raises(ValueError, match="'a' has an empty instruction"):
        write_examples(tmp_path / "x.parquet", [Example("a", " ", "c")])


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    found = corpus(tmp_path, rows(count=50_000), train_count=50_000)
    assert len(found.train_ids()) == 50_000
    assert len(found.payload("fi")["train"]) == 64
