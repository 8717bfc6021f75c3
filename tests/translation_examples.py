"""A small sweep whose corpus is translated, from copies of the public data."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hub_examples import lines
from tests.judge_server import JudgeServer

PRICE = "runtime.prices={million_characters: {amount: 1000, date: 2026-11-01}}"

SWEEP = """
name: translated
corpus:
  source: hub
  languages: [en, es, fi]
  train: [lima]
  copies: {lima: LIMA, alpacafarm: FARM}
  train_count: 16
  dev_count: 4
  eval_count: 6
  translator: TRANSLATOR
base: tiny
recipe: {steps: 6, batch_size: 8, max_input_tokens: 96, max_target_tokens: 48, checkpoint_every: 3}
sampling: {max_new_tokens: 16}
judge: {kind: local, model: tiny}
studies: [{study: monolingual, languages: [en, es, fi]}]
runtime: {engine: transformers}
"""


def write_sweep(folder: Path, server: JudgeServer, engine: str = "openai", **settings: object) -> Path:
    """The sweep file, and its data, in a folder: 20 pairs of which 16 are used, 8 prompts of which 6 are."""
    lima = [
        {"conversations": [f"Explain step {at} of this recipe with `code{at}`.", _response(at)], "source": "x"}
        for at in range(20)
    ]
    farm = [{"instruction": f"Write a letter of {at} lines to a friend.", "dataset": "koala"} for at in range(8)]
    asked = {"engine": engine, "parallel": 4, "timeout": 5, "tries": 3, **settings}
    if engine == "openai":
        asked |= {"model": "m", "base_url": server.url}
    else:
        asked |= {"endpoint": f"http://127.0.0.1:{server.port}"}
        asked |= {"requests_per_minute": None, "characters_per_minute": None}
    text = SWEEP.replace("LIMA", str(lines(folder / "lima.jsonl", lima)))
    text = text.replace("FARM", str(lines(folder / "farm.jsonl", farm)))
    path = folder / "translated.yaml"
    path.write_text(text.replace("TRANSLATOR", json.dumps(asked)))
    return path


def _response(at: int) -> str:
    return f"First stir the soup {at} times.\n\n```\nstir({at})\n```\n- Then wait for {{minutes}} minutes.\n- Serve it."
