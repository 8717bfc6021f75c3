"""What is wrong with a sweep, said to its writer: in the words and by the keys of the file, not of the specs behind it.

This module must never know what a setting means.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from pydantic import ValidationError

from trainables.addresses import private
from trainables.errors import cut, shown

LONGEST = 1000
"""Characters of a sentence; what people write, and so what is said of it, can be of any length."""


def explain(problem: ValidationError, raw: dict[str, Any], source: str, changed: dict[str, str]) -> str:
    """The first problem in a sentence: file (or --set), key, what was found, cure.

    Args:
        raw: the sweep as it was read, overrides applied.
        source: its file.
        changed: the dotted name that an override set -> the override as it may be shown.
    """
    error = problem.errors(include_url=False)[0]
    where, value = _place(raw, error["loc"], missing=error["type"] == "missing")
    origin = next((given for name, given in changed.items() if _touches(where, name, error)), source)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        message = "is missing; add it."
    elif error["type"].startswith("union_tag"):
        context = error.get("ctx", {})
        found = context.get("tag")
        known = [tag.strip("' ") for tag in str(context.get("expected_tags", "")).split(",") if tag]
        key = str(context.get("discriminator", "")).strip("'")
        where = f"{where}.{key}" if where else key
        near = difflib.get_close_matches(str(found), known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        said = "" if private(where, found) and not str(found).isalpha() else f"{shown(found)} "
        message = f"{said}is not known; use one of {', '.join(known)}.{hint}" if found else "is missing; add it."
    elif error["type"] != "value_error":
        message = _IN_YAML.get(error["type"]) or f"{message[0].lower()}{message[1:]}"
        found = "" if private(where, value) else f"; found {'nothing' if value is None else shown(value)}"
        message = f"{message}{found}."
    elif private(where, value):
        message = re.sub(r"^(unknown \w+) (?!'\w+'[;, ]).*(?=[;,] (did you mean|known))", r"\1", message)
    return cut(f"{origin}: {where}: {message}" if where else f"{origin}: {message}", LONGEST)


_IN_YAML = {
    "tuple_type": "should be a list, in brackets",
    "dict_type": "should be keys and values",
    "model_type": "should be keys and values",
    "model_attributes_type": "should be keys and values",
    "too_short": "should name at least one",
}
"""What pydantic calls tuples and models is a list, or keys and values, in a sweep file."""


def _touches(where: str, name: str, error: Any) -> bool:
    """Whether an override may have made an error: it set that place, something around it, or a key that is named."""
    if where == name or where.startswith(name + "."):
        return True
    if where and not name.startswith(where + "."):
        return False
    inside = name.removeprefix(f"{where}.").split(".")
    return f"{inside[0]!r}" in error["msg"] or (bool(where) and inside[-1] in error["msg"])


def _place(raw: Any, location: tuple[int | str, ...], missing: bool) -> tuple[str, Any]:
    """The dotted path of an error in the user's file, union tags left out, and the value found there."""
    path: list[str] = []
    value = raw
    for position, part in enumerate(location):
        if part == "[key]":
            return ".".join(path[:-1]), path[-1]
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if inside:
            path.append(str(part))
            value = value[part]
        elif missing and position == len(location) - 1:
            path.append(str(part))
            value = None
    return ".".join(path), value
