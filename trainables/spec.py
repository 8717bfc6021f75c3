"""The specs everything is described by, and the one rule about their fields.

Every field of every spec is either *identity* (it determines a result, so it is part of the key under which
that result is stored) or *runtime* (how the work is done: placement, memory, addresses, retries). A field is
declared with :func:`identity` or :func:`runtime`; a spec with an undeclared field cannot be defined.

This module must never know what is keyed or where results are stored; it only says which fields count.
"""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticUndefined

ROLE = "role"


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

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra
            if not (isinstance(extra, dict) and extra.get(ROLE) in ("identity", "runtime")):
                raise TypeError(f"{cls.__name__}.{name} is neither identity() nor runtime()")

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), list(cls.model_fields), n=1, cutoff=0.5)
                    cure = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(cls.model_fields)}."
                    raise ValueError(f"unknown key {key!r}; {cure}")
        return data

    def identity(self) -> dict[str, Any]:
        """The identity fields as plain JSON values, nested specs included, runtime fields left out."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra[ROLE] == "identity"  # type: ignore[index]
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.identity()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
