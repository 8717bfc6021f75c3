"""Where a service answers, which environment variable holds the key to it, and what of both is not said.

A spec must never hold a key: it names the variable that does.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from trainables.errors import UserError

_PRIVATE = re.compile(r"judge|translator|key|secret|password|token\b|url|endpoint", re.IGNORECASE)
"""Settings beside which somebody may put a key, by their names."""


def web_address(url: str) -> str:
    """An http(s) address as it is: without user, password, query and fragment.

    Raises:
        ValueError: it is none, or holds more than that; the address is not repeated.
    """
    if set("@?#") & set(url):
        raise ValueError("holds more than an address; put a key into the environment, never here.")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", url):
        raise ValueError("is not an address; write one such as https://api.openai.com/v1.")
    return url


def _host(name: str) -> str:
    web_address(name if "://" in name else f"https://{name}")
    return name


def _a_name_and_not_a_key(name: str) -> str:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError("is not the NAME of an environment variable (capitals, digits, _); never put a key here.")
    return name


Address = Annotated[str, AfterValidator(web_address)]
"""An http(s) address without user, password, query or fragment."""

Host = Annotated[str, AfterValidator(_host)]
"""The same, or a host alone."""

KeyName = Annotated[str, AfterValidator(_a_name_and_not_a_key)]
"""The name of the environment variable that holds a key."""


def key_in(variable: str) -> SecretStr | None:
    """The key that an environment variable holds; None where it holds none.

    Raises:
        UserError: what it holds cannot be sent as a key.
    """
    value = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", value):
        raise UserError(
            f"{variable}: holds blanks, line breaks or letters that no key has; set the environment variable to the "
            "key alone."
        )
    return SecretStr(value) if value else None


def is_with_password(text: str) -> bool:
    """Whether a text is an address with a user or password, and not one that only speaks of such."""
    return re.fullmatch(r"\S*://\S*@\S*", text) is not None


def private(place: str, value: Any) -> bool:
    """Whether a value is not to be repeated where it was found, because it may be, or hold, a secret."""
    return bool(_PRIVATE.search(place) or re.search(r"://.*@", str(value), re.DOTALL))


def without_password(uri: str) -> str:
    """A URI without user, password, query and fragment, for messages."""
    scheme, mark, rest = uri.partition("://") if "://" in uri else ("", "", uri)
    before, _, rest = rest.rpartition("@")
    if "?" in before:  # of a password or of a query: nobody can tell
        return f"{scheme}{mark}***"
    return scheme + mark + re.split("[?#]", rest, maxsplit=1)[0]
