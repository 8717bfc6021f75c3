"""Rules of the corpus card: counted by hand from a small store, per language and source, and per model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import corpus_card
from orchestrator.corpus.base import FLAGS_FILE
from orchestrator.corpus_card import CorpusCards, as_table
from orchestrator.plan import Plan
from orchestrator.run.board import Board
from orchestrator.run.records import Recorder
from orchestrator.store import Store
from orchestrator.sweep import load
from orchestrator.tracking import CARD, default_uri
from tests.conftest import SMALL
from tests.hub_examples import ENGLISH, gair, lines, prompts, tree
from tests.page_example import finished_store
from trainables.batches import PLACE, template_source

TEMPLATE = template_source("plain")
"""The base of these tests makes one token of every byte, and one for the beginning of a prompt or a target's end."""


def rows(part: str, count: int) -> list[dict[str, str]]:
    return [
        {"id": f"{part}{at:02d}", "language": code, "instruction": letter * (at + 1), "response": letter * (3 * at + 1)}
        for at in range(count)
        for code, letter in (("en", "e"), ("fi", "ä"))
    ]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    folder = tmp_path_factory.mktemp("card")
    corpus = {"train": lines(folder / "train.jsonl", rows("t", 21)), "eval": lines(folder / "eval.jsonl", rows("e", 7))}
    sweep = SMALL.replace("source: cldr,", f"source: files, train: {corpus['train']}, eval: {corpus['eval']},")
    sweep = sweep.replace("train_count: 64", "train_count: 20").replace(
        "max_target_tokens: 48", "max_target_tokens: 50"
    )
    (folder / "small.yaml").write_text(sweep.replace("max_input_tokens: 96", "max_input_tokens: 40"))
    return finished_store(folder / "small.yaml", folder / "store")


def byte_lengths(texts: list[str]) -> list[int]:
    return sorted(len(text.encode()) + 1 for text in texts)


def test_a_card_has_what_was_counted_by_hand(done: tuple[Plan, Store]) -> None:
    card = CorpusCards(*done).corpus()
    assert [(record["language"], record["part"]) for record in card] == [
        *(("en", "train"), ("en", "eval")),
        *(("fi", "train"), ("fi", "eval")),
    ]
    inputs = byte_lengths([TEMPLATE.replace(PLACE, "ä" * at) for at in range(1, 21)])
    targets = byte_lengths(["ä" * (3 * at + 1) for at in range(20)])
    assert card[2] == {
        "language": "fi",
        "part": "train",
        "source": "files",
        "examples": 20,
        "flagged": None,
        "input_tokens_median": inputs[10],
        "input_tokens_p95": inputs[19],
        "input_tokens_longest": inputs[19],
        "cut_inputs": sum(length > 40 for length in inputs),
        "target_tokens_median": targets[10],
        "target_tokens_p95": targets[19],
        "target_tokens_longest": targets[19],
        "cut_targets": sum(length > 50 for length in targets),
    }
    assert card[2]["cut_inputs"] == 4
    assert card[2]["cut_targets"] == 12
    assert card[3]["examples"] == 6
    assert card[3]["cut_targets"] is None, "a reference is never cut"


def test_a_models_card_is_of_its_own_training_set(done: tuple[Plan, Store]) -> None:
    plan, store = done
    cards = CorpusCards(plan, store)
    for model in plan.models:
        card = cards.mixture(model)
        assert model.rule is not None
        assert {record["language"]: record["examples"] for record in card} == dict(model.rule.counts)
        assert {record["part"] for record in card} == {"train"}
    whole = next(record for record in cards.corpus() if (record["language"], record["part"]) == ("fi", "train"))
    assert cards.mixture(plan.find_model("mono-fi")) == [whole]
    table = as_table(card)
    assert table["columns"][:4] == ["language", "part", "source", "examples"]
    assert len(table["data"]) == 2


