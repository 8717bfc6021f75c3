"""What every HTML file made here has in common: templates that escape, a style sheet and a script of its own, and a
content security policy that allows these two, by their hashes, images that are in the file, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

import jinja2

from orchestrator.report.responses import direction
from orchestrator.report.views import language_name
from orchestrator.saying import visible


def templates() -> jinja2.Environment:
    """The templates of the report room, with autoescape and its filters."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "language": language_name,
        "visible": visible,
        "direction": direction,
        "heat_class": lambda value: f"heat-{min(100, max(0, int(value // 5) * 5))}",
    }
    return environment


def asset(name: str) -> str:
    """A file of the report room, as text."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def policy(style: str, script: str) -> str:
    """The content security policy of a file with this style sheet and this script."""
    return (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
