"""The two parts of a mixture that keys are made of: what is tuned on, and the dev examples that choose a checkpoint.

A sweep can have ten thousand mixtures of the same ids, so the ids are put into canonical order, and written as JSON,
once. The digests are :func:`orchestrator.identity.key_of` the parts all the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from orchestrator.mixtures import Mixture


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of a mixture's examples."""

    counts: dict[str, int]
    """Number of examples by language, in sorted order of the codes; no language with none."""
    digest: str
    """Of the assignment, id -> language."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclasses.dataclass(frozen=True)
class Parts:
    """A mixture in two."""

    trained: Part
    dev: Part


class Split:
    """How mixtures of some ids fall into their two parts."""

    def __init__(self, ids: Iterable[str], dev: Collection[str]) -> None:
        written = sorted(set(ids), key=lambda key: key.encode("utf-16-be"))  # RFC 8785, section 3.2.3
        heads = [(key, json.dumps(key, ensure_ascii=False) + ":") for key in written]
        self._trained = [(key, head) for key, head in heads if key not in dev]
        self._dev = [(key, head) for key, head in heads if key in dev]

    def of(self, mixture: Mixture) -> Parts:
        """The parts of one mixture, whose ids are among these."""
        return Parts(_part(self._trained, mixture.assignment), _part(self._dev, mixture.assignment))


def _part(heads: list[tuple[str, str]], assignment: dict[str, str]) -> Part:
    found: list[Any] = [(head, assignment[key]) for key, head in heads if key in assignment]
    text = ",".join([f'{head}"{code}"' for head, code in found])
    counts = Counter([code for _, code in found])
    return Part(dict(sorted(counts.items())), hashlib.sha256(f"{{{text}}}".encode()).hexdigest())
