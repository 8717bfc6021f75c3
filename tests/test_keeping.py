"""What a keep rule frees, and when it frees nothing: a checkpoint goes only when every sweep lets it go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.keeping import Keeper
from orchestrator.plan import Plan
from orchestrator.store import Entry, Store
from orchestrator.sweep import load
from tests.page_example import finished_store


@pytest.fixture
def store(small: Path, tmp_path: Path) -> Store:
    return finished_store(small, tmp_path / "store")[1]


def kept(store: Store) -> list[Path]:
    return sorted(store.root.glob("fine_tune/*/checkpoint-*"))


def keeper(sweep: Path, store: Store, rule: str, name: str = "small", said: list[str] | None = None) -> Keeper:
    plan = Plan(load(str(sweep), [f"runtime.keep={rule}", f"name={name}"]))
    found = Keeper(plan, store, (said if said is not None else []).append)
    found.remember()
    return found


def test_a_rule_frees_what_no_sweep_wants(small: Path, store: Store) -> None:
    keeper(small, store, "scores").sweep()
    assert kept(store) == []


def test_what_a_sweep_wants_that_began_later_stays(small: Path, store: Store) -> None:
    before = kept(store)
    first = keeper(small, store, "scores")
    keeper(small, store, "all", "later")
    first.sweep()
    assert kept(store) == before != []


def test_nothing_goes_while_a_sweep_cannot_be_worked_out_and_that_is_said_once(small: Path, store: Store) -> None:
    store.storage.write("sweeps/other-0123456789abcdef.json", b'{"name": "of a later version"}')
    before, said = kept(store), []
    scores = keeper(small, store, "scores", said=said)
    scores.sweep()
    scores.sweep()
    assert kept(store) == before != []
    (sentence,) = said
    assert sentence.startswith("runtime.keep: scores frees nothing: sweeps/other-0123456789abcdef.json does not say")


def test_a_sweep_whose_inputs_are_gone_by_now_wants_what_it_wanted(small: Path, store: Store) -> None:
    before = kept(store)
    keeper(small, store, "all", "theirs")
    (asked,) = (store.root / "sweeps").glob("theirs-*.json")
    told = json.loads(asked.read_text())
    asked.write_text(json.dumps({**told, "base": "/nowhere/at/all"}))
    scores = keeper(small, store, "scores")
    scores.sweep()
    assert kept(store) == before != []
    asked.unlink()
    scores.sweep()
    assert kept(store) == []


def test_the_last_run_of_a_sweep_says_what_it_wants(small: Path, store: Store) -> None:
    keeper(small, store, "all")
    keeper(small, store, "scores").sweep()
    assert kept(store) == []
    assert len(list((store.root / "sweeps").glob("*.parquet"))) == 1


def test_damaged_wishes_are_mended_by_the_sweep_that_has_them(small: Path, store: Store) -> None:
    keeper(small, store, "scores", "theirs")
    (wishes,) = (store.root / "sweeps").glob("theirs-*.parquet")
    wishes.write_bytes(wishes.read_bytes()[:-9])
    before, said = kept(store), []
    keeper(small, store, "scores", said=said).sweep()
    assert kept(store) == before
    assert len(said) == 1
    keeper(small, store, "scores", "theirs").sweep()
    assert kept(store) == []


def test_a_sweep_that_begins_while_others_free_keeps_what_it_wants(
    small: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, find, begun = keeper(small, store, "scores"), store.find, []

    def begins(kind: str, key: str) -> Entry | None:
        if kind == "selection" and not begun:
            begun.append(keeper(small, store, "best", "later"))
        return find(kind, key)

    monkeypatch.setattr(store, "find", begins)
    scores.sweep()
    assert len(kept(store)) == len({path.parent for path in kept(store)}) == len(list(store.root.glob("fine_tune/*")))
