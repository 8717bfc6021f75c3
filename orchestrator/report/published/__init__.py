"""The numbers that the paper printed, to stand beside a run's: facts, with where they are from, and nothing of ours.

Published values stand beside a study only where the study is the paper's: the same languages tuned on and evaluated in.
The base model, the judge and the instructions of a run are never the paper's, and :func:`note` says what that leaves to
compare. This room must never know how anything is drawn.

Source: Shaham et al., Multilingual Instruction Tuning With Just a Pinch of Multilinguality, arXiv 2401.01854v4.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import pandas as pd

from orchestrator.languages import MAIN12
from orchestrator.report.views import ReportContext, StudyView

SOURCE = "Shaham et al., arXiv 2401.01854v4"

CORRELATION = 0.22
"""Figure 8: Pearson's r between a training language's average score and its share of the pre-training documents."""

LANGUAGES = 11
"""Figure 8: how many languages it rests on, English left out."""

_FIGURES = {"monolingual": "figure1", "base": "figure10"}


def matrix(study: StudyView) -> pd.DataFrame | None:
    """The published scores of a study, rows tuned on, columns evaluated in and ``avg``; None where it is not the
    paper's."""
    same = set(study.languages) == set(study.evaluate_in) == set(MAIN12)
    return _read(_FIGURES[study.kind]).set_index("train_language") if same and study.kind in _FIGURES else None


def ratings() -> pd.DataFrame:
    """Figure 2, in percent: ``language,excellent,pass,fail``; 50 instructions a language, two native speakers. The
    last row is LIMA in English, as its authors report it."""
    return _read("figure2")


def agreement() -> pd.DataFrame:
    """Table 3, in percent: ``language,human_model,human_human``."""
    return _read("table3")


def note(context: ReportContext) -> str:
    """What of a run can be compared with the published values and what cannot."""
    return (
        f"Published: {SOURCE}, with another base model, judge and set of instructions than {context.base}, "
        f"{context.judge} and this corpus. What can be compared is the pattern: which languages carry over, and in "
        "which order. The scores themselves cannot: each is relative to its own run's baselines and judge."
    )


@cache
def _read(name: str) -> pd.DataFrame:
    with resources.files(__package__).joinpath(f"{name}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)
