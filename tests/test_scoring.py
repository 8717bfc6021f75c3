"""Rules of scoring: outcomes, intervals, averages, verdict tables, and agreement between raters."""

import csv
import io
import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.cli import agreement as print_agreement
from orchestrator.cli import score_verdicts
from orchestrator.languages import MAIN12
from orchestrator.scores.agreement import Rating, agreement, credit, read_ratings
from orchestrator.scores.bootstrap import DRAWS, interval, mean_interval
from orchestrator.scores.scoring import aligned, averages, judged, judged_columns, outcomes, score
from orchestrator.scores.verdicts import read_verdicts
from orchestrator.show_scores import agreement as show_agreement
from trainables.errors import UserError

DATA = Path(__file__).parent / "data"
CHOICES = (1, 2, None)
choice_pairs = st.lists(st.tuples(st.sampled_from(CHOICES), st.sampled_from(CHOICES)), max_size=60)


def table(pairs: list[tuple[int | None, int | None]]) -> list[tuple[str, str, int | None]]:
    return [
        (f"i{number}", order, choice)
        for number, pair in enumerate(pairs)
        for order, choice in zip(("ab", "ba"), pair, strict=True)
    ]


@pytest.mark.parametrize(
    ("pair", "outcome"),
    [((2, 1), 1.0), ((1, 2), 0.0), ((1, 1), 0.5), ((2, 2), 0.5), ((None, 1), None), ((2, None), None)],
)
def test_a_win_is_preferred_in_both_orders_and_a_tie_is_one_position_twice(
    pair: tuple[int | None, int | None], outcome: float | None
) -> None:
    assert outcomes(table([pair])) == {"i0": outcome}


