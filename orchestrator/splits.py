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
        ordered = sorted(set(ids), key=lambda key: key.encode("utf-16-be"))  # RFC 8785, section 3.2.3
        self._trained = _Written([key for key in ordered if key not in dev])
        self._dev = _Written([key for key in ordered if key in dev])

    def of(self, mixture: Mixture) -> Parts:
        """The parts of one mixture, whose ids are among these."""
        (_, trained), (held_out, dev) = self._trained.of(mixture.assignment), self._dev.of(mixture.assignment)
        dev_counts = Counter(held_out)
        counts = {code: count - dev_counts[code] for code, count in mixture.counts.items()}
        return Parts(
            Part({code: count for code, count in counts.items() if count}, trained),
            Part(dict(sorted(dev_counts.items())), dev),
        )


class _Written:
    """Ids in canonical order, each as the JSON between the language before it and its own."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids
        self._between = [f'",{json.dumps(key, ensure_ascii=False)}:"' for key in ids]

    def of(self, assignment: dict[str, str]) -> tuple[list[str], str]:
        """The languages that an assignment gives to these ids, and its digest."""
        between, codes = self._between, [*map(assignment.get, self._ids)]
        given = [code for code in codes if code is not None]
        if len(given) < len(codes):
            between = [text for text, code in zip(between, codes, strict=True) if code is not None]
        pieces = [""] * (2 * len(given))
        pieces[0::2], pieces[1::2] = between, given
        text = "".join(pieces).removeprefix('",')
        return given, hashlib.sha256(f'{{{text}"}}'.encode() if given else b"{}").hexdigest()
