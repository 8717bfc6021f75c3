"""What a sweep says of a remote judge: its key, its label, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.judge_server import calls
from trainables.errors import UserError
from trainables.judges import (
    JudgeSpec,
    RemoteJudge,
)
from trainables.judges.prompt import load_prompt
from trainables.judges.remote import EndpointJudge

FIGURE9 = load_prompt("figure9")
KEY = "planted-7f3a91-secret"


def test_a_remote_judges_key_is_its_model_and_prompt_and_not_how_it_is_reached(tmp_path: Path) -> None:
    spec = RemoteJudge(model="m", base_url="http://localhost:1/v1")
    payload = spec.payload()
    assert payload["prompt"] == FIGURE9.payload()
    assert payload["prompt"]["tries"] == 3
    runtime: dict[str, Any] = {
        "base_url": "https://elsewhere.example/v1",
        "api_key_env": "OTHER",
        "concurrency": 2,
        "requests_per_minute": 5,
        "timeout": 1.0,
        "retries": 0,
    }
    for name, value in runtime.items():
        assert spec.model_copy(update={name: value}).payload() == payload
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "prompt.txt").write_text(FIGURE9.text + "!")
    identity: dict[str, Any] = {"model": "n", "seed": 1, "prompt": str(folder)}
    for name, value in identity.items():
        assert spec.model_copy(update={name: value}).payload() != payload
    assert {*runtime, *identity, "kind"} == set(RemoteJudge.model_fields)
    (folder / "prompt.txt").write_text(FIGURE9.text)
    for setting in ("tries: 2", "reminder: One or two?", "parse_tokens: 3"):
        (folder / "judge.yaml").write_text(setting)
        assert spec.model_copy(update={"prompt": str(folder)}).payload() != payload


def test_a_label_is_fit_for_a_path(tmp_path: Path) -> None:
    assert RemoteJudge(model="org/big model:free", base_url="http://h/v1").label == "remote-org-big-model-free"
    folder = tmp_path / "strict"
    folder.mkdir()
    (folder / "prompt.txt").write_text(FIGURE9.text)
    assert RemoteJudge(model="m", base_url="http://h/v1", prompt=str(folder)).label == "remote-m-strict"


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "localhost:8000"},
        {"base_url": f"https://me:{KEY}@api.example/v1"},
        {"base_url": f"https://api.example/v1?key={KEY}"},
        {"base_url": f"https://api.example/v1#{KEY}"},
        {"base_url": f"https://me:pa/{KEY}@api.example/v1"},
        {"base_url": [f"https://me:{KEY}@api.example/v1"]},
        {"base_url": "https://api.example:99999/v1"},
        {"base_url": "https://api.example:0/v1"},
        {"base_url": "https://[api.example/v1"},
        {"base_url": "https://api.example/v 1"},
        {"base_url": "http://h/v1", "api_key_env": [KEY]},
        {"base_url": "http://h/v1", "api_key_env": f"sk-{KEY}"},
        {"base_url": "http://h/v1", "api_key_env": "gsk_abc123"},
        {"base_url": "http://h/v1", "concurrency": 0},
        {},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_repeated(wrong: dict[str, Any], tmp_path: Path) -> None:
    from orchestrator.sweep import load

    asked = {"kind": "remote", "model": "m", **wrong}
    with pytest.raises(ValidationError):
        TypeAdapter(JudgeSpec).validate_python(asked)
    sweep = tmp_path / "s.yaml"
    studies = [{"study": "monolingual", "languages": ["en", "fi"]}]
    corpus = {"source": "cldr", "languages": ["en", "fi"]}
    sweep.write_text(json.dumps({"name": "s", "corpus": corpus, "studies": studies, "judge": asked}))
    with pytest.raises(UserError, match=r"judge\.") as problem:
        load(str(sweep))
    assert KEY not in str(problem.value)


def test_a_prompt_that_is_too_long_by_itself_is_an_error_of_the_user(tmp_path: Path) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "prompt.txt").write_text("word " * 200 + "{instruction}{first}{second}")
    (folder / "judge.yaml").write_text("max_prompt_tokens: 64\n")
    spec = RemoteJudge(model="m", base_url="http://h/v1")
    with pytest.raises(UserError, match="raise max_prompt_tokens"):
        EndpointJudge(spec, load_prompt(str(folder))).question(calls(1)[0])
