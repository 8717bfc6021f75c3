"""Where a service answers, and which environment variable holds the key to it.

A spec must never hold a key: it names the variable that does.
"""

from __future__ import annotations

import os
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an address; write one such as https://api.openai.com/v1.")
    if parts.username or parts.password or parts.query:
        raise ValueError("holds more than an address; put the key into the variable that api_key_env names.")
    return url


def _a_name_and_not_a_key(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError("is not the NAME of an environment variable (capitals, digits, _); never put a key here.")
    return name


Address = Annotated[str, AfterValidator(_without_secrets)]
"""An http(s) address without user, password or query."""

KeyName = Annotated[str, AfterValidator(_a_name_and_not_a_key)]
"""The name of the environment variable that holds a key."""


def key_in(variable: str) -> SecretStr | None:
    """The key that an environment variable holds; None where it holds none."""
    value = os.environ.get(variable, "").strip()
    return SecretStr(value) if value else None
