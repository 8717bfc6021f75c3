"""No name leads out of the store, and nothing outside is read or removed because a store says so (docs/security.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from orchestrator.identity import Step
from orchestrator.kept_report import REPORTS, _read
from orchestrator.plan import Plan
from orchestrator.storage import confined
from orchestrator.storage.base import sound
from orchestrator.store import Store
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from tests.tiny_models import random_model
from trainables.errors import EnvironmentProblem, UserError

# Names stay in the store

OUTWARD = ("..", "../up", "/etc/x", "a/b", "a\\b/..", ".hidden", "a\nb", "", "a\x00b", "~")


@pytest.mark.parametrize("name", OUTWARD)
def test_what_a_user_names_cannot_lead_out_of_the_store(name: str, small: Path) -> None:
    for setting in (
        {"name": name},
        {"studies": [{"study": "monolingual", "languages": ["en"], "name": name}]},
        {"studies": [{"study": "custom", "mixtures": {name: {"en": 60}}, "evaluate_in": ["en"]}]},
    ):
        small.write_text(yaml.safe_dump(yaml.safe_load(SMALL) | setting))
        with pytest.raises(UserError):
            load(str(small))


def test_what_files_and_folders_are_called_and_ids_do_not_lead_out_either(tmp_path: Path) -> None:
    """A model, a judge's prompt, examples: their names are other people's, and only a last part becomes a folder's."""
    from orchestrator.corpus.base import Example, write_corpus

    model, prompt = tmp_path / "..model..", tmp_path / "..prompt"
    random_model(model, 1)
    prompt.mkdir()
    (prompt / "prompt.txt").write_text("{instruction}{first}{second}")
    path = tmp_path / "sweep.yaml"
    judge = {"kind": "remote", "model": "../../m", "prompt": str(prompt), "base_url": "http://h/v1"}
    path.write_text(yaml.safe_dump(yaml.safe_load(SMALL) | {"base": str(model / ".." / "..model.."), "judge": judge}))
    plan = Plan(load(str(path)))
    for step in plan.steps:
        assert Path(step.kind, step.folder).parts == (step.kind, step.folder)
        assert step.folder not in ("..", ".")
    assert "/" not in plan.sweep.judge.label
    assert not plan.sweep.judge.label.startswith(".")
    out = tmp_path / "corpus"
    out.mkdir()
    rows = [Example("../../up", "a", "b"), Example("/etc/up", "a", "b")]
    before = set(tmp_path.rglob("*"))
    write_corpus(out, rows, rows)
    assert all(path.parent == out for path in set(tmp_path.rglob("*")) - before)


def test_a_hub_name_or_commit_is_not_a_path() -> None:
    from trainables.base_models import parse_base

    for name in ("../up", "/etc/passwd", "a/b/../../../c", "org/name@../../x y"):
        with pytest.raises(UserError):
            parse_base(name)


# What a store holds stays in it


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "store")
    opened.create()
    opened.sessions.start("test")
    return opened


STEP = Step(kind="fine_tune", name="mono-fi", payload={"a": 1})


def published(store: Store) -> Path:
    attempt = store.attempt(STEP)
    (attempt / "checkpoint-000010").mkdir()
    (attempt / "checkpoint-000010" / "model.safetensors").write_text("weights")
    return store.root / store.publish(STEP, attempt, {}).place


