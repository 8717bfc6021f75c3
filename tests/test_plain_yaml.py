"""What of YAML is read: data, written out. All else is one sentence that repeats no value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestrator.sweep import load, shipped
from trainables import plain_yaml
from trainables.errors import UserError
from trainables.judges.prompt import load_prompt
from trainables.plain_yaml import LEVELS, NotYaml, read_text

LAUGHS = "a: &a [planted, planted]\n" + "\n".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NOT_YAML = {
    "a NUL": ("planted\x00", "printable"),
    "a control character": ("planted\x07", "printable"),
    "half a character": ("planted\udcff", "printable"),
    "a day that does not exist": ("2024-13-45", "date"),
    "a number of 5,000 digits": ("9" * 5000, "number"),
    "a number of 5,000 digits in base 16": ("0x" + "f" * 5000, "number"),
    "a number of 5,000 parts": ("1" + ":1" * 5000, "number"),
    "a float that is none": ('!!float "planted"', "tag"),
    "an integer that is none": ('!!int "planted"', "tag"),
    "a truth value that is none": ('!!bool "planted"', "tag"),
    "a date that is none": ('!!timestamp "planted"', "tag"),
    "an object": ("!!python/object/apply:os.system [planted]", "tag"),
    "another place": ("*planted", "and this one nothing"),
    "itself": ("&planted [*planted]", "and this one nothing"),
    "a billion laughs": (LAUGHS, "1,000,000 parts"),
    "brackets of a few thousand": ("[" * 3000 + "]" * 3000, "levels"),
    "brackets of which a parser dies": ("[" * 100_000, "levels"),
    "lists in lists": ("- " * 3000, "levels"),
    "a list that does not end": ("[planted", "expected"),
    "two documents": ("planted\n---\nplanted", "another document"),
    "one key twice": ("{a: planted, a: planted}", "twice"),
}


@pytest.mark.parametrize("case", NOT_YAML)
def test_what_is_not_plain_data_is_refused_in_a_sentence(case: str) -> None:
    text, word = NOT_YAML[case]
    with pytest.raises(NotYaml, match=word) as problem:
        read_text("\n" + text)
    said = str(problem.value)
    assert len(said) < 200
    assert "\n" not in said
    assert "planted" not in said
    assert (problem.value.line or 0) >= 2


@pytest.mark.parametrize("case", NOT_YAML)
def test_a_sweep_an_override_and_a_judge_are_read_alike(case: str, small: Path, tmp_path: Path) -> None:
    text, word = NOT_YAML[case]
    with pytest.raises(UserError, match=f"is not a YAML value .*{word}"):
        load(str(small), [f"recipe.steps={text}"])
    for file in (tmp_path / "mine.yaml", tmp_path / "judge.yaml"):
        file.write_bytes(text.encode(errors="surrogateescape"))
    (tmp_path / "prompt.txt").write_text("{instruction}{first}{second}")
    word = "UTF-8" if case == "half a character" else "is not YAML"
    with pytest.raises(UserError, match=rf"mine\.yaml.*{word}"):
        load(str(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match=rf"judge\.yaml.*{word}"):
        load_prompt(str(tmp_path))


def test_a_text_that_would_end_the_process_does_not() -> None:
    asked = "from trainables.plain_yaml import read_text; read_text('[' * 100_000)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert (done.returncode, "NotYaml: more than" in done.stderr) == (1, True)


def test_as_many_levels_as_there_may_be_are_read() -> None:
    found = read_text("[" * LEVELS + "]" * LEVELS)
    for _ in range(LEVELS):
        (found,) = found or [None]


def test_what_a_program_wrote_with_one_list_in_two_places_is_read() -> None:
    languages = ["en", "fi"]
    asked = {"corpus": {"languages": languages}, "studies": [{"languages": languages}]}
    text = yaml.safe_dump(asked)
    assert "*id001" in text
    assert read_text(text) == asked


def test_levels_count_where_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_yaml, "LEVELS", 6)
    assert read_text("{a: &a [[[1]]], b: [*a]}") == {"a": [[[1]]], "b": [[[[1]]]]}
    with pytest.raises(NotYaml, match="levels"):
        read_text("{a: &a [[[1]]], b: [[[*a]]]}")


def test_what_settings_need_is_read() -> None:
    assert read_text("{a: no, b: true, c: 1.0e-3, d: [x, 'y'], e: 2026-11-01, f: null}")["a"] == "no"
    for file in shipped().values():
        assert isinstance(read_text(file.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize(
    "found",
    [
        {"base": "x/" * 5000},
        {"corpus.languages": "[" + "x" * 5000 + "]"},
        {"recipe.steps": "[" + "planted, " * 5000 + "]"},
        {"recipe.steps": "[" * 90 + "]" * 90},
        {"recipe." + "x" * 5000: "1"},
        {"studies.0.languages": "{" + ", ".join(f"k{number}: 1" for number in range(5000)) + "}"},
    ],
    ids=lambda found: next(iter(found))[:30],
)
def test_what_is_long_is_not_repeated_in_full(found: dict[str, str], small: Path) -> None:
    ((name, value),) = found.items()
    with pytest.raises(UserError) as problem:
        load(str(small), [f"{name}={value}"])
    assert len(str(problem.value)) < 1100


def test_a_judges_prompt_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes("{instruction}{first}{second} é".encode("latin-1"))
    with pytest.raises(UserError, match=r"prompt\.txt: cannot be read .*UTF-8"):
        load_prompt(str(tmp_path))


def test_a_password_in_a_judges_settings_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("{instruction}{first}{second}")
    for found in ("http://me:planted@h", "[http://me:planted@h]"):
        (tmp_path / "judge.yaml").write_text(f"source: {found}")
        with pytest.raises(UserError, match=r"judge\.yaml: source") as problem:
            load_prompt(str(tmp_path))
        assert "planted" not in str(problem.value)
