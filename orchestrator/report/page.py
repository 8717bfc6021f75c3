"""One HTML page that says what a sweep found: self-contained, readable from disk with no network, also half-way.

Everything a model wrote is somebody else's text. It is escaped by the template (autoescape is on and nothing untrusted
is ever marked safe), control and override characters are made visible, and a content security policy allows nothing but
this page's own style sheet and script, by their hashes, and images that are in the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from orchestrator.languages import LANGUAGES
from orchestrator.report.headline import headline
from orchestrator.report.outputs import Outputs
from orchestrator.report.views import Figure, ReportContext, Sample, StudyView, clean, language_name

_RIGHT_TO_LEFT = ("Arabic", "Hebrew")  # scripts
_OPEN_UP_TO = 120  # rows of the score table that are shown without being asked for

_STEPS = {
    "base": "Base model",
    "corpus": "Corpora",
    "translation": "Translations",
    "fine_tune": "Fine-tunes",
    "selection": "Selections",
    "generation_set": "Generation sets",
    "comparison": "Comparisons",
}


def write_page(
    context: ReportContext,
    table: pd.DataFrame,
    figures: Sequence[Figure],
    samples: Sequence[Sample],
    out: Path,
    studies: Sequence[StudyView] = (),
) -> Path:
    """Write ``<sweep>-report.html`` into a folder and return its path.

    Args:
        context: what was run and how far it is.
        table: the score table, complete or not.
        figures: from :func:`orchestrator.report.figures.draw_figures`; their PNGs go into the page, their PDFs and
            CSVs are linked by name, so they should lie in ``out``.
        samples: responses to show side by side.
        out: made if it is not there; nothing but an earlier page is replaced.
        studies: as drawn; the headline answers from the first pinch study among them.

    Raises:
        trainables.errors.UserError: when the folder cannot be written to, or somebody's own file has the page's name.
    """
    return Outputs(out).write(f"{context.sweep}-report.html", render(context, table, figures, samples, studies))


def render(
    context: ReportContext,
    table: pd.DataFrame,
    figures: Sequence[Figure],
    samples: Sequence[Sample],
    studies: Sequence[StudyView] = (),
) -> str:
    """The page as text."""
    scores = clean(table)
    style, script = _asset("page.css"), _asset("page.js")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"language": language_name, "visible": visible, "direction": direction}
    template = environment.from_string(_asset("page.html.j2"))
    have = int(scores["if_score"].notna().sum())
    wanted = context.cells_total if context.cells_total is not None else len(scores)
    return template.render(
        context=context,
        headline=headline(scores, studies, context),
        steps=[(_STEPS.get(kind, kind), done, total) for kind, (done, total) in context.counts.items() if total],
        figures=[(figure, _data_uri(figure.png)) for figure in figures],
        groups=_by_language(samples),
        rows=list(_table_rows(scores)),
        open_table=len(scores) <= _OPEN_UP_TO,
        have=have,
        wanted=max(wanted, have),
        style=Markup(style),
        script=Markup(script),
        policy=(
            f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
    )


def visible(text: str) -> str:
    """A text whose control characters, surrogates and direction overrides are shown instead of obeyed."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", _shown, text)


def _shown(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the control pictures
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"⟨U+{code:04X}⟩"


def direction(code: str) -> str:
    """``rtl`` for the languages whose script is written from right to left, else ``ltr``."""
    return "rtl" if code in LANGUAGES and LANGUAGES[code].script in _RIGHT_TO_LEFT else "ltr"


@dataclass(frozen=True)
class _Shown:
    """A sample with its verdicts in words."""

    sample: Sample
    orders: tuple[str, ...]
    outcome: str
    tone: str


def _by_language(samples: Iterable[Sample]) -> dict[str, list[_Shown]]:
    groups: dict[str, list[_Shown]] = {}
    for sample in samples:
        groups.setdefault(sample.language, []).append(_judged(sample))
    return groups


def _judged(sample: Sample) -> _Shown:
    preferred = {order: _preferred(order, sample.choices) for order in ("ab", "ba")}
    words = {
        "baseline": "preferred the baseline",
        "model": "preferred the model",
        "invalid": "gave no answer that can be read",
        "missing": "was not asked yet",
    }
    orders = (
        f"Baseline shown first: the judge {words[preferred['ab']]}.",
        f"Model shown first: the judge {words[preferred['ba']]}.",
    )
    both = set(preferred.values())
    if "missing" in both:
        outcome, tone = "not judged yet", "open"
    elif "invalid" in both:
        outcome, tone = "invalid", "open"
    elif len(both) == 2:
        outcome, tone = "tie", "tie"
    else:
        outcome, tone = ("win", "win") if both == {"model"} else ("loss", "loss")
    return _Shown(sample, orders, outcome, tone)


def _preferred(order: str, choices: Mapping[str, int | None]) -> str:
    if order not in choices:
        return "missing"
    choice = choices[order]
    if choice is None:
        return "invalid"
    return "baseline" if (choice == 1) == (order == "ab") else "model"


def _table_rows(scores: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """The score table's rows with numbers as shown and, for the little interval plot, clipped to 0-100."""
    for row in scores.to_dict("records"):
        known = pd.notna(row["if_score"])
        interval = pd.notna(row["ci_low"]) and pd.notna(row["ci_high"])
        judged = known and row["n"] > 0
        numbers = {name: f"{row[name]:.0f}" if judged and pd.notna(row[name]) else "" for name in _COUNTS}
        rates = {name: f"{100 * row[name]:.0f}%" if pd.notna(row[name]) else "" for name in _RATES}
        yield {
            **{name: row[name] for name in ("study", "model", "train_languages", "eval_language", "seen")},
            **numbers,
            **rates,
            "score": f"{row['if_score']:.1f}" if known else "",
            "interval": f"{row['ci_low']:.1f} – {row['ci_high']:.1f}" if interval else "",
            "by_definition": known and not judged,
            "low": round(max(0.0, row["ci_low"]), 1) if interval else None,
            "high": round(min(100.0, row["ci_high"]), 1) if interval else None,
        }


_COUNTS = ("wins", "ties", "losses", "invalid", "n")
_RATES = ("first_position_rate", "in_language_share")


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data_uri(png: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
