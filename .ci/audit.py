"""Known vulnerabilities of what the locks install, by pip-audit; `make audit`.

pip-audit asks PyPI about every pin. Behind a mirror, or without a network, it may learn nothing and still say that it
knows of no vulnerability; so it is first asked about a version that is known to have some, and when it does not name
them the audit says that it did not take place, and fails nothing. Exit status: 1 when something is found, else 0.

Usage: audit.py PIP_AUDIT_COMMAND... -- LOCK_OR_PIN...
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN_BAD = "jinja2==2.10"  # CVE-2019-10906 and others
IGNORED: dict[str, str] = {}
"""Vulnerability -> why it does not concern this program; said every time."""

Dependency = dict[str, Any]


def ask(command: list[str], pins: list[str], folder: Path) -> list[Dependency] | str:
    """What pip-audit knows of pins (``name==version``), or a sentence why it knows nothing."""
    asked, answer = folder / "pins.txt", folder / "answer.json"
    asked.write_text("\n".join(pins) + "\n", encoding="utf-8")
    answer.unlink(missing_ok=True)
    options = ["--requirement", str(asked), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    try:
        ended = subprocess.run(
            [*command, *options, "--format", "json", "--output", str(answer)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return list(json.loads(answer.read_text(encoding="utf-8"))["dependencies"])
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"pip-audit could not be run or asked ({type(problem).__name__}: {problem})"
    except (ValueError, KeyError):
        return f"pip-audit gave no answer ({(ended.stderr.strip().splitlines() or ['nothing said'])[-1][:200]})"


def reached(known_bad: list[Dependency] | str) -> str | None:
    """Why the data were not reached, judged by what is said of :data:`KNOWN_BAD`; None when they were."""
    if isinstance(known_bad, str):
        return known_bad
    if not any(one.get("vulns") for one in known_bad):
        reasons = [str(one["skip_reason"]) for one in known_bad if "skip_reason" in one]
        return f"of {KNOWN_BAD}, which has known vulnerabilities, it is told none ({', '.join(reasons) or 'no reason'})"
    return None


def judged(dependencies: list[Dependency]) -> tuple[list[str], list[str]]:
    """(what was found, what else is to be said), a sentence each."""
    found, notes = [], []
    for one in dependencies:
        for vulnerability in one.get("vulns", []):
            names = [vulnerability["id"], *vulnerability.get("aliases", [])]
            ignored = next((IGNORED[name] for name in names if name in IGNORED), None)
            fixed = ", ".join(vulnerability.get("fix_versions", [])) or "no version yet"
            sentence = f"{one['name']} {one['version']}: {' '.join(names)}, fixed in {fixed}"
            (notes if ignored else found).append(f"{sentence}; passed over: {ignored}" if ignored else sentence)
    skipped = [one["name"] for one in dependencies if "skip_reason" in one]
    if skipped:
        notes.append(f"{len(skipped)} of {len(dependencies)} could not be looked up: {', '.join(skipped)}")
    return found, notes


def pins_of(source: str) -> list[str]:
    """The pins of a lock, or the one pin that it is."""
    if "==" in source:
        return [source.partition("+")[0]]
    lines = Path(source).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if "==" in line and not line.lstrip().startswith(("#", "-"))]


def main(arguments: list[str]) -> int:
    """See the module's docstring."""
    split = arguments.index("--")
    command, sources = arguments[:split], arguments[split + 1 :]
    pins = sorted({pin for source in sources for pin in pins_of(source)})
    with tempfile.TemporaryDirectory(prefix="pinch-audit-") as scratch:
        problem = reached(ask(command, [KNOWN_BAD], Path(scratch)))
        answer = problem or ask(command, pins, Path(scratch))
    if isinstance(answer, str):
        sys.stdout.write(f"audit: not audited here: {answer}.\n")
        return 0
    found, notes = judged(answer)
    for line in [*found, *notes]:
        sys.stdout.write(f"audit: {line}\n")
    sys.stdout.write(f"audit: {len(pins)} pins, {len(found)} known vulnerabilities.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
