"""One HTML page that says what a sweep found: self-contained, readable from disk with no network, also half-way.

Everything a model wrote is somebody else's text. It stands in the page as escaped text or in a block of JSON from which
nothing can break out (see :mod:`orchestrator.report.responses`), and the script puts it on the screen as text only. A
content security policy allows nothing but this page's own style sheet and script, by their hashes, and images that are
in the page.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from orchestrator.export.citing import citation
from orchestrator.languages import ENGLISH
from orchestrator.report import rows
from orchestrator.report.charts import Chart, Charts
from orchestrator.report.document import asset, policy, templates
from orchestrator.report.headline import Headline, headline
from orchestrator.report.outputs import Outputs
from orchestrator.report.responses import pack, place_samples
from orchestrator.report.views import Details, Figure, ReportContext, Sample, StudyView, clean

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
    details: Details | None = None,
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
        details: averages, differences, findings, the corpus card and so on, as far as they are known.

    Raises:
        trainables.errors.UserError: when the folder cannot be written to, or somebody's own file has the page's name.
    """
    page = render(context, table, figures, samples, studies, details)
    return Outputs(out).write(f"{context.sweep}-report.html", page.encode(errors="replace"))


def render(
    context: ReportContext,
    table: pd.DataFrame,
    figures: Sequence[Figure],
    samples: Sequence[Sample],
    studies: Sequence[StudyView] = (),
    details: Details | None = None,
) -> str:
    """The page as text."""
    scores, details = clean(table), details or Details()
    style, script = asset("page.css"), asset("page.js")
    places = place_samples(samples)
    answer = headline(scores, studies, context, details.averages)
    have = int(scores["if_score"].notna().sum())
    wanted = context.cells_total if context.cells_total is not None else len(scores)
    parts = {
        "differences": rows.difference_rows(details),
        "card": rows.corpus_table(details.card),
        "quality": rows.quality_table(scores),
    }
    return (
        templates()
        .get_template("page.html.j2")
        .render(
            context=context,
            headline=answer,
            steps=[(_STEPS.get(kind, kind), done, total) for kind, (done, total) in context.counts.items() if total],
            figures=_drawn(figures, Charts(scores, places, details.averages), studies, answer),
            cells=Markup(pack(samples, rows.cell_facts(scores))) if samples else "",
            first_cell=_first_cell(scores, places, answer),
            columns=rows.score_columns(scores),
            rows=list(rows.score_rows(scores, places)),
            choices={name: list(dict.fromkeys(scores[name])) for name in ("study", "model", "eval_language")},
            have=have,
            wanted=max(wanted, have),
            details=details,
            sentences=rows.chosen_sentences(details, answer),
            citation=_citation(context),
            contents=_contents(context, figures, samples, details, **parts),
            **parts,
            style=Markup(style),
            script=Markup(script),
            policy=policy(style, script),
        )
    )


def _drawn(
    figures: Sequence[Figure], charts: Charts, studies: Sequence[StudyView], answer: Headline
) -> list[tuple[Figure, Chart | None, str]]:
    """Each figure with the page's own drawing of it, if there is one, and its print; the headline's study first."""
    drawn = {name: chart for study in studies for name, chart in charts.of_study(study).items()}
    first = [figure for figure in figures if answer.study and figure.name.startswith(f"{answer.study}-")]
    ordered = first + [figure for figure in figures if figure not in first]
    return [(figure, drawn.get(figure.name), _data_uri(figure.png)) for figure in ordered]


def _first_cell(scores: pd.DataFrame, places: dict[tuple[str, str, str], int], answer: Headline) -> int:
    """The place of the samples to show first: of the headline's pinch, not in English."""
    told = scores[(scores["study"] == answer.study) & scores["model"].isin(answer.models)]
    told = told.sort_values("eval_language", key=lambda codes: codes == ENGLISH, kind="stable")
    keys = told[["model", "baseline", "eval_language"]].itertuples(index=False, name=None)
    return next((places[key] for key in keys if key in places), 0)


def _contents(
    context: ReportContext,
    figures: Sequence[Figure],
    samples: Sequence[Sample],
    details: Details,
    differences: object,
    card: object,
    quality: object,
) -> list[tuple[str, str]]:
    """The sections there are: (id, name)."""
    sections = [
        ("gaps", "Missing", context.gaps),
        ("figures", "Figures", figures),
        ("findings", "Findings", details.findings),
        ("differences", "Differences", differences),
        ("scores", "Scores", True),
        ("responses", "Responses", samples),
        ("corpus", "Corpus", card),
        ("judge", "Judge", quality),
        ("run", "Run", True),
        ("licences", "Licences", details.licences),
        ("again", "Again", True),
        ("cite", "Cite", True),
    ]
    return [(id_, name) for id_, name, there in sections if there]


def _citation(context: ReportContext) -> str:
    recipe = ", ".join(f"{name} {value}" for name, value in context.recipe.items())
    facts = f"Sweep {context.sweep}. Base model {context.base}. Judge {context.judge}. {context.corpus}. {recipe}."
    return citation(context.version, facts)


def _data_uri(png: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()
