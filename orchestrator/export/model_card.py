"""A model's card: what it was tuned on, how, what it scores, under which terms, and how it can be made again.

Markdown with the front matter that model hubs read. It holds what determines the model, and nothing of the machine
that made it but the kind of device.
"""

from __future__ import annotations

import json
from importlib import metadata, resources
from typing import Any

import jinja2
import yaml

from orchestrator.corpus.hub_data import PUBLIC
from orchestrator.export.citing import citation
from orchestrator.export.licences import licences
from orchestrator.languages import any_language
from orchestrator.plan import Model, Plan
from orchestrator.scores.score_table import Row, ScoreTable
from orchestrator.store import Store
from orchestrator.sweep import HubSource
from trainables.export import BaseName


def model_card(plan: Plan, store: Store, model: Model, adapter_of: BaseName | None = None) -> str:
    """The card of a tuned model, as README.md.

    Args:
        adapter_of: of an adapter, the base that its users load; None for a complete model.
    """
    assert model.fine_tune is not None and model.mixture is not None
    sweep, table = plan.sweep, ScoreTable(plan, store)
    fine_tune, selection = store.find("fine_tune", model.fine_tune.key), store.find("selection", model.weights.key)
    assert fine_tune is not None and selection is not None
    recipe = {name: value for name, value in sweep.recipe.identity().items() if name != "template"}
    facts = f"Model {model.name} of sweep {sweep.name}, key {model.key}. Base model {plan.base_source.label}."
    keys = {"base": plan.base.key, "fine-tune": model.fine_tune.key, "selection": model.weights.key}
    keys |= {f"corpus, {code}": plan.corpora[code].key for code in model.mixture.languages}
    return _template().render(
        front=yaml.safe_dump(_front(plan, model, adapter_of), sort_keys=False, allow_unicode=True).strip(),
        plan=plan,
        sweep=sweep,
        model=model,
        adapter_of=adapter_of,
        mixture=_mixture(plan, model),
        recipe={name.replace("_", " "): _text(value) for name, value in recipe.items()},
        sampling={name.replace("_", " "): _text(value) for name, value in sweep.sampling.identity().items()},
        selection=selection.facts,
        scores=_scores(table, model),
        judge=table.judge,
        working_model=plan.base_source.kind == "tiny" or sweep.judge.kind == "reference",
        licences=licences(plan),
        keys=keys,
        settings=yaml.safe_dump(
            {"name": sweep.name, **json.loads(json.dumps(sweep.identity()))}, sort_keys=False, allow_unicode=True
        ).strip(),
        made=fine_tune.manifest["made"],
        device=fine_tune.facts.get("device", "unknown"),
        version=metadata.version("pinch-sweeps"),
        citation=citation(metadata.version("pinch-sweeps"), facts),
    )


def _front(plan: Plan, model: Model, adapter_of: BaseName | None) -> dict[str, Any]:
    """What hubs read. The terms are those of several inputs, so they are named in the card, not by one identifier."""
    assert model.mixture is not None
    front: dict[str, Any] = {
        "language": list(model.mixture.languages),
        "license": "other",
        "license_name": "terms-of-its-inputs",
        "license_link": "README.md",
        "library_name": "transformers" if adapter_of is None else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["pinch", "multilingual", "instruction-tuning", plan.sweep.recipe.method],
    }
    if plan.base_source.kind == "hub":
        front["base_model"] = plan.base_source.where
        front["base_model_relation"] = "finetune" if adapter_of is None else "adapter"
    if isinstance(plan.sweep.corpus, HubSource):
        front["datasets"] = [PUBLIC[name].repository for name in plan.sweep.corpus.train]
    return front


def _mixture(plan: Plan, model: Model) -> list[dict[str, Any]]:
    """A row for each language: examples, and how many of them choose the checkpoint instead of being tuned on."""
    assert model.mixture is not None
    trained = list(model.mixture.without(plan.dev).values())
    return [
        {
            "language": any_language(code).name,
            "code": code,
            "examples": count,
            "share": 100 * count / len(model.mixture.assignment),
            "trained": trained.count(code),
            "dev": count - trained.count(code),
        }
        for code, count in model.mixture.counts.items()
    ]


def _scores(table: ScoreTable, model: Model) -> list[Row]:
    """The model's rows, each cell once, however many studies list it."""
    rows = {(row["eval_language"], row["baseline"]): row for row in reversed(table.rows_of(model))}
    return [{**row, "language": any_language(row["eval_language"]).name} for row in reversed(rows.values())]


def _cell(value: Any) -> str:
    """Text in a table; no HTML begins in it."""
    return _line(value).replace("<", "&lt;")


def _code(value: Any) -> str:
    return "`" + _line(value).replace("`", "'") + "`"


def _line(value: Any) -> str:
    return str(value).replace("\n", " ").replace("|", "\\|")


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _template() -> jinja2.Template:
    text = resources.files(__package__).joinpath("model_card.md.j2").read_text(encoding="utf-8")
    # Markdown, not HTML: what comes from the user's own sweep is kept from breaking a table or leaving its code span.
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"cell": _cell, "code": _code, "quoted": lambda text: json.dumps(text, ensure_ascii=False)}
    return environment.from_string(text)
