"""How responses are drawn (paper appendix C), and the seed each one is drawn from."""

from __future__ import annotations

import hashlib

from trainables.spec import Spec, identity


class Sampling(Spec):
    """Nucleus sampling; ``temperature: 0`` is greedy decoding."""

    temperature: float = identity(0.7, ge=0)
    top_p: float = identity(0.9, gt=0, le=1)
    max_new_tokens: int = identity(512, ge=1)


def response_seed(seed: int, model_key: str, language: str, instruction_id: str) -> int:
    """The 31-bit seed of one response: the same wherever, whenever and beside whatever it is drawn."""
    digest = hashlib.sha256(f"{seed}\n{model_key}\n{language}\n{instruction_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