@given(choice_pairs, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_counts_add_up_and_scores_lie_where_they_can(
    pairs: list[tuple[int | None, int | None]], chance: random.Random
) -> None:
    verdicts = table(pairs)
    found = score(verdicts, draws=1000)
    assert found.n == found.wins + found.ties + found.losses
    assert found.n + found.invalid == len(pairs)
    assert found.invalid == sum(None in pair for pair in pairs)
    parsable = [choice for pair in pairs for choice in pair if choice is not None]
    assert found.first_position_rate == (parsable.count(1) / len(parsable) if parsable else None)
    if found.n:
        assert found.if_score == pytest.approx(100 * (found.wins + found.ties / 2) / found.n)
        assert found.if_score is not None and found.ci_low is not None and found.ci_high is not None
        assert 0 <= found.ci_low <= found.ci_high <= 100
    else:
        assert (found.if_score, found.ci_low, found.ci_high) == (None, None, None)
    chance.shuffle(verdicts)
    assert score(verdicts, draws=1000) == found


@given(choice_pairs)
@settings(deadline=None)
def test_swapping_the_models_turns_the_score_round(pairs: list[tuple[int | None, int | None]]) -> None:
    found, swapped = score(table(pairs)), score(table([(ba, ab) for ab, ba in pairs]))
    assert (swapped.wins, swapped.ties, swapped.losses) == (found.losses, found.ties, found.wins)
    assert swapped.first_position_rate == found.first_position_rate
    if found.if_score is not None:
        assert swapped.if_score == pytest.approx(100 - found.if_score)


def test_a_call_that_can_be_parsed_counts_for_position_even_where_its_instruction_is_invalid() -> None:
    found = score(table([(1, None), (2, 1)]))
    assert (found.n, found.invalid) == (1, 1)
    assert found.first_position_rate == 2 / 3


def test_the_interval_is_that_of_resampling_instructions() -> None:
    values = np.array([100.0] * 30 + [50.0] * 50 + [0.0] * 40)
    draws = np.random.default_rng(7).choice(values, size=(20_000, len(values))).mean(axis=1)
    expected = np.percentile(draws, [2.5, 97.5])
    assert interval(30, 50, 40, draws=20_000) == pytest.approx(tuple(expected), abs=0.5)


def test_the_interval_is_the_same_every_time_and_nothing_where_nothing_varies() -> None:
    first = interval(10, 20, 30)
    interval.cache_clear()
    assert interval(10, 20, 30) == first
    assert interval(0, 7, 0) == (50.0, 50.0)
    assert DRAWS >= 1000


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ([("a", "ab", 1)], "one order only"),
        ([("a", "ab", 1), ("a", "ab", 1), ("a", "ba", 1)], "judged twice"),
        ([("a", "abba", 1)], "neither ab nor ba"),
        ([("a", "ab", 3)], "neither 1 nor 2"),
        ([("a", "ab", 0)], "neither 1 nor 2"),
    ],
)
def test_verdicts_that_do_not_make_up_a_comparison_are_refused(verdicts: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(verdicts)


def test_columns_of_a_file_score_as_the_same_verdicts_in_rows() -> None:
    rows = table([(2, 1), (1, None), (1, 1), (1, 2)])
    columns = [pa.chunked_array([[row[place] for row in part] for part in (rows[:3], rows[3:])]) for place in range(3)]
    whole = judged_columns(columns[0], columns[1], columns[2].cast(pa.int8()))
    assert score(whole) == score(rows)
    assert whole.ids == ("i0", "i1", "i2", "i3")


def published(name: str) -> dict[str, tuple[dict[str, float], float]]:
    with (DATA / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["train_language"]: ({code: float(row[code]) for code in MAIN12}, float(row["avg"])) for row in rows}


@pytest.mark.parametrize("name", ["figure1.csv", "figure10.csv"])
def test_the_published_averages_come_out_within_a_tenth(name: str) -> None:
    rows = published(name)
    assert set(rows) == set(MAIN12)
    for code, (scores, average) in rows.items():
        assert averages(scores, seen=[code])["all"] == pytest.approx(average, abs=0.1)


def test_seen_averages_leave_english_out() -> None:
    found = averages({"en": 10.0, "fi": 40.0, "ru": 60.0, "he": 30.0}, seen=["en", "fi", "ru"])
    assert (found["all"], found["seen"], found["unseen"]) == (35.0, 50.0, 30.0)
    assert found["non_english"] == pytest.approx(130 / 3)


def test_an_average_with_a_missing_score_is_missing() -> None:
    found = averages({"en": 10.0, "fi": None, "he": 30.0}, seen=["fi"])
    assert found == {"all": None, "seen": None, "unseen": 20.0, "non_english": None}
    assert averages({}, seen=[])["all"] is None


@given(choice_pairs, choice_pairs)
@settings(deadline=None)
def test_a_paired_difference_is_that_of_the_shared_instructions(x: list[Any], y: list[Any]) -> None:
    left, right = outcomes(table(x)), outcomes(table(y))
    shared = [name for name in left.keys() & right.keys() if left[name] is not None and right[name] is not None]
    points = aligned([judged(table(x)), judged(table(y))])
    found = mean_interval(points[0] - points[1], draws=1000)
    assert found.n == len(shared)
    if shared:
        assert found.value == pytest.approx(
            100 * sum((left[name] or 0) - (right[name] or 0) for name in shared) / len(shared), abs=1e-9
        )
        assert found.ci_low is not None and found.ci_high is not None
        assert found.ci_low <= found.ci_high
    else:
        assert found.value is None


# Verdict tables


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_verdict_table_is_read_as_written(tmp_path: Path, start: str, newline: str) -> None:
    lines = [
        "order,instruction_id,choice,raw",
        "ab,x,2,two",
        'ba,x,1,"1, surely"',
        "",
        "ab,ä,,what?",
        "ba,ä,1,1",
    ]
    path = write(tmp_path / "v.csv", start + newline.join(lines))
    assert read_verdicts(path) == [("x", "ab", 2), ("x", "ba", 1), ("ä", "ab", None), ("ä", "ba", 1)]


HEAD = "instruction_id,order,choice\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty; it needs a header instruction_id,order,choice"),
        (
            "instruction_id,order,verdict\nx,ab,1\n",
            "row 1 has the columns instruction_id,order,verdict, without choice",
        ),
        ("instruction_id,order,order,choice\n", "row 1 has the column order 2 times"),
        (
            HEAD + "x,ab,1\nx,ba,2\ny,ab,1\n",
            "row 4 gives instruction 'y' in order ab, and no row gives it in order ba",
        ),
        (HEAD + "x,ab,1\nx,ba,2\nx,ab,1\n", "row 4 repeats instruction 'x' in order ab from row 2"),
        (HEAD + "x,ab,1\nx,AB,2\n", "row 3 has order 'AB'; write ab"),
        (HEAD + "x,ab,3\n", "row 2 has choice '3'; write 1, 2"),
        (HEAD + "x,ab,1.0\n", "row 2 has choice '1.0'"),
        (HEAD + ",ab,1\n", "row 2 has no instruction_id"),
        (HEAD + "x,ab\n", "row 2 has 2 cells where the header has 3"),
        (HEAD + "x,ab,1,2\n", "row 2 has 4 cells where the header has 3"),
        (HEAD + '"x"y,ab,1\n', "row 2 is not CSV"),
        (HEAD.encode() + b"\xff\xfe,ab,1\n", "not UTF-8"),
    ],
)
def test_a_broken_verdict_table_is_refused_with_file_row_and_cure(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = write(tmp_path / "verdicts.csv", text)
    with pytest.raises(UserError) as refused:
        read_verdicts(path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_verdict_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        read_verdicts(tmp_path / "none.csv")
    with pytest.raises(UserError, match="there is no such file"):
        read_verdicts(tmp_path)


def test_a_table_without_rows_has_no_scores(tmp_path: Path) -> None:
    found = score(read_verdicts(write(tmp_path / "v.csv", HEAD)))
    counts = {"wins": 0, "ties": 0, "losses": 0, "invalid": 0, "n": 0}
    nothing = {"if_score": None, "ci_low": None, "ci_high": None, "first_position_rate": None}
    assert found.as_dict() == counts | nothing


# Agreement


def test_agreement_is_one_half_where_exactly_one_says_tie() -> None:
    found = {pair: credit(*pair) for pair in itertools.product(("a", "b", "tie"), repeat=2)}
    assert all(found[x, x] == 1 for x in ("a", "b", "tie"))
    assert found["a", "b"] == found["b", "a"] == 0
    assert found["a", "tie"] == found["tie", "b"] == 0.5


def test_the_table_of_agreement_is_whole_on_eighty_characters() -> None:
    said = io.StringIO()
    ratings = [Rating("q1", rater, "a", "he") for rater in ("ann", "ben", "judge")]
    show_agreement(agreement(ratings), Console(file=said, width=80))
    words = said.getvalue().split()
    assert [words.count(word) for word in ("Judge–people", "People–people", "Published", "interval")] == [1, 1, 2, 2]
    assert words.count("100.0") == 2


def test_agreement_is_over_the_instructions_both_raters_judged(tmp_path: Path) -> None:
    lines = [
        "instruction_id,rater,verdict,language",
        "1,judge,a,en", "1,anna,a,en", "1,bo,tie,en",
        "2,judge,b,en", "2,anna,a,en",
        "1,judge,tie,fi", "1,carl,tie,fi",
    ]  # fmt: skip
    found = agreement(read_ratings(write(tmp_path / "r.csv", "\n".join(lines))))
    assert found == {
        "overall": [
            {"raters": ["anna", "bo"], "agreement": 50.0, "n": 1},
            {"raters": ["anna", "judge"], "agreement": 50.0, "n": 2},
            {"raters": ["bo", "judge"], "agreement": 50.0, "n": 1},
            {"raters": ["carl", "judge"], "agreement": 100.0, "n": 1},
        ],
        "languages": {
            "en": [
                {"raters": ["anna", "bo"], "agreement": 50.0, "n": 1},
                {"raters": ["anna", "judge"], "agreement": 50.0, "n": 2},
                {"raters": ["bo", "judge"], "agreement": 50.0, "n": 1},
            ],
            "fi": [{"raters": ["carl", "judge"], "agreement": 100.0, "n": 1}],
        },
    }


def test_ratings_without_languages_have_no_language_table(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "instruction_id,rater,verdict\n1,judge,a\n1,anna,b\n")
    assert agreement(read_ratings(path)) == {
        "overall": [{"raters": ["anna", "judge"], "agreement": 0.0, "n": 1}],
        "languages": {},
    }
    assert agreement([Rating("1", "anna", "a")]) == {"overall": [], "languages": {}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1,judge,A\n", "row 2 has verdict 'A'; write a, b or tie"),
        ("1,judge,a\n1,judge,b\n", "row 3 is a second verdict of judge on instruction '1', after row 2"),
        ("1,,a\n", "row 2 has no rater"),
    ],
)
def test_a_broken_rater_table_is_refused_with_row_and_cure(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_ratings(write(tmp_path / "r.csv", "instruction_id,rater,verdict\n" + rows))


# The two commands on tables made by hand


HAND_MADE = {
    "all wins": ([(2, 1)] * 3, (100.0, 3, 0, 0, 0, 3, 0.5)),
    "all losses": ([(1, 2)] * 3, (0.0, 0, 0, 3, 0, 3, 0.5)),
    "all ties, always the first": ([(1, 1)] * 3, (50.0, 0, 3, 0, 0, 3, 1.0)),
    "all ties, always the second": ([(2, 2)] * 3, (50.0, 0, 3, 0, 0, 3, 0.0)),
    "half and half": ([(2, 1), (1, 2)] * 2, (50.0, 2, 0, 2, 0, 4, 0.5)),
    "one invalid": ([(2, 1), (2, 1), (1, None)], (100.0, 2, 0, 0, 1, 2, 3 / 5)),
    "all invalid": ([(None, None), (None, 2)], (None, 0, 0, 0, 2, 0, 0.0)),
}


@pytest.mark.parametrize("name", HAND_MADE)
def test_score_verdicts_prints_what_is_worked_out_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    pairs, (expected, wins, ties, losses, invalid, n, first) = HAND_MADE[name]
    rows = [f"{key},{order},{'' if choice is None else choice}\n" for key, order, choice in table(pairs)]
    score_verdicts(write(tmp_path / "v.csv", HEAD + "".join(rows)))
    found = json.loads(capsys.readouterr().out)
    low, high = found.pop("ci_low"), found.pop("ci_high")
    assert found == {
        "if_score": expected,
        "wins": wins,
        "ties": ties,
        "losses": losses,
        "invalid": invalid,
        "n": n,
        "first_position_rate": first,
    }
    if "half" in name:
        assert low < 50 < high
    else:
        assert (low, high) == (expected, expected), "where every instruction says the same, no draw says otherwise"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("a", "a"), 100.0),
        (("tie", "tie"), 100.0),
        (("a", "tie"), 50.0),
        (("tie", "b"), 50.0),
        (("a", "b"), 0.0),
    ],
)
def test_agreement_prints_one_a_half_or_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verdicts: tuple[str, str], expected: float
) -> None:
    lines = [f"{number},{rater},{verdict},fi" for number in "12" for rater, verdict in zip("xy", verdicts, strict=True)]
    print_agreement(write(tmp_path / "r.csv", "\n".join(["instruction_id,rater,verdict,language", *lines])))
    entry = [{"raters": ["x", "y"], "agreement": expected, "n": 2}]
    assert json.loads(capsys.readouterr().out) == {"overall": entry, "languages": {"fi": entry}}
