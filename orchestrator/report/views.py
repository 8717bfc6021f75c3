"""What a report is told: plain records, so that it can be drawn from a store, from a test, or half-way through a run.

The score table comes as a DataFrame with the columns of ``pinch scores``; a cell without a score is a row whose
``if_score`` is empty, or no row at all, and both mean *missing*: never 0, and never left out of an average so that the
average looks complete. This module must never know how a score came about or how it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from orchestrator.languages import ENGLISH, any_language
from trainables.errors import UserError

COLUMNS = (
    *("study", "model", "model_key", "train_languages", "percent", "count", "seed", "eval_language", "seen"),
    *("baseline", "judge", "if_score", "ci_low", "ci_high", "wins", "ties", "losses", "invalid", "n"),
    *("first_position_rate", "in_language_share"),
)
"""The score table's columns."""
QUALITY = ("order_agreement", "invalid_rate", "length_correlation", "in_language_score", "in_language_n")
"""What may follow them: how far each score can be trusted."""

Kind = Literal["monolingual", "pinch", "pairs", "permutations", "slavic", "base", "custom"]


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """One study of the sweep, as the report needs to know it."""

    label: str
    """As in the score table's ``study`` column: ``monolingual``, ``pinch-12``."""
    kind: Kind
    languages: tuple[str, ...]
    """The study's language set: what is tuned on, and, in a pinch study, what counts as seen."""
    evaluate_in: tuple[str, ...]
    """Evaluation languages, in the order figures show them."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Of a pairs study only."""


@dataclass(frozen=True)
class Figure:
    """A figure as it lies on disk."""

    name: str
    """``pinch-12-averages``: what its files are called, after the sweep."""
    title: str
    caption: str
    """Names the judge and the base model."""
    png: Path
    pdf: Path
    csv: Path
    alt: str
    """What it shows, for those who cannot see it."""
    width: int
    """Pixels below which its print is too small to read on a screen; a narrower screen scrolls."""
    missing: int
    """Cells drawn as missing."""


@dataclass(frozen=True)
class Gap:
    """A step that failed, or that waits for one that did."""

    step: str
    """``fine_tune mono-ru``."""
    state: Literal["failed", "blocked"]
    sentence: str
    """Why, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One instruction with the two responses a judge compared. All texts are somebody else's: untrusted."""

    study: str
    language: str
    instruction_id: str
    instruction: str
    baseline: str
    """Name of the baseline: ``mono-fi``."""
    baseline_response: str
    model: str
    model_response: str
    choices: Mapping[str, int | None]
    """Order -> choice as in the verdict table: ``ab`` shows the baseline first, ``ba`` the model; 1, 2 or None. An
    order that was not asked yet is left out."""
    reference: str | None = None
    also: tuple[str, ...] = ()
    """Further names under which studies list the same model: ``pinch-12-p0`` is ``mono-en``."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """What else a report can tell; a part that is empty is left out of the page.

    Frames are as :mod:`orchestrator.scores.summaries` makes them, records as their own modules do.
    """

    averages: pd.DataFrame | None = None
    """``study, model, group, average, ci_low, ci_high, languages, seeds``; group: all, seen, unseen, non_english."""
    differences: pd.DataFrame | None = None
    """``study, model, against, group, difference, ci_low, ci_high, n``, paired by instruction."""
    difference_sentences: Sequence[str] = ()
    """One for each row of ``differences``."""
    intervals_note: str = ""
    """What the intervals of averages and differences cover."""
    findings: Sequence[Any] = ()
    """What the paper found, and whether it held here: :class:`orchestrator.report.findings.Finding`."""
    card: Sequence[Mapping[str, Any]] = ()
    """The corpus card, a record for each language and part."""
    licences: Sequence[Any] = ()
    """:class:`orchestrator.export.licences.Licence`: what the results carry with them."""
    cost: Sequence[tuple[str, str]] = ()
    """What was spent, as (label, text)."""


@dataclass(frozen=True, kw_only=True)
class ReportContext:
    """What was run, with what, how far it is, and how to go on."""

    sweep: str
    base: str
    """Label, ``tiny`` or ``gemma3-270m``."""
    judge: str
    corpus: str
    """One phrase: ``CLDR statements, 1,600 examples to tune on, 48 to evaluate``."""
    recipe: Mapping[str, str]
    """Setting -> value, as shown."""
    counts: Mapping[str, tuple[int, int]]
    """Step kind -> (done, total)."""
    store: str
    commands: Sequence[str]
    """What to type to get this again, one command a line."""
    generated_at: str
    working_model: bool = False
    """The base is ``tiny`` or the judge is ``reference``: a working model of the question, not evidence."""
    running: bool = False
    gaps: Sequence[Gap] = ()
    notes: Sequence[str] = ()
    """Further sentences to the reader: invalid verdicts, texts left out of language identification, ..."""
    cells_total: int | None = None
    """Rows the finished score table has; default: rows of the table given."""
    samples_note: str = ""
    """By what rule the responses shown were chosen."""
    version: str = ""
    """Pinch's own."""

    @property
    def comparisons(self) -> tuple[int, int]:
        """Comparisons done and wanted."""
        return self.counts.get("comparison", (0, 0))


