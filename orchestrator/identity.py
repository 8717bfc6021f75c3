"""What makes two steps the same: a key is the sha256 of the canonical JSON of what determines a result.

The canonical form is RFC 8785 (JSON Canonicalization Scheme): keys sorted, numbers in one spelling (so ``1`` and
``1.0`` are one value), anything that JSON cannot represent refused. The hashed payload is stored beside each
result, which lets a plan say *why* a step is new, field by field.

This module must never know where results are stored or how they are made.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import rfc8785

KEY_SCHEMA = 1
"""Raised when the meaning of payloads changes as a whole; a store of another schema is read-only."""

KINDS = ("base", "corpus", "translation", "fine_tune", "selection", "generation_set", "comparison")

Payload = Mapping[str, Any]


def key_of(payload: Payload) -> str:
    """The full sha256 (64 hex digits) of a payload's canonical JSON.

    Raises:
        rfc8785.CanonicalizationError: when the payload holds something JSON cannot represent (NaN, a path, an object).
    """
    return hashlib.sha256(rfc8785.dumps(payload)).hexdigest()  # type: ignore[arg-type]


def digest_of_text(text: str) -> str:
    """sha256 (64 hex digits) of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One piece of work with a result of its own.

    ``needs`` are the steps whose results it reads; their keys are part of ``payload``, so a change upstream is a
    new key here. ``family`` is the payload without what only says *how many* prompts: two members of a family
    agree on every prompt they share, so a larger one takes over what a smaller one already made.
    """

    kind: str
    name: str
    payload: Payload
    needs: tuple[Step, ...] = ()
    family_payload: Payload | None = None

    @functools.cached_property
    def key(self) -> str:
        return key_of({"schema": KEY_SCHEMA, "kind": self.kind, **self.payload})

    @functools.cached_property
    def family(self) -> str:
        return key_of({"schema": KEY_SCHEMA, "kind": self.kind, **(self.family_payload or self.payload)})

    @property
    def folder(self) -> str:
        """``<name>-<16 hex>``: the name is for people, the digits are what counts."""
        return f"{self.name}-{self.key[:16]}"


def differences(old: Payload, new: Payload) -> list[str]:
    """The fields in which two payloads differ, as ``learning_rate 1e-05 -> 2e-05``; keys of inputs are shortened."""
    before, after = dict(_leaves(old)), dict(_leaves(new))
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    return [f"{name} {_short(before.get(name))} -> {_short(after.get(name))}" for name in changed]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"
