"""The three public data sets of the paper, from rows in the forms they are given away in to pairs.

Nothing is mended here and nothing silently lost: a row is taken, left out for a reason that is counted, or refused
with its number. This module must never know where the rows come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from orchestrator.corpus.rows import Row, kind_of

JOINED = "\n\n"
"""Between an instruction and its input, as AlpacaEval prints AlpacaFarm's prompts."""


class Pair(NamedTuple):
    """One English example without an id."""

    instruction: str
    response: str | None


class Taken(NamedTuple):
    """What a data set comes to."""

    pairs: list[Pair]
    left_out: Mapping[str, int]
    """Why rows (of OASST1: messages) were left out -> how many."""


def lima(rows: Iterable[Row]) -> Taken:
    """LIMA's single-turn pairs, in the file's order.

    A row is GAIR's ``conversations`` (a list of turns) or LLaMA-Factory's ``instruction, input, output, history``. The
    29 or 30 conversations of several turns are left out, as in the paper.

    Raises:
        UserError: a row in neither form, or without an instruction or an answer.
    """
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        if "conversations" in row.fields:
            turns = row.fields["conversations"]
            if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
                raise row.wrong(f"has {kind_of(turns)} as conversations; give a list of texts, one for each turn.")
            if len(turns) < 2:
                raise row.wrong("has a conversation without an answer; give LIMA's train.jsonl, not its test prompts.")
            several = len(turns) > 2
            row = row._replace(fields={"instruction": turns[0], "output": turns[1]})
        else:
            several = bool(row.fields.get("history"))
        if several:
            left_out["more than one turn"] += 1
        else:
            pairs.append(Pair(_instruction(row), row.text("output")))
    return Taken(pairs, left_out)


def alpacafarm(rows: Iterable[Row]) -> Taken:
    """AlpacaFarm's evaluation prompts, in the file's order, without those whose ``dataset`` is ``oasst``.

    OASST1 is trained on, so its prompts would not be unseen (paper section 2). The file's ``output`` is what one model
    once answered: no reference, so no pair has a response.

    Raises:
        UserError: a row without an instruction, or that does not say which data set it is from.
    """
    pairs: list[Pair] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        if row.text("dataset", ": OASST1's prompts are left out by it") == "oasst":
            left_out["from OASST1"] += 1
        else:
            pairs.append(Pair(_instruction(row), None))
    return Taken(pairs, left_out)


def oasst1(rows: Iterable[Row]) -> Taken:
    """Of each English conversation tree the first prompt with its best-ranked reply, by the prompt's message id.

    Rows are messages as OpenAssistant gives them away. Those that are deleted, that no review let pass, that are not in
    English or blank are left out; so is a prompt that has no reply then. The best rank is the lowest, a reply without a
    rank comes after those with one, and of equals the first by message id is taken. Truth values and ranks may be
    given as text (``"True"``), as files made by other tools have them.

    Raises:
        UserError: a message id that comes twice, or a row that is not such a message.
    """
    seen: set[str] = set()
    prompts: dict[str, str] = {}
    replies: dict[str, list[tuple[float, str, str]]] = {}
    left_out: Counter[str] = Counter()
    for row in rows:
        key, role = row.text("message_id"), row.text("role")
        if key in seen:
            raise row.wrong(f"is a second message {key!r}; keep one of them.")
        seen.add(key)
        if role not in ("prompter", "assistant"):
            raise row.wrong(f"has {role!r} as role; a message is by a prompter or an assistant.")
        parent = _given(row, "parent_id")
        if row.text("lang") != "en":
            left_out["not in English"] += 1
        elif _truth(row, "deleted"):
            left_out["deleted"] += 1
        elif not _truth(row, "review_result"):
            left_out["not let pass by a review"] += 1
        elif not str(row.fields.get("text") or "").strip():
            left_out["blank"] += 1
        elif parent is None and role == "prompter":
            prompts[key] = row.text("text")
        elif parent is not None and role == "assistant":
            replies.setdefault(str(parent), []).append((_rank(row), key, row.text("text")))
    pairs = [Pair(text, min(replies[key])[2]) for key, text in sorted(prompts.items()) if key in replies]
    left_out["a first prompt without a reply"] = len(prompts) - len(pairs)
    left_out["a lower-ranked reply"] = sum(len(replies[key]) for key in prompts if key in replies) - len(pairs)
    left_out["a later turn"] = len(seen) - 2 * len(pairs) - left_out.total()
    return Taken(pairs, +left_out)


def _instruction(row: Row) -> str:
    more = row.fields.get("input")
    text = row.text("instruction")
    return text + JOINED + row.text("input") if isinstance(more, str) and more.strip() else text


_NOTHING = ("", "none", "null", "nan")


def _given(row: Row, column: str) -> Any:
    """A value, or None where the row has none: files made by other tools have ``"None"`` for it."""
    value = row.fields.get(column)
    return None if isinstance(value, str) and value.strip().lower() in _NOTHING else value


def _truth(row: Row, column: str) -> bool:
    value = _given(row, column)
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if value is None or isinstance(value, bool):
        return bool(value)
    raise row.wrong(f"has {value!r} as {column}; give true or false.")


def _rank(row: Row) -> float:
    value = _given(row, "rank")
    if value is None or value != value:  # a number that is none, as tables have it
        return float("inf")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise row.wrong(f"has {value!r} as rank; give a number, or none.") from None
