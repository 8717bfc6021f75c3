"""What the tests of the page and of tracking share: a finished store without a run, hostile texts, and further records.

Every step of a sweep is published with made-up results, for tests of what reads them.

Corpora are built, for their texts are what responses are made of: a model answers an instruction right with a chance
that depends on how much of its data was in the language, and otherwise with some other reference answer. The judge
prefers what is right. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.corpus.base import EVAL_FILE, Example, read_examples
from orchestrator.identity import Step
from orchestrator.plan import Model, Plan
from orchestrator.report.findings import Finding, Number
from orchestrator.report.views import Details, Sample
from orchestrator.scores.summaries import AVERAGE_COLUMNS, DIFFERENCE_COLUMNS
from orchestrator.store import Store
from orchestrator.sweep import load
from tests import report_example as example
from tests.tiny_models import byte_tokenizer

OWN = "document.title='owned'"
HOSTILE = (
    f"</script><script>{OWN}</script>",
    f"</ScRiPt\t><svg onload={OWN}>",
    f"<!--<script>{OWN}</script>",
    f"-->]]></style></template></textarea></title><script>{OWN}</script>",
    f'"\'><img src=x onerror="{OWN}">',
    f"javascript:{OWN}",
    f"[a](javascript:{OWN})",
    "{{ 7 * 7 }}{% raw %}{# #}${7*7}`",
    "\u202egnirts\u202c\u2066\u2069",
    "line\u2028separator\u2029end",
    "\x00\x1b[31m\ud800\ufffe",
    "&lt;b&gt;&amp;#60;script&amp;#62;",
    "W" * 3_000,
    "שלום " * 20_000,
)
"""What a model might write to do harm, or just too much of it; the title of a page that lets it is ``owned``."""


def hostile_samples() -> list[Sample]:
    """A sample for each hostile text, which stands everywhere that a model or a user may have written."""
    return [
        Sample(
            study="pinch-4",
            language="he" if at % 2 else "fi",
            instruction_id=text[:60],
            instruction=text,
            baseline=f"mono-{text[:40]}",
            baseline_response=text,
            model=f"{at} {text[:40]}",
            model_response=f"{text} {at}",
            choices={"ab": 1, "ba": None},
            reference=text,
        )
        for at, text in enumerate(HOSTILE)
    ]


@dataclass(frozen=True)
class Terms:
    """A licence, in the form the page is told of one."""

    name: str
    what: str
    terms: str
    url: str


def details(text: str = "") -> Details:
    """Every further record that a page can show, about the example sweep; ``text`` is put into all its texts."""
    table = example.score_table()
    pinches = table[(table["study"] == "pinch-4") & (table["eval_language"] != "en")]
    means = pinches.groupby("model", sort=False)["if_score"].mean().to_dict()
    averages = [
        ("pinch-4", model, group, mean, mean - 3, mean + 3, 3, 1)
        for model, mean in means.items()
        for group in ("non_english", "seen")
    ]
    differences = [
        ("pinch-4", "pinch-4-n40", "mono-en", "non_english", 21.2, 17.0, 25.4, 48),
        ("pinch-4", "pinch-4-n40", "uniform-en+es+fi+ru", "non_english", -0.8, -3.9, 2.3, 48),
        ("pinch-4", "pinch-4-p50", "mono-en", "non_english", None, None, None, 0),
    ]
    card = {"language": "fi", "part": "train", "source": f"cldr{text}", "examples": 1600, "flagged": 3}
    numbers = {"input_tokens_median": 21, "target_tokens_median": 9, "cut_inputs": 0, "cut_targets": 2}
    return Details(
        averages=pd.DataFrame(averages, columns=list(AVERAGE_COLUMNS)),
        differences=pd.DataFrame(differences, columns=list(DIFFERENCE_COLUMNS)),
        difference_sentences=[f"{row[1]} against {row[2]}{text}" for row in differences],
        intervals_note=f"Intervals are over instructions.{text}",
        findings=[
            Finding(f"A pinch helps.{text}", "It did here.", "held", (Number("difference", 21.2, 17.0, 25.4),)),
            Finding("Hindi is lowest.", "It takes a study with Hindi.", "cannot be told"),
        ],
        card=[{**card, **numbers}, {**card, **numbers, "part": "eval", "examples": 48}],
        licences=[Terms(f"CLDR{text}", "the corpus", "Unicode-3.0", "https://unicode.org/license.txt")],
        cost=[(f"Judging{text}", "2 min, 3,072 verdicts")],
    )


def finished_store(sweep: str | Path, root: Path) -> tuple[Plan, Store]:
    """Publish every step of a sweep that is not there yet; returns its plan and the store."""
    plan, store = Plan(load(str(sweep))), Store(root)
    store.create()
    makers = {
        "base": _base,
        "corpus": _corpus,
        "fine_tune": _fine_tune,
        "selection": _selection,
        "generation_set": _responses,
        "comparison": _verdicts,
    }
    for step in plan.steps:
        if store.find(step.kind, step.key) is None:
            out = store.attempt(step)
            facts = makers[step.kind](plan, store, step, out)
            store.publish(step, out, facts)
    return plan, store


def _base(plan: Plan, store: Store, step: Step, out: Path) -> dict[str, Any]:
    byte_tokenizer().save_pretrained(out)
    return {"seconds": 60.0}


def _corpus(plan: Plan, store: Store, step: Step, out: Path) -> dict[str, Any]:
    language = next(code for code, corpus in plan.corpora.items() if corpus.key == step.key)
    return {"rows": plan.corpus.build(language, out), "seconds": 0.5}


def _fine_tune(plan: Plan, store: Store, step: Step, out: Path) -> dict[str, Any]:
    steps = range(1, plan.sweep.recipe.steps + 1)
    curve = {"step": list(steps), "loss": [3 * 0.98**at for at in steps], "seconds": [0.1 * at for at in steps]}
    pq.write_table(pa.table(curve), out / "curve.parquet")
    for at in plan.sweep.recipe.checkpoint_steps:
        (out / f"checkpoint-{at:06d}").mkdir()
        (out / f"checkpoint-{at:06d}" / "model.safetensors").write_text("weights")
    return {"seconds": 15.0, "tokens_per_second": 9000.0, "device": "cpu"}


def _selection(plan: Plan, store: Store, step: Step, out: Path) -> dict[str, Any]:
    rows = [{"step": at, "rouge_l": 0.4} for at in plan.sweep.recipe.checkpoint_steps]
    (out / "scores.json").write_text(json.dumps({"selected": rows[-1]["step"], "dev": 32, "scores": rows}))
    return {"seconds": 1.0, "selected": rows[-1]["step"]}


def _responses(plan: Plan, store: Store, step: Step, out: Path) -> dict[str, Any]:
    model, language = plan.model_of_step[step.key], step.name.rpartition(".")[2]
    draw = np.random.default_rng(zlib.crc32(step.name.encode()))
    examples = _examples(plan, store, language)
    right = draw.random(len(examples)) < _chance(model, language)
    others = draw.permutation(len(examples))
    rows = [
        {
            "instruction_id": asked.id,
            "text": asked.response if right[at] else examples[others[at]].response,
            "tokens": 12,
            "finish": "stop",
            "in_language": bool(draw.random() < 0.9),
        }
        for at, asked in enumerate(examples)
    ]
    pq.write_table(pa.Table.from_pylist(rows), out / "responses.parquet")
    return {"rows": len(rows), "tokens": 12 * len(rows), "seconds": 2.0, "engine": "vllm"}


def _verdicts(plan: Plan, store: Store, step: Step, out: Path) -> dict[str, Any]:
    language = step.needs[0].name.rpartition(".")[2]
    draw = np.random.default_rng(zlib.crc32(step.name.encode()))
    texts = [_texts(store, needed) for needed in step.needs[:2]]
    rows = []
    for asked in _examples(plan, store, language):
        good = [text[asked.id] == asked.response for text in texts]
        for order in ("ab", "ba"):
            model = draw.random() < 0.5 if good[0] == good[1] else good[1]
            choice = (2 if order == "ab" else 1) if model else (1 if order == "ab" else 2)
            rows.append({"instruction_id": asked.id, "order": order, "choice": choice, "raw": "", "seconds": 0.0})
    pq.write_table(pa.Table.from_pylist(rows), out / "verdicts.parquet")
    return {"rows": len(rows), "judge": plan.sweep.judge.label, "taken_over": 0, "seconds": 0.5}


def _chance(model: Model, language: str) -> float:
    if model.rule is None:
        return 0.1
    counts = dict(model.rule.counts)
    return float(0.25 + 0.5 * (counts.get(language, 0) / sum(counts.values())) ** 0.15)


def _examples(plan: Plan, store: Store, language: str) -> list[Example]:
    entry = store.find("corpus", plan.corpora[language].key)
    assert entry is not None
    return read_examples(store.root / entry.place / EVAL_FILE)[: plan.sweep.corpus.eval_count]


def _texts(store: Store, step: Step) -> dict[str, str]:
    entry = store.find("generation_set", step.key)
    assert entry is not None
    rows = pq.read_table(store.root / entry.place / "responses.parquet", columns=["instruction_id", "text"]).to_pylist()
    return {row["instruction_id"]: row["text"] for row in rows}
