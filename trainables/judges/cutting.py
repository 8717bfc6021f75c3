"""What is left out of a prompt that is too long, so that both orders of a comparison are cut alike.

The instruction keeps half of the room at most, then the longer answer is cut first, down to the length of the other.
What a length is counted in is the judge's affair: tokens where its tokenizer is known, bytes where it is not.
"""

from __future__ import annotations

from collections.abc import Callable

CUT_MARK = " […]"

Texts = dict[str, str]
"""``instruction``, ``first`` and ``second``."""


class NoRoom(Exception):
    """The prompt is too long even without its texts."""


def fitted(
    texts: Texts,
    limit: int,
    unit: str,
    measure: Callable[[Texts], int],
    length: Callable[[str], int],
    beginning: Callable[[str, int], str],
) -> tuple[Texts, str]:
    """The texts as far as they fit, and the line that says what was cut (empty where nothing was).

    Args:
        limit: how long the whole prompt may be, in ``unit``.
        measure: the length of the prompt with these texts in it.
        length: the length of one text.
        beginning: the first so many units of a text.

    Raises:
        NoRoom: when not even empty texts fit.
    """
    total = measure(texts)
    full = {name: length(text) for name, text in texts.items()}
    room = limit - (total - sum(full.values()))
    cut, caps = texts, full
    while total > limit:
        if room <= 0:
            raise NoRoom
        caps = _caps(full, room)
        cut = {
            name: text if caps[name] >= full[name] else beginning(text, caps[name]) + CUT_MARK
            for name, text in texts.items()
        }
        total = measure(cut)
        room -= max(1, total - limit)
    said = [f"{name} from {full[name]} to {caps[name]}" for name in texts if caps[name] < full[name]]
    return cut, f"\n(cut, in {unit}: {', '.join(said)})" if said else ""


def _caps(lengths: dict[str, int], room: int) -> dict[str, int]:
    """How much of each text fits in ``room``: what the answers leave, at least half, is the instruction's."""
    answers = lengths["first"] + lengths["second"]
    instruction = min(lengths["instruction"], max(room // 2, room - answers))
    left = room - instruction
    short = min(lengths["first"], lengths["second"])
    cap = left // 2 if short > left // 2 else left - short
    return {"instruction": instruction, "first": min(lengths["first"], cap), "second": min(lengths["second"], cap)}
