"""Secrets are refused where they must not stand, and never repeated (docs/security.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.submit.head import Head
from orchestrator.sweep import load
from tests.conftest import SMALL, Pinch
from trainables.addresses import key_in, without_password
from trainables.errors import UserError
from trainables.judges.prompt import load_prompt
from trainables.translators import GoogleTranslator


def test_a_password_in_mlflows_address_is_not_repeated(pinch: Pinch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pa/planted-1@tracker:5000/x")
    said = pinch("ui", check=2)
    assert "http://tracker:5000/x" in said.stderr
    assert "planted-1" not in said.stdout + said.stderr


@pytest.mark.parametrize("address", ["http://me:planted-1@head:8265", "http://me:pa/planted-1@head:8265"])
def test_a_password_in_a_dashboards_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UserError, match="--address http://head:8265: is not a dashboard's address") as problem:
        Head(address)
    assert "planted-1" not in str(problem.value)


@pytest.mark.parametrize("where", ["api_key", "api_key_env", "base_url"])
def test_a_key_that_is_set_in_the_wrong_place_is_not_repeated(where: str, small: Path) -> None:
    judge = "{kind: remote, model: m, base_url: 'http://h/v1'}"
    wrong = "http://me:planted-1@h"
    alone = ["judge=" + judge, f"judge.{where}={wrong}"]
    inside = [f"judge={{kind: remote, model: m, base_url: 'http://h/v1', {where}: '{wrong}'}}"]
    for overrides in (alone, inside if where != "base_url" else [f"judge={{kind: remote, base_url: '{wrong}'}}"]):
        with pytest.raises(UserError) as problem:
            load(str(small), overrides)
        assert "planted-1" not in str(problem.value)
        assert "--set judge" in str(problem.value)


REMOTE = "judge={kind: remote, model: m, base_url: 'http://h/v1', "
GOOGLE = "corpus={source: hub, languages: [en, fi], translator: {engine: google, "


@pytest.mark.parametrize(
    "override",
    [
        "judge.api_key=[sk-planted",
        "judge.api_key=%planted",
        "judge.api_key: sk-planted",
        "judge.api_key: sk-planted&a=b",
        "judge.kind=sk-planted",
        "judge=sk-planted",
        REMOTE + "api_key_env: [sk-planted]}",
        REMOTE + "api_key:sk-planted}",
        REMOTE + "sk-planted}",
        REMOTE + "concurrency: sk-planted}",
        REMOTE + "retries: {sk-planted: 1}}",
        *(
            f"judge={{kind: remote, model: m, base_url: {url}}}"
            for url in (
                "'http://me:pa/planted@h/v1'",
                "'me:planted@h/v1'",
                "'http://h/v1#sk-planted'",
                "'http://h/v1?sk-planted'",
                "'http://h:planted/v1'",
                "'http://[planted'",
                "'http://h/ planted'",
                "[http://me:planted@h/v1]",
                "{http://me:planted@h/v1: 1}",
            )
        ),
        GOOGLE + "endpoint: 'https://me:planted@h'}}",
        GOOGLE + "endpoint: 'me:planted@h'}}",
        GOOGLE + "endpoint: 'h?key=planted'}}",
        GOOGLE + "endpoint: 'h:planted'}}",
        GOOGLE + "endpoint: [planted]}}",
        "corpus={source: hub, languages: [en, fi], copies: {lima: 'https://me:planted@h/lima.json'}}",
        "corpus={source: files, languages: [en, fi], train: 's3://me:planted@h/a.jsonl', eval: b.jsonl}",
        "corpus.languages=[http://me:planted@h]",
        "base=https://me:planted@huggingface.co/org/name",
        "base=[https://me:planted@huggingface.co/org/name]",
        "recipe.template=http://me:pa/planted@h",
        "name=http://me:planted@h",
        "http://me:planted@h=1",
        "studies.0={study: monolingual, languages: [en], http://me:planted@h: 1}",
        "studies.0={study: 'http://me:planted@h'}",
        "HF_TOKEN=sk-planted",
    ],
)
def test_what_may_be_a_secret_is_not_repeated_wherever_it_was_put(override: str, small: Path) -> None:
    with pytest.raises(UserError) as problem:
        load(str(small), [override])
    assert "planted" not in str(problem.value)
    if override.startswith("judge="):
        small.write_text(f"{SMALL}\njudge: {override.removeprefix('judge=')}\n")
        with pytest.raises(UserError, match=r"small\.yaml.*judge") as problem:
            load(str(small))
        assert "planted" not in str(problem.value)


def test_a_text_may_speak_of_an_address(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("{instruction}{first}{second}")
    (tmp_path / "judge.yaml").write_text("reminder: As on https://h/@me, one digit.")
    assert load_prompt(str(tmp_path)).settings.reminder == "As on https://h/@me, one digit."


@pytest.mark.parametrize("host", ["translate-eu.googleapis.com", "http://127.0.0.1:8080", "h:443"])
def test_a_host_is_an_endpoint(host: str) -> None:
    assert GoogleTranslator(endpoint=host).endpoint == host


@pytest.mark.parametrize("key", ["sk-planted\nsk-second", "sk-planted sk-second", "sk-plantéd"])
def test_what_cannot_be_sent_as_a_key_is_refused_and_not_repeated(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(UserError, match=r"MY_KEY: holds .* no key has") as problem:
        key_in("MY_KEY")
    assert "sk-" not in str(problem.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://tracker:5000/x", "http://tracker:5000/x"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("/home/me/mlruns", "/home/me/mlruns"),
        ("http://me:planted@tracker:5000/x", "http://tracker:5000/x"),
        ("http://me:pa/planted@tracker:5000", "http://tracker:5000"),
        ("http://me:p@planted@tracker:5000", "http://tracker:5000"),
        ("http://me:p#planted@tracker:5000", "http://tracker:5000"),
        ("http://me:p?planted@tracker:5000", "http://***"),
        ("me:planted@tracker:5000", "tracker:5000"),
        ("http://tracker?token=plan@ted", "http://***"),
        ("databricks://x?token=planted", "databricks://x"),
        ("postgresql://db/mlflow?user=u&password=planted", "postgresql://db/mlflow"),
        ("http://h#planted", "http://h"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_of_an_address_the_place_alone_is_said(uri: str, said: str) -> None:
    assert without_password(uri) == said
