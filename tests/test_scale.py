"""What holds of a small sweep's plan and status holds of a large one's, which are worked out otherwise."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import outline as outline_module
from orchestrator import show, store_index
from orchestrator.identity import KINDS, Step
from orchestrator.outline import Outline, outline_of
from orchestrator.plan import Plan
from orchestrator.review import Standing, review
from orchestrator.store import Store
from orchestrator.sweep import LoadedSweep, load

CODES = ("ceb", "en", "fi", "pt-BR", "sv", "ur")
SWEEP = """
name: six
corpus:
  {{source: files, train: {train}, eval: {eval}, languages: [{codes}], train_count: 12, dev_count: 2, eval_count: 3}}
studies:
  - {{study: monolingual, languages: [{codes}]}}
  - {{study: pinch, languages: [{codes}], percents: [50], counts: [4]}}
  - study: custom
    mixtures: {{uneven: {{sv: 7, ur: 5}}, fewer: {{pt-BR: 3, ceb: 2}}}}
    evaluate_in: [{codes}]
"""


@pytest.fixture
def sweep(tmp_path: Path) -> LoadedSweep:
    """A sweep of ten models over a user's own files in six languages, four of them none of the seventeen."""
    for name, count in (("train", 12), ("eval", 3)):
        rows = [
            {"id": f"{name}{number}", "language": code, "instruction": f"say {number}", "response": f"{number} {code}"}
            for code in CODES
            for number in range(count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "six.yaml"
    train, evaluation = tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
    path.write_text(SWEEP.format(train=train, eval=evaluation, codes=", ".join(CODES)))
    return load(str(path))


@pytest.fixture
def store(tmp_path: Path, sweep: LoadedSweep) -> Store:
    """Its store: half of the steps are published, one failed, and one is under way."""
    opened = Store(tmp_path / "store")
    opened.create()
    opened.sessions.start("test")
    plan = Plan(sweep)
    selections = plan.of_kind("selection")
    for step in plan.steps[: len(plan.steps) // 2]:
        if step not in selections[-3:]:
            publish(opened, step)
    opened.record_failure(selections[-1], "Traceback\nthe loss is nan")
    opened.sessions.acquire(selections[-2].key)
    return opened


def publish(store: Store, step: Step) -> None:
    attempt = store.attempt(step)
    (attempt / "rows.json").write_text("[]")
    store.publish(step, attempt, {"rows": 0})


def said(outline: Outline, store: Store) -> str:
    """`pinch status` for people."""
    console = Console(file=io.StringIO(), width=200)
    show.status(outline, store, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_sweep_can_be_in_any_languages_that_its_files_are_in(sweep: LoadedSweep) -> None:
    plan = Plan(sweep)
    assert plan.counts()["fine_tunes"] == 10
    assert plan.find_model("mono-pt-BR").mixture is not None
    assert {step.name for step in plan.of_kind("generation_set")} >= {"fewer.ceb", "uneven.ur", "mono-sv.sv"}


def test_status_from_the_index_is_status_from_the_manifests(
    sweep: LoadedSweep, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = said(outline_of(sweep, Store(store.root)), Store(store.root))
    assert not (store.root / "index").exists()
    monkeypatch.setattr(store_index, "LEFT_BEHIND", 1)
    monkeypatch.setattr(outline_module, "KEPT_FROM", 1)
    said(outline_of(sweep, store), store)
    assert len(list((store.root / "index").glob("plan-*.parquet"))) == 1
    assert (store.root / "index" / "generation_set.parquet").is_file()

    def not_again(loaded: LoadedSweep) -> Plan:
        raise AssertionError("the plan was worked out again")

    monkeypatch.setattr(outline_module, "Plan", not_again)
    assert said(outline_of(sweep, Store(store.root)), Store(store.root)) == without


def test_status_says_what_is_done_running_failed_and_blocked(sweep: LoadedSweep, store: Store) -> None:
    plan = Plan(sweep)
    failed, running = (f"selection {plan.of_kind('selection')[place].name}" for place in (-1, -2))
    words = said(Outline.of(plan), store)
    assert f"Failed: {failed}: the loss is nan\n" in words
    assert f"Running: {running}, by " in words
    behind = [step for step in plan.steps if plan.of_kind("selection")[-1] in step.needs]
    blocked = [look for look in review(plan, store) if look.reason == f"blocked by {failed}"]
    assert {look.step.key for look in blocked} >= {step.key for step in behind}
    assert f"{len(blocked)} steps are blocked by {failed}." in words


def test_the_counts_of_a_status_are_those_of_the_review(sweep: LoadedSweep, store: Store) -> None:
    plan = Plan(sweep)
    counts = Standing(Outline.of(plan), store).count()
    looks = review(plan, store)
    assert [look.step.key for look in looks] == [step.key for step in plan.steps]
    for kind in KINDS:
        for state, count in counts[kind].items():
            assert count == sum(look.step.kind == kind and look.state == state for look in looks), (kind, state)


def test_a_step_is_blocked_by_the_first_of_its_needs_that_cannot_be_had(tmp_path: Path, sweep: LoadedSweep) -> None:
    plan, store = Plan(sweep), Store(tmp_path / "other")
    store.create()
    comparison = plan.of_kind("comparison")[0]
    baseline, model = comparison.needs[:2]
    for failed in (model, baseline.needs[0].needs[0]):  # one directly, one a long way up
        store.record_failure(failed, "no")
    looks = {look.step.key: look for look in review(plan, store)}
    assert looks[comparison.key].reason == f"blocked by fine_tune {baseline.needs[0].name}"


@pytest.mark.parametrize("change", ["eval", "train", "sweep", "program"])
def test_a_kept_outline_is_of_this_sweep_these_files_and_this_program(
    sweep: LoadedSweep, store: Store, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(outline_module, "KEPT_FROM", 1)
    before = outline_of(sweep, store)
    assert outline_of(sweep, store).keys.equals(before.keys)
    if change in ("eval", "train"):
        path = Path(getattr(sweep.sweep.corpus, change))
        path.write_text(path.read_text().replace("say 0", "say nothing"))
    elif change == "sweep":
        sweep = load(sweep.source, ["recipe.steps=7"])
    else:
        monkeypatch.setattr(outline_module, "program", lambda: "another")
    after = outline_of(sweep, store)
    assert after.keys.equals(before.keys) == (change == "program")
    assert after.keys.equals(Outline.of(Plan(sweep)).keys)
    assert len(list((store.root / "index").glob("plan-*.parquet"))) == 2


def test_a_small_sweep_leaves_nothing_in_the_index(sweep: LoadedSweep, store: Store) -> None:
    outline_of(sweep, store)
    assert not (store.root / "index").exists()


def test_plan_json_is_written_as_json_would_write_it(
    sweep: LoadedSweep, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    show.plan_json(Plan(sweep), store)
    printed = capsys.readouterr().out
    value = json.loads(printed)
    assert printed == json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    assert len(value["steps"]) == len(Plan(sweep).steps)
    assert {step["action"] for step in value["steps"]} == {"reuse", "wait", "run", "blocked"}