@dataclass(frozen=True)
class Level:
    """One level of a pinch study: how much of the data is multilingual."""

    percent: float
    count: int | None
    """Given where the level was asked for as a number of examples."""
    label: str = field(compare=False)

    @property
    def words(self) -> str:
        """``40 examples``, ``10% of the examples``."""
        return f"{self.count} examples" if self.count is not None else f"{self.percent:g}% of the examples"


def language_name(code: str) -> str:
    """``Finnish``; what is no language's code stays as it is."""
    try:
        return any_language(code).name
    except UserError:
        return code


def clean(table: pd.DataFrame) -> pd.DataFrame:
    """The score table with numbers as floats and ``seen`` as bool, whether it was just made or read from a CSV."""
    table = table.copy() if len(table.columns) else pd.DataFrame(columns=list(COLUMNS))
    for column in ("percent", "count", *COLUMNS[COLUMNS.index("if_score") :], *QUALITY):
        if column in QUALITY and column not in table:
            continue
        table[column] = pd.to_numeric(table[column], errors="coerce").astype(float)
    table["seen"] = table["seen"].astype(str).str.lower() == "true"
    return table


def study_rows(table: pd.DataFrame, study: StudyView) -> pd.DataFrame:
    """A study's rows, in the table's order."""
    return table[table["study"] == study.label]


def levels(rows: pd.DataFrame) -> list[Level]:
    """The levels of a pinch study's rows, smallest first. ``count`` is empty for levels given in percent."""
    pairs = rows.loc[rows["percent"].notna(), ["percent", "count"]].drop_duplicates()
    found = [
        Level(percent, None, f"{percent:g}%") if pd.isna(count) else Level(percent, int(count), f"{int(count)} ex.")
        for percent, count in pairs.itertuples(index=False)
    ]
    return sorted(found, key=lambda level: (level.percent, level.count is None))


def cell(rows: pd.DataFrame, language: str, column: str = "if_score") -> float:
    """The value in one evaluation language, a mean over train seeds; NaN when any of it is missing.

    The interval ends of several seeds are averaged too: the width of one seed's interval, around their mean.
    """
    values = rows.loc[rows["eval_language"] == language, column]
    return float(values.mean(skipna=False)) if len(values) else float("nan")


def average(rows: pd.DataFrame, languages: Sequence[str], column: str = "if_score") -> float:
    """The mean over languages, NaN when any cell is missing or there is no language."""
    values = [cell(rows, language, column) for language in languages]
    return sum(values) / len(values) if values else float("nan")


def non_english(study: StudyView) -> tuple[str, ...]:
    """The evaluation languages other than English."""
    return tuple(language for language in study.evaluate_in if language != ENGLISH)