def test_tokens_are_counted_once_and_again_for_another_template(
    done: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = done
    card = CorpusCards(plan, store).corpus()
    monkeypatch.setattr(corpus_card, "_Tokens", None)
    assert CorpusCards(plan, store).corpus() == card
    monkeypatch.setattr(plan, "template", "Ask: {instruction}")
    with pytest.raises(TypeError):
        CorpusCards(plan, store).corpus()


def test_a_kept_count_that_is_broken_is_counted_again(done: tuple[Plan, Store]) -> None:
    plan, store = done
    card = CorpusCards(plan, store).corpus()
    for path in (store.root / corpus_card.LENGTHS).iterdir():
        path.write_bytes(path.read_bytes()[:50])
    assert CorpusCards(plan, store).corpus() == card


def test_flags_are_counted_where_somebody_translated(tmp_path: Path, small: Path) -> None:
    plan, store = finished_store(small, tmp_path / "store")
    step = plan.corpora["fi"]
    entry = store.find(step.kind, step.key)
    assert entry is not None
    doubtful = [*plan.train_ids[:3], plan.eval_ids[0], "beyond what the sweep uses"]
    pq.write_table(pa.table({"id": doubtful}), store.root / entry.place / FLAGS_FILE)
    flagged = {(record["language"], record["part"]): record["flagged"] for record in CorpusCards(plan, store).corpus()}
    assert flagged == {("en", "train"): None, ("en", "eval"): None, ("fi", "train"): 3, ("fi", "eval"): 1}


def test_a_card_says_what_is_known_before_the_base_is_there(tmp_path: Path, small: Path) -> None:
    plan, store = Plan(load(str(small))), Store(tmp_path / "store")
    assert CorpusCards(plan, store).corpus() == []
    store.create()
    step = plan.corpora["en"]
    out = store.attempt(step)
    store.publish(step, out, {"rows": plan.corpus.build("en", out)})
    card = CorpusCards(plan, store).corpus()
    assert [(record["part"], record["examples"]) for record in card] == [("train", 64), ("eval", 6)]
    assert {card[0][name] for name in ("input_tokens_median", "cut_inputs", "target_tokens_p95", "cut_targets")} == {
        None
    }


def test_each_source_of_the_papers_data_has_a_row_of_its_own(tmp_path: Path) -> None:
    files = {"lima": gair(), "oasst1": [row for key in "abc" for row in tree(key)], "alpacafarm": prompts()}
    copies = {name: str(lines(tmp_path / f"{name}.jsonl", content)) for name, content in files.items()}
    (tmp_path / "english.yaml").write_text(ENGLISH)
    plan = Plan(load(str(tmp_path / "english.yaml"), [f"corpus.copies={json.dumps(copies)}"]))
    store = Store(tmp_path / "store")
    store.create()
    out = store.attempt(plan.corpora["en"])
    store.publish(plan.corpora["en"], out, {"rows": plan.corpus.build("en", out)})
    card = CorpusCards(plan, store).corpus()
    assert [(record["part"], record["source"], record["examples"]) for record in card] == [
        ("train", "lima", 5),
        ("train", "oasst1", 2),
        ("eval", "alpacafarm", 3),
    ]
    assert card[2]["target_tokens_median"] is None


def test_mlflow_gets_the_card_of_the_sweep_and_of_every_model(done: tuple[Plan, Store]) -> None:
    from mlflow.tracking import MlflowClient

    plan, store = done
    Recorder(plan, store, Board(plan.steps, store, lambda *_: None)).close("FINISHED")
    client = MlflowClient(default_uri(store.root))
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    cards = CorpusCards(plan, store)
    expected: dict[str | None, Any] = {model.name: cards.mixture(model) for model in plan.models}
    for name, card in {**expected, "small": cards.corpus()}.items():
        run = runs[name]
        assert {"path": CARD, "type": "table"} in json.loads(run.data.tags["mlflow.loggedArtifacts"])
        path = client.download_artifacts(run.info.run_id, CARD)
        assert json.loads(Path(path).read_text()) == as_table(card)
