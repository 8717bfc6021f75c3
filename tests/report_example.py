"""A made-up sweep for the tests of reports and tracking: four languages, a pinch study, a pairs study.

The numbers resemble those of a real small run; what is drawn at random is seeded.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd

from orchestrator.report.views import Gap, ReportContext, Sample, StudyView

LANGUAGES = ("en", "es", "fi", "ru")
STUDIES = [
    StudyView(label="pinch-4", kind="pinch", languages=LANGUAGES, evaluate_in=LANGUAGES),
    StudyView(label="monolingual", kind="monolingual", languages=LANGUAGES, evaluate_in=LANGUAGES),
    StudyView(
        label="pairs",
        kind="pairs",
        languages=LANGUAGES,
        evaluate_in=LANGUAGES,
        pairs=(("es", "en"), ("ru", "fi")),
    ),
]
TRUE = {
    "mono-en": (50, 28, 33, 3),
    "mono-es": (24, 50, 22, 5),
    "mono-fi": (32, 25, 50, 3),
    "mono-ru": (6, 0, 5, 50),
    "pinch-4-n40": (48, 40.5, 43, 44),
    "pinch-4-p10": (45, 41, 42, 46),
    "pinch-4-p50": (47, 44, 46, 47),
    "uniform-en+es+fi+ru": (48, 40, 47, 43),
    "uniform-en+es": (47, 46, 35, 6),
    "uniform-fi+ru": (30, 24, 48, 47),
}
_TRAINED = {f"mono-{language}": (language,) for language in LANGUAGES} | {
    "uniform-en+es": ("en", "es"),
    "uniform-fi+ru": ("fi", "ru"),
}
_LISTED = {
    "monolingual": [f"mono-{language}" for language in LANGUAGES],
    "pinch-4": ["mono-en", "pinch-4-n40", "pinch-4-p10", "pinch-4-p50", "uniform-en+es+fi+ru"],
    "pairs": ["mono-es", "mono-en", "uniform-en+es", "mono-ru", "mono-fi", "uniform-fi+ru"],
}
_LEVELS = {
    "mono-en": (0.0, None), "pinch-4-n40": (2.5, 40), "pinch-4-p10": (10.0, None), "pinch-4-p50": (50.0, None),
    "uniform-en+es+fi+ru": (100.0, None),
}  # fmt: skip


def model_key(name: str) -> str:
    """A key for a model of the example."""
    return hashlib.sha256(name.encode()).hexdigest()


def score_table(n: int = 48, seed: int = 0) -> pd.DataFrame:
    """The score table of the example sweep, complete."""
    rng = np.random.default_rng(seed)
    cells = {}
    for name, scores in TRUE.items():
        for language, score in zip(LANGUAGES, scores, strict=True):
            share = score / 100
            wins, ties, losses = rng.multinomial(n, [share * share, 2 * share * (1 - share), (1 - share) ** 2])
            cells[name, language] = (100 * (wins + ties / 2) / n, wins, ties, losses)
    rows = []
    for study, models in _LISTED.items():
        for name in models:
            percent, count = _LEVELS[name] if study == "pinch-4" else (None, None)
            trained = _TRAINED.get(name, LANGUAGES)
            for language in LANGUAGES:
                score, wins, ties, losses = cells[name, language]
                diagonal = name == f"mono-{language}"
                half = 196 * np.sqrt(0.5 * (score / 100) * (1 - score / 100) / n)
                rows.append(
                    {
                        "study": study,
                        "model": name,
                        "model_key": model_key(name),
                        "train_languages": "+".join(trained),
                        "percent": percent,
                        "count": count,
                        "seed": 0,
                        "eval_language": language,
                        "seen": study == "pinch-4" or language in trained,
                        "baseline": f"mono-{language}",
                        "judge": "reference-chrf",
                        "if_score": 50.0 if diagonal else score,
                        "ci_low": None if diagonal else max(0, score - half),
                        "ci_high": None if diagonal else min(100, score + half),
                        "wins": 0 if diagonal else wins,
                        "ties": 0 if diagonal else ties,
                        "losses": 0 if diagonal else losses,
                        "invalid": 0,
                        "n": 0 if diagonal else n,
                        "first_position_rate": None if diagonal else 0.5,
                        "in_language_share": 0.98,
                    }
                )
    return pd.DataFrame(rows)


def with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    """The same table half-way through: one model failed, one language of another is not judged yet, rows are absent."""
    table = table.copy()
    missing = (table["model"] == "mono-ru") & (table["eval_language"] != "ru")
    missing |= (table["model"] == "pinch-4-p50") & (table["eval_language"] == "fi")
    measured = [
        "if_score",
        "ci_low",
        "ci_high",
        "wins",
        "ties",
        "losses",
        "invalid",
        "n",
        "first_position_rate",
    ]
    table.loc[missing, measured] = None
    return table[~((table["model"] == "uniform-fi+ru") & (table["eval_language"] == "es"))]


def context(**changes: object) -> ReportContext:
    """The example's context; a keyword replaces a field."""
    fields: dict[str, object] = dict(  # noqa: C408
        sweep="demo",
        base="tiny",
        judge="reference-chrf",
        corpus="CLDR statements in 4 languages, 1,600 examples to tune on, 48 to evaluate",
        recipe={
            "method": "full",
            "steps": "100",
            "batch size": "32",
            "learning rate": "2e-3",
            "sampling": "0.7, top-p 0.9",
        },
        counts={
            "base": (1, 1),
            "corpus": (4, 4),
            "fine_tune": (10, 10),
            "generation_set": (40, 40),
            "comparison": (36, 36),
        },
        store="./pinch-store",
        commands=("pinch run demo", "pinch report demo --out report"),
        generated_at="2026-11-24 03:00 UTC",
        working_model=True,
        notes=("Language identification left out 112 texts of under 20 letters.",),
    )
    return ReportContext(**{**fields, **changes})  # type: ignore[arg-type]


