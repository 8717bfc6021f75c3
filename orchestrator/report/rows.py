"""The page's tables, as text and numbers ready to show: scores, paired differences, the corpus card, the judge.

What is missing is None or an empty string here and is marked by the template; nothing is filled in. This module must
never know how a table looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.report.headline import Headline
from orchestrator.report.responses import CellKey
from orchestrator.report.views import Details, language_name
from orchestrator.scores.sentences import GROUP_WORDS

COUNTS = {"wins": "Wins", "ties": "Ties", "losses": "Losses", "invalid": "Invalid", "n": "n"}
RATES = {
    "first_position_rate": "First position",
    "order_agreement": "Orders agree",
    "in_language_share": "In language",
}
_CARD = {
    "language": "Language",
    "part": "Part",
    "source": "Source",
    "examples": "Examples",
    "flagged": "Flagged",
    "input_tokens_median": "Input",
    "input_tokens_p95": "95%",
    "input_tokens_longest": "Longest",
    "cut_inputs": "Cut",
    "target_tokens_median": "Target",
    "target_tokens_p95": "95%",
    "target_tokens_longest": "Longest",
    "cut_targets": "Cut",
}
_PARTS = {"train": "tuning", "eval": "evaluation"}


@dataclass(frozen=True)
class Table:
    """A small table: columns (name, text or number), rows of (value as shown, text or number)."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[tuple[str, str], ...], ...]


