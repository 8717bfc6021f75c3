"""Bad input: exit 2, a sentence or two that name the file, the key, what was found and the cure; nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.plan import Plan
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from trainables.errors import UserError

OVERRIDES = {
    "an unknown key": ("corpus.trian_count=5", ["corpus", "trian_count", "train_count"]),
    "an unknown key further in": ("recipe.adam.beta=1", ["recipe", "adam"]),
    "an unknown language": ("corpus.languages=[en, fi, xx]", ["corpus.languages", "xx", "known"]),
    "a percent over 100": ("studies.1.percents=[120]", ["percents", "120", "0 to 100"]),
    "a percent repeated": ("studies.1.percents=[10, 10]", ["percents", "10", "once"]),
    "a count larger than the corpus": ("studies.1.counts=[5000]", ["counts", "5000", "lower"]),
    "a train_count the corpus does not have": ("corpus.train_count=9000", ["train_count", "9000", "4640"]),
    "fewer eval prompts than asked for": ("corpus.eval_count=9000", ["eval_count", "9000", "617"]),
    "a misspelt section": ("recpie.steps=5", ["--set recpie.steps=5", "recpie", "recipe"]),
    "one where a list is meant": ("corpus.languages=en", ["corpus.languages", "list", "en"]),
    "a wrong type": ("recipe.steps=many", ["recipe.steps", "many", "integer"]),
    "a negative number": ("recipe.steps=-5", ["recipe.steps", "-5", "greater"]),
    "a negative seed": ("seeds.train=[-1]", ["seeds.train", "-1"]),
    "not an assignment": ("recipe.steps", ["--set recipe.steps", "a.b=value"]),
    "a list that has no such item": ("studies.7.languages=[en]", ["studies", "0 to 1"]),
    "a permutation naming a language twice": (
        "studies.1={study: permutations, orders: [[en, fi, en]], evaluate_in: [fi]}",
        ["orders", "en", "twice"],
    ),
    "a pair of three": ("studies.1={study: pairs, pairs: [[en, fi, ru]]}", ["pairs", "en, fi, ru", "two"]),
    "a pair of one": ("studies.1={study: pairs, pairs: [[en, en]]}", ["pairs", "en, en", "two"]),
    "a base that is not there": ("base=./no-such-model", ["base", "no-such-model"]),
    "a package that is not installed": ("base=package:nothing", ["base", "nothing", "gemma3-270m"]),
    "a gguf that is not there": ("base=gguf:/no/model.gguf", ["/no/model.gguf"]),
    "a hub name without a network": ("base=nobody/nothing", ["nobody/nothing"]),
    "a template that is not there": ("recipe.template=none.txt", ["template", "none.txt"]),
    "a sweep name with a slash": ("name=a/b", ["name", "a/b", "letters"]),
    "a sweep name with dots": ("name=..", ["name", "'..'", "letters"]),
    "an unknown study": ("studies.0.study=monolingul", ["studies", "monolingul", "monolingual"]),
    "an unknown judge": ("judge.kind=oracle", ["judge", "oracle", "reference"]),
    "a study in a language the corpus lacks": ("studies.0.languages=[en, ru]", ["ru", "corpus.languages"]),
    "a rate without end": ("recipe.learning_rate=.inf", ["recipe.learning_rate", "finite", "inf"]),
    "brackets of which a parser dies": ("recipe.steps=" + "[" * 100_000, ["recipe.steps", "levels"]),
    "bytes that are no text": ("base=\udcff", ["base", "printable"]),
    "a name that no folder can have": ("base=" + "a" * 300, ["base", "File name too long"]),
    "somebody who is not here": ("base=~nosuchuser/x", ["base", "~nosuchuser/x", "home"]),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_a_bad_setting_is_refused_in_a_sentence(case: str, small: Path, pinch: Pinch, tmp_path: Path) -> None:
    override, words = OVERRIDES[case]
    done = pinch("run", small, "--set", override, "--store", tmp_path / "store", check=2)
    _said(done.stderr, *words)
    assert not (tmp_path / "store").exists()
    assert done.stdout == ""


NUMBERS = {
    "recipe.learning_rate=.nan": "finite",
    "recipe.learning_rate=inf": "finite",
    "sampling.temperature=.inf": "finite",
    "runtime.max_cost=.inf": "finite",
    "runtime.prices={gpu_hour: {amount: .inf, date: 2026-11-01}}": "finite",
    "studies.1.percents=[.nan]": "found nan",
    "seeds.train=[12345678901234567890]": "found 12345678901234567890",
    f"seeds.sampling={2**53}": "up to 9007199254740991",
    f"recipe.batch_size={10**26}": "whole number",
    "recipe.batch_size=1.0e+26": "integer",
    "recipe.steps=true": "found true",
    "recipe.learning_rate=true": "found true",
    "seeds.train=[true]": "found true",
    "runtime.zero_stage=false": "found false",
    "recipe={steps: 1000000000, checkpoint_every: 1}": "10000 checkpoints of 1000000000 steps; raise it",
}


@pytest.mark.parametrize("override", NUMBERS)
def test_a_number_that_no_key_can_be_made_of_is_refused(override: str, small: Path) -> None:
    with pytest.raises(UserError, match=rf"--set .*{override.partition('=')[0]}.*{NUMBERS[override]}"):
        load(str(small), [override])


def test_the_largest_numbers_there_can_be_have_keys(small: Path) -> None:
    at_most = [f"seeds.train=[{2**53 - 1}]", "recipe.steps=10000", "recipe.checkpoint_every=1", "recipe.alpha=16.0"]
    assert Plan(load(str(small), [*at_most, "recipe.learning_rate=1e308", "runtime.offload=true"])).steps


LONG = "a" * 300
NAMES = (
    f"base=gguf:{LONG}",
    f"base=package:{LONG}",
    "base=gguf:~nosuchuser/x",
    f"recipe.template={LONG}",
    "recipe.template=~nosuchuser/x",
    f"judge={{kind: local, model: {LONG}}}",
    f"judge={{kind: local, model: tiny, prompt: {LONG}}}",
    f"corpus={{source: files, languages: [en, fi], train: {LONG}.jsonl, eval: b.jsonl}}",
    f"corpus={{source: hub, languages: [en, fi], copies: {{lima: {LONG}}}}}",
    f"corpus={{source: hub, languages: [en, fi], translator: {{engine: local, model: {LONG}}}}}",
)


@pytest.mark.parametrize("override", NAMES, ids=lambda override: override.replace(LONG, "long"))
def test_a_name_that_nothing_can_have_is_refused_by_its_key(override: str, small: Path) -> None:
    with pytest.raises(UserError, match=r"--set .*: .*cannot be looked for \((File name too long|Could not determine)"):
        load(str(small), [override])


def test_a_template_that_is_a_text_may_be_long(small: Path) -> None:
    assert load(str(small), [f"recipe.template={LONG} {{instruction}}"])


@pytest.mark.parametrize("name", [f"{LONG}.yaml", "~nosuchuser/x.yaml", "a\x00.yaml"])
def test_a_sweep_file_that_cannot_be_there_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"SWEEP: .*cannot be looked for"):
        load(name)


@pytest.mark.parametrize("place", ["²", "-1", "2", "x", "9" * 5000])
def test_a_place_in_a_list_is_a_number_in_it(place: str, small: Path) -> None:
    with pytest.raises(UserError, match="studies has items 0 to 1"):
        load(str(small), [f"studies.{place}.languages=[en]"])


@pytest.mark.parametrize("length", [100, 101])
@pytest.mark.parametrize(
    "setting",
    ["name={}", "studies.0.name={}", "studies.1={{study: custom, mixtures: {{{}: {{en: 40}}}}, evaluate_in: [en]}}"],
)
def test_a_name_has_a_hundred_characters_at_most(setting: str, length: int, small: Path) -> None:
    override = setting.format("a" * length)
    if length == 100:
        assert load(str(small), [override])
    else:
        with pytest.raises(UserError, match=r"at most 100 characters; found 'aaa"):
            load(str(small), [override])


def _said(text: str, *words: str) -> None:
    assert "Traceback" not in text
    assert 0 < len(text.strip().splitlines()) <= 3, text
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALL.replace("name: small", "name: small\nname: again"), ["line", "name", "twice"]),
        (SMALL.replace("steps: 8", "steps: [8"), ["line", "YAML"]),
        ("- a list", ["list"]),
        ("", ["empty", "demo.yaml"]),
        (SMALL.replace("name: small\n", ""), ["name", "missing"]),
        (SMALL.replace("steps: 8", "stepps: 8"), ["recipe", "stepps", "steps"]),
    ],
)
def test_a_bad_sweep_file_is_refused_with_its_name(text: str, words: list[str], tmp_path: Path, pinch: Pinch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    done = pinch("run", path, "--store", tmp_path / "store", check=2)
    _said(done.stderr, "mine.yaml", *words)
    assert not (tmp_path / "store").exists()


def test_an_unknown_sweep_is_answered_with_the_nearest(pinch: Pinch) -> None:
    _said(pinch("plan", "dmeo", check=2).stderr, "dmeo", "demo")


def test_a_sweep_file_that_is_not_there_is_named(pinch: Pinch) -> None:
    _said(pinch("plan", "none.yaml", check=2).stderr, "none.yaml")


def test_a_store_that_cannot_be_written_is_refused(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    _said(pinch("run", small, "--store", tmp_path / "file", check=2).stderr, "--store", "file")
    _said(pinch("run", small, "--store", "/proc/pinch", check=2).stderr, "--store", "/proc/pinch", "cannot be written")
    assert (tmp_path / "file").read_text() == "mine"


def test_of_two_stores_the_one_that_is_wrong_is_blamed(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    asked = ["compare", small, small, "--store", tmp_path / "store", "--store-b"]
    said = pinch(*asked, tmp_path / "file", check=2).stderr
    _said(said, f"--store {tmp_path / 'store'}: there is no store", f"--store-b {tmp_path / 'file'}: is a file")
    said = pinch(*asked, tmp_path / "none", check=None).stderr
    assert f"--store-b {tmp_path / 'none'}: there is no store" in said


# A user's own files


def _rows(count: int = 12, languages: tuple[str, ...] = ("en", "fi")) -> list[dict[str, str]]:
    return [
        {"id": f"x{number}", "language": code, "instruction": f"{code} {number}?", "response": f"{code} {number}."}
        for number in range(count)
        for code in languages
    ]


def _files(tmp_path: Path, train: list[str], evaluation: list[str] | None = None) -> list[str]:
    good = [json.dumps(row) for row in _rows()]
    (tmp_path / "train.jsonl").write_text("\n".join(train))
    (tmp_path / "eval.jsonl").write_text("\n".join(evaluation or good))
    return [
        "--set",
        f"corpus={{source: files, train: {tmp_path / 'train.jsonl'}, eval: {tmp_path / 'eval.jsonl'}, "
        "languages: [en, fi], train_count: 10, dev_count: 2, eval_count: 6}",
        "--set",
        "studies.1.percents=[50]",
    ]


def _lines() -> list[str]:
    return [json.dumps(row) for row in _rows()]


FILES = {
    "a missing translation": (lambda lines: lines[:-1], ["train.jsonl", "x11", "fi"]),
    "a doubled id": (lambda lines: [*lines, lines[0]], ["train.jsonl", "x0", "25"]),
    "an empty response": (
        lambda lines: [*lines[:2], json.dumps({**json.loads(lines[2]), "response": " "}), *lines[3:]],
        ["train.jsonl", "3", "response", "empty"],
    ),
    "broken JSON": (lambda lines: [*lines[:4], '{"id": ', *lines[5:]], ["train.jsonl", "5", "JSON"]),
    "too few examples": (lambda lines: lines[:8], ["train_count", "10", "4"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_files_corpus_that_does_not_hold_is_refused_with_the_row(
    case: str, small: Path, pinch: Pinch, tmp_path: Path
) -> None:
    spoil, words = FILES[case]
    done = pinch("run", small, "--store", tmp_path / "store", *_files(tmp_path, spoil(_lines())), check=2)
    _said(done.stderr, *words)
    assert not (tmp_path / "store").exists()


def test_eval_prompts_need_references_only_for_the_reference_judge(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    bare = [json.dumps({name: text for name, text in row.items() if name != "response"}) for row in _rows()]
    files = _files(tmp_path, _lines(), bare)
    _said(pinch("plan", small, *files, check=2).stderr, "eval.jsonl", "response")
    pinch("plan", small, *files, "--set", "judge={kind: local, model: tiny}")


# Tables of verdicts

GOOD = "instruction_id,order,choice\na,ab,1\na,ba,2\nb,ab,\nb,ba,1\n"
VERDICTS = {
    "wrong columns": (GOOD.replace("choice", "verdict"), ["choice"]),
    "a missing order": (GOOD.replace("a,ba,2\n", ""), ["a", "ba"]),
    "a doubled row": (GOOD + "a,ab,1\n", ["row 6", "a", "ab"]),
    "an unknown choice": (GOOD.replace("a,ba,2", "a,ba,3"), ["row 3", "'3'"]),
    "an unknown order": (GOOD.replace("a,ba,2", "a,bb,2"), ["row 3", "bb"]),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_a_bad_verdict_table_is_refused_with_the_row(case: str, pinch: Pinch, tmp_path: Path) -> None:
    text, words = VERDICTS[case]
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    _said(pinch("score-verdicts", path, check=2).stderr, "verdicts.csv", *words)


def test_a_good_verdict_table_is_scored(pinch: Pinch, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text(GOOD)
    scored = json.loads(pinch("score-verdicts", path).stdout)
    assert scored == {
        "if_score": 0.0,
        "ci_low": 0.0,
        "ci_high": 0.0,
        "wins": 0,
        "ties": 0,
        "losses": 1,
        "invalid": 1,
        "n": 1,
        "first_position_rate": 2 / 3,
    }


@pytest.mark.parametrize(
    "command", ["run", "plan", "status", "scores", "report", "mixture", "export", "score-verdicts"]
)
def test_a_command_without_its_argument_is_bad_input(command: str, pinch: Pinch) -> None:
    pinch(command, check=2)


COMMANDS = (
    "plan",
    "run",
    "translate",
    "status",
    "scores",
    "compare",
    "report",
    "mixture",
    "export",
    "score-verdicts",
    "annotate",
    "annotate export",
    "annotate import",
    "agreement",
    "ui",
    "verify",
    "gc",
    "doctor",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, pinch: Pinch) -> None:
    assert f"Example: pinch {command}" in pinch(*command.split(), "--help").stdout


def test_what_is_not_there_to_verify_or_show_is_bad_input(pinch: Pinch) -> None:
    for command in ("verify", "gc", "ui"):
        _said(pinch(command, "--store", "nowhere", check=2).stderr, "nowhere")


# What must stay as it is


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_that_is_no_store_is_left_alone(pinch: Pinch, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    for command in (["gc"], ["gc", "--dry-run"], ["verify"]):
        _said(pinch(*command, "--store", mine, check=2).stderr, "--store", "mine", "is not a store")
    assert _tree(mine) == {"thesis.txt": b"mine"}


def test_a_store_of_a_later_schema_is_not_changed(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "pinch-store.json").write_text('{"schema": 99}')
    before = _tree(store)
    sheets = ["annotate", "export", small, "--out", tmp_path / "sheets"]
    for command in (["run", small], ["gc"], ["verify"], sheets, ["annotate", "import", small, small]):
        _said(pinch(*command, "--store", store, check=2).stderr, str(store), "schema 99", "another folder")
    assert _tree(store) == before
    assert not (tmp_path / "sheets").exists()


def test_tables_are_written_all_or_none(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    asked = ["scores", small, "--csv", tmp_path / "scores.csv", "--averages"]
    _said(pinch(*asked, tmp_path / "none" / "a.csv", check=2).stderr, "no store", "--averages", "a.csv", "another file")
    _said(pinch(*asked, tmp_path / "scores.csv", check=2).stderr, "no store", "--averages", "--csv", "another file")
    assert not list(tmp_path.glob("*.csv"))


def test_a_report_that_meets_a_file_of_ones_own_leaves_nothing(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "small-report.html").write_text("mine")
    _said(pinch("report", small, "--out", out, check=2).stderr, "no store", "small-report.html", "--out")
    assert _tree(out) == {"small-report.html": b"mine"}


def test_a_cure_names_the_overrides_too(small: Path, pinch: Pinch, tmp_path: Path) -> None:
    asked = ["export", small, "mono-fi", tmp_path / "model", "--set", "corpus.languages=[fi, en]"]
    _said(pinch(*asked, check=2).stderr, f"pinch run {small} --set 'corpus.languages=[fi, en]'")
    _said(pinch("mixture", small, "mono-ff", check=2).stderr, "mono-ff", "mean mono-fi?")