GAPS = (
    Gap("fine_tune mono-ru", "failed", "The loss was not a number after step 31."),
    Gap("generation_set mono-ru in es", "blocked", "It needs the model mono-ru, which failed."),
)

HOSTILE = (
    '</td></script><script>document.title="owned"</script><img src=x onerror=alert(1)>\u202eevil\x00\x1b[31m\ud800'
)

SAMPLES = [
    Sample(
        study="pinch-4", language="fi", instruction_id="cldr-eval-0003", baseline="mono-fi", model="pinch-4-n40",
        instruction="Mikä on tämän maan nimi suomeksi? Maakoodi: JP", baseline_response="Maan nimi: Japani",
        model_response="Maan nimi: Japani.", choices={"ab": 1, "ba": 1}, reference="Maan nimi: Japani",
    ),
    Sample(
        study="pinch-4", language="es", instruction_id="cldr-eval-0011", baseline="mono-es", model="pinch-4-n40",
        instruction="Escribe la fecha completa: 2024-03-09", baseline_response="sábado, 9 de marzo de 2024",
        model_response="Saturday, March 9, 2024", choices={"ab": 1, "ba": 2}, reference="sábado, 9 de marzo de 2024",
    ),
    Sample(
        study="pinch-4", language="ru", instruction_id="cldr-eval-0020", baseline="mono-ru", model="pinch-4-p10",
        instruction="Какой месяц следует за этим: «август»?", baseline_response="Следующий месяц: октябрь",
        model_response="Следующий месяц: сентябрь", choices={"ab": 2, "ba": 1}, reference="Следующий месяц: сентябрь",
    ),
    Sample(
        study="custom", language="ar", instruction_id="cldr-eval-0007", baseline="mono-ar", model="pinch-12-p10",
        instruction="ما اسم هذه العملة؟ الرمز: JPY", baseline_response="اسم العملة: ين ياباني",
        model_response="اسم العملة: ين", choices={"ab": None, "ba": 2},
    ),
    Sample(
        study="custom", language="he", instruction_id="cldr-eval-0009", baseline="mono-he", model="pinch-12-p10",
        instruction="מה שם המדינה? הקוד: FI", baseline_response="שם המדינה: פינלנד", model_response=HOSTILE,
        choices={"ab": 1},
    ),
]  # fmt: skip