@pytest.mark.parametrize("name", ["../../../outside.txt", "{outside}", "checkpoint-000010/../../../../outside.txt"])
def test_a_manifest_cannot_have_files_outside_read_or_removed(store: Store, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("weights")
    folder = published(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    name = name.format(outside=outside)
    manifest["files"] = {name: manifest["files"]["checkpoint-000010/model.safetensors"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    again = Store(store.root)
    assert again.entries("fine_tune") == {}
    assert again.find("fine_tune", STEP.key) is None
    assert [problem for _, problem in again.verify()] == ["no readable manifest"]
    assert outside.read_text() == "weights"


@pytest.mark.parametrize("what", ["result", "folder", "file"])
def test_a_link_is_not_a_result(store: Store, tmp_path: Path, what: str) -> None:
    folder = published(store)
    link = {"result": folder, "folder": folder / "checkpoint-000010"}.get(
        what, folder / "checkpoint-000010" / "model.safetensors"
    )
    outside = tmp_path / "outside"
    link.rename(outside)
    link.symlink_to(outside)
    before = {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()}
    again = Store(store.root)
    assert again.find("fine_tune", STEP.key) is None
    assert [problem for _, problem in again.verify()] != [None]
    assert {path: path.read_bytes() for path in [outside, *outside.rglob("*")] if path.is_file()} == before


def test_an_attempt_with_a_link_is_neither_gone_on_with_nor_published(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "notes.txt"
    outside.write_text("mine")
    attempt = store.attempt(STEP)
    (attempt / "examples.parquet").symlink_to(outside)
    assert store.adopt(STEP) is None
    assert any((store.root / "quarantine").iterdir())
    attempt = store.attempt(STEP)
    (attempt / "model.safetensors").symlink_to(outside)
    with pytest.raises(EnvironmentProblem, match="is a link"):
        store.publish(STEP, attempt, {})
    store.discard(attempt)
    assert outside.read_text() == "mine"


def test_a_lease_names_a_session_and_no_file_elsewhere(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text(json.dumps({"beat": 1, "user": "me", "host": "here", "pid": 1}))
    store.storage.write(f"leases/{STEP.key[:16]}", b"../../outside")
    assert store.sessions.holders() == {}
    assert store.sessions.acquire(STEP.key)


@pytest.mark.parametrize(
    "name",
    [
        "fine_tune",
        "attempts",
        "quarantine",
        "mlflow.db",
        "tracking/store-id",
        "ledger/a",
        "reports/small",
        "reports/small/samples/mono-fi/samples.json",
        "annotations/fi",
    ],
)
def test_a_store_that_writes_elsewhere_is_refused(store: Store, tmp_path: Path, name: str, pinch: Pinch) -> None:
    theirs = tmp_path / "elsewhere" / "thesis"
    theirs.mkdir(parents=True)
    (theirs / "one.txt").write_text("mine")
    place = store.root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    place.symlink_to(theirs.parent)
    with pytest.raises(UserError, match=f"{name} is a link"):
        Store(store.root)
    if name in ("fine_tune", "attempts"):
        for command in ("gc", "verify"):
            assert "is a link" in pinch(command, "--store", store.location, check=2).stderr
    assert (theirs / "one.txt").read_text() == "mine"
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis"]


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"[" * 9_000, b"\xff", b'{"key": 1, "session": 5, "error": []}'])
@pytest.mark.parametrize(
    "name", ["failures/a.json", "sessions/a.json", "leases/a", "attempts/a/attempt.json", "given_up/a.json"]
)
def test_a_record_that_is_none_is_passed_over(store: Store, name: str, content: bytes) -> None:
    store.storage.write(f"leases/{STEP.key[:16]}", b"a")
    store.storage.write(name, content)
    again = Store(store.root)
    assert again.failures() == {} == again.failures(for_good=False)
    assert again.sessions.holders() == {}
    assert set(again.sessions.held()) <= {STEP.key[:16], "a"}
    assert len(again.abandoned()) == name.startswith("attempts")


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"config.json": {"bytes": 10, "sha256": "aaa/../../../../victim/thesis.txt"}}},
        {"files": {"config.json": {"bytes": -1, "sha256": "a" * 64}}},
        {"files": {"config.json": 5}},
        {"files": {"../x": {"bytes": 1, "sha256": "a" * 64}}},
        {"family": None},
        {"name": 3},
        {"facts": []},
    ],
)
def test_a_manifest_that_lacks_something_is_none(store: Store, change: dict[str, object]) -> None:
    published(store)
    (manifest,) = (store.root / "fine_tune").glob("*/manifest.json")
    assert sound(json.loads(manifest.read_text()), "fine_tune", STEP.key[:16])
    assert not sound({**json.loads(manifest.read_text()), **change}, "fine_tune", STEP.key[:16])


def test_a_kept_report_names_files_of_its_own_folder_only(tmp_path: Path) -> None:
    """They are sent to MLflow."""
    folder = tmp_path / REPORTS / "small"
    folder.mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("x")
    (folder / "page.html").write_text("x")
    (folder / "link.html").symlink_to(tmp_path / "secret.txt")
    for name, kept in (("page.html", True), ("../../secret.txt", False), ("link.html", False)):
        (folder / "drawn.json").write_text(json.dumps({"from": "x", "headline": "", "files": [name]}))
        assert (_read(folder, "x") is not None) is kept, name


def test_a_folders_names_are_held_against_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert confined.inside(tmp_path, ["x", "a/x", "a/b/x"])
    for name in ("", ".", "..", "../x", "a/../../x", "/x", "link/x"):
        assert not confined.inside(tmp_path, [name]), name
