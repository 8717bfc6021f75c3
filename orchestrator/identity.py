"""What makes two steps the same: a key is the sha256 of the canonical JSON of what determines a result.

The canonical form is RFC 8785 (JSON Canonicalization Scheme): keys sorted, numbers in one spelling (so ``1`` and
``1.0`` are one value), anything that JSON cannot represent refused. The hashed payload is stored beside each
result, which lets a plan say *why* a step is new, field by field.

This module must never know where results are stored or how they are made.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import rfc8785

KEY_SCHEMA = 1
"""Raised when the meaning of payloads changes as a whole; a store of another schema is read-only."""

NAME_BYTES = 120
"""Of a step's name in its folder's; file systems take 255, and attempts and quarantine add theirs."""

KINDS = ("base", "corpus", "translation", "fine_tune", "selection", "generation_set", "comparison")

Payload = Mapping[str, Any]
_NOTHING: Mapping[str, Any] = {}


def key_of(payload: Payload) -> str:
    """The full sha256 (64 hex digits) of a payload's canonical JSON.

    Raises:
        rfc8785.CanonicalizationError: when the payload holds something JSON cannot represent (NaN, a path, an object).
    """
    return hashlib.sha256(_canonical(payload)).hexdigest()


def _canonical(payload: Payload) -> bytes:
    return rfc8785.dumps(payload)  # type: ignore[arg-type]


def digest_of_text(text: str) -> str:
    """sha256 (64 hex digits) of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


class Form:
    """The payload of steps that differ only in which steps they read.

    A sweep can have a million cells, so what they have in common is made canonical and hashed once, and one more key
    costs one more block of sha256. It is the key of the whole payload all the same.
    """

    def __init__(
        self, kind: str, common: Payload, reads: Mapping[str, int] = _NOTHING, counted: Payload = _NOTHING
    ) -> None:
        """Args:
        common: the fields that all these steps share.
        reads: field -> the place in a step's ``needs`` of the step whose key it is (in a family: whose family).
        counted: shared fields that only say how many prompts there are; they are no part of a family.
        """
        self.kind, self.common, self.reads, self.counted = kind, common, reads, counted

    def payload(self, needs: Sequence[Step]) -> Payload:
        """The whole payload of the step with these needs."""
        return {**self.common, **self.counted, **{field: needs[place].key for field, place in self.reads.items()}}

    def key(self, needs: Sequence[Step]) -> str:
        """:func:`key_of` its payload."""
        return self._key([needs[place].key for place in self._places])

    def family(self, needs: Sequence[Step]) -> str:
        """:func:`key_of` its family's payload."""
        return self._family([needs[place].family for place in self._places])

    def __reduce__(self) -> tuple[Any, ...]:
        # What is worked out already stays behind: a hash that was begun cannot travel.
        return Form, (self.kind, self.common, dict(self.reads), dict(self.counted))

    @functools.cached_property
    def _places(self) -> list[int]:
        return [self.reads[field] for field in sorted(self.reads)]  # the order they have in canonical JSON

    @functools.cached_property
    def _key(self) -> Callable[[Sequence[str]], str]:
        return self._hashed({**self.common, **self.counted})

    @functools.cached_property
    def _family(self) -> Callable[[Sequence[str]], str]:
        return self._hashed(self.common)

    def _hashed(self, fields: Payload) -> Callable[[Sequence[str]], str]:
        """What fills keys into the canonical JSON of a payload and hashes it; the beginning is hashed here already."""
        marks = {field: digest_of_text(f"the key of {field}") for field in sorted(self.reads)}
        rest = _canonical({"schema": KEY_SCHEMA, "kind": self.kind, **fields, **marks}).decode()
        parts = []
        for mark in marks.values():
            before, _, rest = rest.partition(mark)
            parts.append(before)
        start, after = hashlib.sha256((parts[0] if parts else rest).encode()), [*parts[1:], rest][: len(parts)]

        def hashed(keys: Sequence[str]) -> str:
            digest = start.copy()
            for key, text in zip(keys, after, strict=True):
                digest.update((key + text).encode())
            return digest.hexdigest()

        return hashed


class Step:
    """One piece of work with a result of its own.

    ``needs`` are the steps whose results it reads; their keys are part of ``payload``, or of the payload of another of
    them, so a change upstream is a new key here. ``family`` is the key of the payload without what only says *how many*
    prompts: two members of a family agree on every prompt they share, so a larger one takes over what a smaller one
    already made.
    """

    __slots__ = ("_family", "_form", "_key", "name", "needs")

    def __init__(
        self,
        *,
        kind: str,
        name: str,
        payload: Payload | Form,
        needs: tuple[Step, ...] = (),
        family_payload: Payload | None = None,
    ) -> None:
        """Args:
        payload: this step's own, or the form that it shares with others.
        family_payload: the payload without its counts, where that is less.

        Raises:
            ValueError: the family says something that the payload does not.
        """
        if not isinstance(payload, Form):
            family = payload if family_payload is None else family_payload
            if {**payload, **family} != payload:
                raise ValueError(f"{kind} {name}: its family is no part of its payload")
            payload = Form(kind, family, counted={name: payload[name] for name in payload.keys() - family.keys()})
        self._form, self.name, self.needs = payload, name, needs
        self._key: str | None = None
        self._family: str | None = None

    @property
    def kind(self) -> str:
        return self._form.kind

    @property
    def payload(self) -> Payload:
        return self._form.payload(self.needs)

    @property
    def key(self) -> str:
        if self._key is None:
            self._key = self._form.key(self.needs)
        return self._key

    @property
    def family(self) -> str:
        if self._family is None:
            self._family = self._form.family(self.needs) if self._form.counted or self._form.reads else self.key
        return self._family

    @property
    def folder(self) -> str:
        """See :func:`folder_of`."""
        return folder_of(self.name, self.key)


def folder_of(name: str, key: str) -> str:
    """``<name>-<16 hex>``: the name is for people, and cut where it is long; the digits are what counts."""
    return f"{name.encode(errors='ignore')[:NAME_BYTES].decode(errors='ignore')}-{key[:16]}"


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