def score_columns(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """The score table's headings and how each is sorted; a picture has neither."""
    numbers = [*COUNTS.values(), *(name for rate, name in RATES.items() if rate in scores)]
    return [
        *(("Model", "text"), ("Evaluated in", "text"), ("IF", "number"), ("", ""), ("95% interval", "number")),
        *((name, "number") for name in numbers),
        *(("Tuned on", "text"), ("Seen", "text"), ("Study", "text")),
    ]


def score_rows(scores: pd.DataFrame, samples: Mapping[CellKey, int]) -> Iterator[dict[str, Any]]:
    """The score table's rows with numbers as shown and, for the little interval plot, clipped to 0-100."""
    for row in scores.to_dict("records"):
        known = pd.notna(row["if_score"])
        interval = pd.notna(row["ci_low"]) and pd.notna(row["ci_high"])
        judged = known and row["n"] > 0
        yield {
            **{name: row[name] for name in ("study", "model", "train_languages", "eval_language", "seen")},
            "numbers": [
                *(_whole(row[name]) if judged else "" for name in COUNTS),
                *(_percent(row[name]) for name in RATES if name in row),
            ],
            "score": f"{row['if_score']:.1f}" if known else "",
            "interval": f"{row['ci_low']:.1f} – {row['ci_high']:.1f}" if interval else "",
            "by_definition": known and not judged,
            "low": round(max(0.0, row["ci_low"]), 1) if interval else None,
            "high": round(min(100.0, row["ci_high"]), 1) if interval else None,
            "sample": samples.get((row["model"], row["baseline"], row["eval_language"])),
        }


def cell_facts(scores: pd.DataFrame) -> dict[CellKey, list[str]]:
    """What is said of each judged cell beside its responses: its score, and how far that can be trusted."""
    facts: dict[CellKey, list[str]] = {}
    for row in scores[scores["n"] > 0].to_dict("records"):
        said = [f"IF {row['if_score']:.1f}"] if pd.notna(row["if_score"]) else []
        if said and pd.notna(row["ci_low"]):
            said[0] += f" (95% {row['ci_low']:.1f} to {row['ci_high']:.1f})"
        said.append(f"{row['wins']:.0f} wins, {row['ties']:.0f} ties, {row['losses']:.0f} losses")
        if row["invalid"]:
            said.append(f"{row['invalid']:.0f} invalid")
        measures = {
            "both orders agree on": _percent(row.get("order_agreement")),
            "in its language:": _percent(row.get("in_language_share")),
            "outcome against length: r": _signed(row.get("length_correlation")),
        }
        said += [f"{name} {value}" for name, value in measures.items() if value]
        facts.setdefault((row["model"], row["baseline"], row["eval_language"]), said)
    return facts


def difference_rows(details: Details) -> list[dict[str, Any]]:
    """The paired differences with numbers as shown and, for the little plot, places from 0 to 100; 50 is none."""
    if details.differences is None:
        return []
    found = details.differences
    widest = max(found[["difference", "ci_low", "ci_high"]].abs().max(skipna=True).max(), 1.0) if len(found) else 1.0

    def place(value: float) -> float:
        return round(50 + 50 * value / widest, 1)

    rows = []
    for row in found.to_dict("records"):
        known = pd.notna(row["difference"])
        interval = known and pd.notna(row["ci_low"])
        rows.append(
            {
                **{name: row[name] for name in ("study", "model", "against")},
                "group": GROUP_WORDS.get(row["group"], row["group"]),
                "difference": f"{row['difference']:+.1f}" if known else None,
                "value": round(row["difference"], 3) if known else None,
                "place": place(row["difference"]) if known else None,
                "low": place(row["ci_low"]) if interval else None,
                "high": place(row["ci_high"]) if interval else None,
                "interval": f"{row['ci_low']:+.1f} – {row['ci_high']:+.1f}" if interval else "",
                "n": _whole(row["n"]) if row["n"] else "",
            }
        )
    return rows


def chosen_sentences(details: Details, headline: Headline) -> list[str]:
    """The sentences about the headline's study and its own levels: not about English, and not about every level."""
    if details.differences is None or not details.difference_sentences:
        return []
    chosen = []
    rows = details.differences.to_dict("records")
    for row, sentence in zip(rows, details.difference_sentences, strict=True):
        told = row["study"] == headline.study and row["model"] in headline.models
        mixed = {"seen", "unseen"} <= set(
            details.differences.loc[details.differences["study"] == row["study"], "group"]
        )
        groups = ("seen", "unseen") if mixed else ("non_english",)
        if told and row["group"] in groups and pd.notna(row["difference"]):
            chosen.append(sentence)
    return chosen


def corpus_table(card: Sequence[Mapping[str, Any]]) -> Table | None:
    """The corpus card; a column that no record fills is left out."""
    if not card:
        return None
    names = [name for name in _CARD if any(record.get(name) is not None for record in card)]
    kinds = {name: "text" if name in ("language", "part", "source") else "number" for name in names}

    def shown(name: str, value: Any) -> str:
        if value is None or value != value:
            return ""
        if name == "language":
            return language_name(value)
        if name == "part":
            return _PARTS.get(value, value)
        return value if kinds[name] == "text" else f"{value:,.0f}"

    return Table(
        tuple((_CARD[name], kinds[name]) for name in names),
        tuple(tuple((shown(name, record.get(name)), kinds[name]) for name in names) for record in card),
    )


def quality_table(scores: pd.DataFrame) -> Table | None:
    """How good the judge is, language by language and in all; None before anything is judged."""
    judged = scores[scores["n"] + scores["invalid"] > 0].drop_duplicates(["model_key", "baseline", "eval_language"])
    if not len(judged):
        return None
    measures = {
        "Orders agree": ("order_agreement", _percent),
        "First position": ("first_position_rate", _percent),
        "Length corr.": ("length_correlation", _signed),
        "In language": ("in_language_share", _percent),
        "IF in language": ("in_language_score", _tenth),
    }
    there = {name: measure for name, measure in measures.items() if measure[0] in judged}

    def line(name: str, part: pd.DataFrame) -> tuple[tuple[str, str], ...]:
        asked = part["n"].sum() + part["invalid"].sum()
        numbers = [f"{len(part):,}", _percent(part["invalid"].sum() / asked)]
        numbers += [show(part[column].mean()) for column, show in there.values()]
        return ((name, "text"), *((number, "number") for number in numbers))

    languages = list(dict.fromkeys(judged["eval_language"]))
    rows = [line(language_name(code), judged[judged["eval_language"] == code]) for code in languages]
    return Table(
        (("Evaluated in", "text"), *((name, "number") for name in ("Judged cells", "Invalid", *there))),
        (*rows, line("All", judged)),
    )


def _whole(value: Any) -> str:
    return f"{value:.0f}" if pd.notna(value) else ""


def _percent(value: Any) -> str:
    return f"{100 * value:.0f}%" if value is not None and pd.notna(value) else ""


def _tenth(value: Any) -> str:
    return f"{value:.1f}" if pd.notna(value) else ""


def _signed(value: Any) -> str:
    return f"{value:+.2f}" if value is not None and pd.notna(value) else ""
