"""The specs everything is described by, and the one rule about their fields.

Every field of every spec is either *identity* (it determines a result, so it is part of the key under which
that result is stored) or *runtime* (how the work is done: placement, memory, addresses, retries). A field is
declared with :func:`identity` or :func:`runtime`; a spec with an undeclared field cannot be defined.

This module must never know what is keyed or where results are stored; it only says which fields count.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticUndefined

from trainables.addresses import is_with_password
from trainables.errors import shown

ROLE = "role"
NAME = 100
"""Characters of a name that somebody gives to something; names become parts of files' names."""
LARGEST = 2**53 - 1
"""The largest whole number that canonical JSON, of which keys are made, can say."""


def identity(default: Any = PydanticUndefined, **constraints: Any) -> Any:
    """A field that determines the result; changing it changes the key."""
    return Field(default, json_schema_extra={ROLE: "identity"}, **constraints)


def runtime(default: Any = PydanticUndefined, **constraints: Any) -> Any:
    """A field that says how the work is done; changing it never changes a key."""
    return Field(default, json_schema_extra={ROLE: "runtime"}, **constraints)


class Spec(BaseModel):
    """A frozen, keyword-only description in which every field has a declared role.

    Raises:
        TypeError: when a subclass defines a field without :func:`identity` or :func:`runtime`.
        pydantic.ValidationError: on construction, for unknown or malformed values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if not (isinstance(extra, dict) and extra.get(ROLE) in ("identity", "runtime")):
                raise TypeError(f"{cls.__name__}.{name} is neither identity() nor runtime()")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_meant(cls, data: Any) -> Any:
        for key, value in data.items() if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), list(cls.model_fields), n=1, cutoff=0.5)
                cure = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(cls.model_fields)}."
                raise ValueError(f"unknown key {shown(key)}; {cure}")
            kind = cls.model_fields[key].annotation
            for item in _items(value, kind):
                if isinstance(item, bool) and not _takes(bool, kind):
                    raise cls._wrong(key, value, f"found {str(item).lower()}, which says nothing here; give a value.")
                if isinstance(item, str) and is_with_password(item):
                    raise cls._wrong(key, value, "is an address with a user or password; secrets never stand here.")
        return data

    @model_validator(mode="after")
    def _refuse_what_json_cannot_say(self) -> Self:
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            for item in _items(value, field.annotation):
                if isinstance(item, int) and abs(item) > LARGEST:
                    raise self._wrong(key, value, f"found {shown(item)}; a whole number goes up to {LARGEST}.")
        return self

    @classmethod
    def _wrong(cls, key: str, value: Any, problem: str) -> ValidationError:
        """What is wrong with the value of a key."""
        error = PydanticCustomError("value_error", "{problem}", {"problem": problem})
        return ValidationError.from_exception_data(
            cls.__name__, [InitErrorDetails(type=error, loc=(key,), input=value)]
        )

    def identity(self) -> dict[str, Any]:
        """The identity fields as plain JSON values, nested specs included, runtime fields left out."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra[ROLE] == "identity"  # type: ignore[index]
        }


def _items(value: Any, annotation: Any) -> Iterable[Any]:
    """The parts of a list, or of a field that is keys and values; else the value itself."""
    if isinstance(value, list | tuple):
        return value
    return value.values() if isinstance(value, dict) and get_origin(annotation) is dict else (value,)


def _takes(kind: type, annotation: Any) -> bool:
    """Whether a field may hold a kind of value."""
    return annotation is kind or any(_takes(kind, part) for part in get_args(annotation))


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.identity()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
