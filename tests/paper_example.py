"""The paper's whole grid with made-up scores: 769 rows and the 144 of the base study, averages and differences.

The monolingual and base studies are near the published values; the rest follows the shape the paper reports. Seeded.
"""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from orchestrator.grids import Grid, expand
from orchestrator.languages import MAIN12, SIX, SLAVIC
from orchestrator.report import published
from orchestrator.report.cells import mean
from orchestrator.report.views import COLUMNS, Kind, StudyView
from orchestrator.scores.scoring import group_languages
from orchestrator.studies import (
    BaseStudy,
    MonolingualStudy,
    PairsStudy,
    PermutationsStudy,
    PinchStudy,
    SlavicStudy,
)

ORDERS = (
    ("fi", "en", "ru", "it", "sw", "ar"),
    ("sw", "it", "ar", "en", "fi", "ru"),
    ("it", "fi", "en", "ar", "ru", "sw"),
)
UNSEEN = ("cs", "et", "he", "hi", "es", "zh")
PAIRS = (("es", "en"), ("zh", "ru"), ("ar", "et"), ("he", "cs"), ("fi", "it"), ("hi", "sw"))
_STUDIES: tuple[tuple[str, Kind, tuple[str, ...], tuple[str, ...]], ...] = (
    ("monolingual", "monolingual", MAIN12, MAIN12),
    ("pinch-12", "pinch", MAIN12, MAIN12),
    ("pinch-6", "pinch", SIX, MAIN12),
    ("permutations", "permutations", SIX, UNSEEN),
    ("pairs", "pairs", MAIN12, MAIN12),
    ("slavic", "slavic", SLAVIC, SLAVIC),
    ("base", "base", MAIN12, MAIN12),
)
STUDIES = [
    StudyView(label=label, kind=kind, languages=languages, evaluate_in=evaluated, pairs=PAIRS * (kind == "pairs"))
    for label, kind, languages, evaluated in _STUDIES
]
STUDY: dict[Kind, StudyView] = {study.kind: study for study in STUDIES if study.label != "pinch-6"}
SHARES = {"en": 78.0, "es": 2.1, "zh": 2.0, "ru": 1.9, "it": 1.2, "ar": 0.6, "cs": 0.6, "fi": 0.45, "he": 0.35}
SHARES |= {"et": 0.2, "hi": 0.18, "sw": 0.08}


def grid() -> Grid:
    """What the paper's studies list."""
    studies = (
        MonolingualStudy(languages=MAIN12),
        PinchStudy(languages=MAIN12),
        PinchStudy(languages=SIX, evaluate_in=MAIN12),
        PermutationsStudy(orders=ORDERS, evaluate_in=UNSEEN),
        PairsStudy(pairs=PAIRS),
        SlavicStudy(),
        BaseStudy(languages=MAIN12),
    )
    return expand(studies, train_count=4640, dev_count=250)


def score_table(seed: int = 0, n: int = 617) -> pd.DataFrame:
    """The score table, complete."""
    rng = np.random.default_rng(seed)
    figure1, figure10 = (published.matrix(STUDY[kind]) for kind in ("monolingual", "base"))
    assert figure1 is not None and figure10 is not None
    known: dict[tuple[str, str, bool], float] = {}
    rows = []
    for row in grid().rows:
        listed, language = row.listed, row.language
        trained, against_base = listed.rule.languages, listed.against == "base"
        place = (str(listed.rule.counts), language, against_base)
        if place not in known:
            table = figure10 if against_base else figure1
            alone = [
                float(table[language][code]) if {code, language} <= set(MAIN12) else 40 + rng.normal(0, 4)
                for code in trained
            ]
            spread = 4.6 * (1 - 2.0 ** (1 - min(len(trained), 4))) if language != "en" else -2.0
            best = max(alone) if "en" in trained else np.mean(alone)
            known[place] = float(np.clip(best + spread * (len(trained) > 1) + rng.normal(0, 1.2), 1, 99))
        score = 50.0 if row.diagonal else known[place]
        share = score / 100
        half = 196 * np.sqrt(0.55 * share * (1 - share) / n)
        judged = not row.diagonal
        rows.append(
            {
                "study": listed.study,
                "model": listed.name,
                "model_key": "0" * 64,
                "train_languages": "+".join(trained),
                "percent": listed.percent,
                "count": listed.count,
                "seed": 0,
                "eval_language": language,
                "seen": row.seen,
                "baseline": "base" if row.baseline is None else f"mono-{language}",
                "judge": "a-judge",
                "if_score": score,
                "ci_low": score - half if judged else None,
                "ci_high": score + half if judged else None,
                "wins": round(n * share * share) if judged else 0,
                "ties": round(2 * n * share * (1 - share)) if judged else 0,
                "losses": round(n * (1 - share) ** 2) if judged else 0,
                "invalid": 0,
                "n": n if judged else 0,
                "first_position_rate": 0.52 if judged else None,
                "in_language_share": 1.0 if language in trained else round(float(rng.uniform(0.93, 1)), 3),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def averages(table: pd.DataFrame, half: float = 1.4) -> pd.DataFrame:
    """Averages as a sweep has them, every interval ``half`` points to both sides."""
    rows = []
    for (study, model), part in table.groupby(["study", "model"], sort=False):
        scores = dict(zip(part["eval_language"], part["if_score"], strict=True))
        seen = set(part.loc[part["seen"].astype(bool), "eval_language"])
        for group, codes in group_languages(scores, seen).items():
            value = mean(scores[code] for code in codes)
            if codes:
                rows.append((study, model, group, value, value - half, value + half, len(codes), 1))
    columns = ["study", "model", "group", "average", "ci_low", "ci_high", "languages", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def differences(found: pd.DataFrame, half: float = 0.8) -> pd.DataFrame:
    """Every level of the pinch studies less English only and less the uniform mixture."""
    rows = []
    for (study, group), part in found[found["study"].str.startswith("pinch")].groupby(["study", "group"], sort=False):
        values = dict(zip(part["model"], part["average"], strict=True))
        for model, against in itertools.product(values, (f"{study}-p0", f"{study}-p100")):
            if model != against:
                gap = values[model] - values[against]
                rows.append((study, model, against, group, gap, gap - half, gap + half, 617))
    return pd.DataFrame(rows, columns=["study", "model", "against", "group", "difference", "ci_low", "ci_high", "n"])
