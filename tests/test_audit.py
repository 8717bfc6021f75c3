"""`make audit`: what is known is said and fails; what could not be asked is said and fails nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FOUND = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"], "aliases": ["CVE-2019-10906"], "description": ""}],
}
SKIPPED = {
    "name": "jinja2",
    "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (2.10)",
}
"""What pip-audit 2.10 writes behind a mirror that has no such data, and says it knows of no vulnerability."""


def pretend(tmp_path: Path, *answers: Any) -> list[str]:
    """A command that answers as pip-audit would, one answer a call."""
    script = tmp_path / "pip_audit.py"
    script.write_text(
        "import json, pathlib, sys\n"
        f"answers, count = {answers!r}, pathlib.Path({str(tmp_path / 'count')!r})\n"
        "number = int(count.read_text()) if count.exists() else 0\n"
        "count.write_text(str(number + 1))\n"
        "if answers[number] is None: sys.exit('no network')\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--output') + 1])\n"
        "out.write_text(json.dumps({'dependencies': answers[number]}))\n"
    )
    return [sys.executable, str(script)]


@pytest.mark.parametrize("answer", [None, [SKIPPED], []])
def test_where_the_data_cannot_be_reached_it_says_so_and_fails_nothing(
    answer: Any, audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main([*pretend(tmp_path, answer), "--", "torch==2.13.0+cpu"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("audit: not audited here: ")
    assert said.count("\n") == 1


def test_a_missing_pip_audit_is_said_and_fails_nothing(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["/no/pip-audit", "--", "torch==2.13.0"]) == 0
    assert "could not be run" in capsys.readouterr().out


def test_what_is_known_is_named_and_fails(
    audit: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("# a comment\njinja2==2.10 ; python_version < '4'\ntorch==2.13.0\n--find-links x==1\n")
    answer = [FOUND, {"name": "torch", "version": "2.13.0", "vulns": []}, {**SKIPPED, "name": "mine"}]
    assert audit.main([*pretend(tmp_path, [FOUND], answer), "--", str(lock), "torch==2.13.0+cpu"]) == 1
    said = capsys.readouterr().out
    assert "jinja2 2.10: PYSEC-2019-217 CVE-2019-10906, fixed in 2.10.1" in said
    assert "1 of 3 could not be looked up: mine" in said
    assert "2 pins, 1 known vulnerabilities" in said
    monkeypatch.setitem(audit.IGNORED, "CVE-2019-10906", "a test")
    (tmp_path / "count").unlink()
    assert audit.main([*pretend(tmp_path, [FOUND], answer), "--", str(lock)]) == 0
    assert "passed over: a test" in capsys.readouterr().out


def test_every_pin_of_the_locks_is_looked_at(audit: ModuleType) -> None:
    for lock in sorted((ROOT / "requirements").glob("*.txt")):
        pins = audit.pins_of(str(lock))
        assert len(pins) == len([line for line in lock.read_text().splitlines() if "==" in line])
        assert all(pin.count("==") == 1 for pin in pins)
