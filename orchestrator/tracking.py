"""What MLflow is told about a sweep, kept the same however often the sweep is interrupted.

The rest of the house says what *should* be on record (:meth:`Tracker.sync_sweep`, :meth:`Tracker.sync_model`), as often
as it likes; a background thread has :mod:`orchestrator.mlflow_runs` send what is not there yet. What an unreachable
server missed is simply still a difference at the next try, or in the next session.

One parent run for the sweep, one child for each model and judge. MLflow is slow to import and may be down: it is
imported in the thread only, and nothing here ever raises into the work it reports on. This module must never know how
a score is computed or a page is drawn.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.languages import ENGLISH
from orchestrator.mlflow_runs import Point, Runs, Status, WantedRun
from orchestrator.mlflow_ui import default_uri
from trainables.addresses import without_password

__all__ = ["ModelRecord", "Status", "SweepRecord", "Tracker", "score_metrics", "tracking_uri"]

logger = logging.getLogger(__name__)

SAMPLES = "samples.json"
"""A model's responses side by side with its baselines', a table in the form of MLflow's ``log_table``."""
CARD = "corpus-card.json"
"""What a model was tuned on, or all that a sweep tunes on and asks; a table as well."""

_VIEW = "view"
"""In the queue: the experiment's view of its runs, which is no run."""
_LONGEST_WAIT = 60.0
"""Seconds between two tries at an MLflow that does not answer, at most."""


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """One model of a sweep, as its run describes it."""

    key: str
    name: str
    """``pinch-12-p10``: the run's name."""
    mixture: Mapping[str, int]
    """Language -> number of training examples."""
    studies: Sequence[str]
    """Labels of the studies that list it, in the sweep's order."""
    base: str
    judge: str
    """The judge's label; another judge's scores of the same model are another run."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    percent: float | None = None
    count: int | None = None
    seed: int = 0
    state: Status = "RUNNING"
    """FINISHED once every score the sweep wants of it is there."""
    files: Sequence[Path] = ()
    """Files to attach; those called :data:`SAMPLES` and :data:`CARD` are tables, held against other runs' by MLflow."""


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """The sweep itself, as its parent run describes it."""

    base: str
    judge: str
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Step kind -> (done, total); logged as ``<kind>.done`` and ``<kind>.total``."""
    description: str = ""
    """A few lines of Markdown, shown on the run's page."""
    files: Sequence[Path] = ()
    """Files to attach, the report page above all; sent again when their content changes."""


class Tracker:
    """Writes one sweep to one MLflow experiment. Thread-safe; every method but :meth:`close` returns at once.

    Args:
        store: the store's folder (a local one; for a remote store, a local folder to keep the ledger in).
        experiment: the sweep's name.
        uri: where MLflow is; default :func:`tracking_uri`.
        retry_after: seconds before the first retry after a failure; doubles up to a minute.
    """

    def __init__(self, store: Path, experiment: str, *, uri: str | None = None, retry_after: float = 5.0) -> None:
        self.uri = uri or tracking_uri(store)
        place = "store" if self.uri == default_uri(store) else without_password(self.uri)
        self._runs = Runs(Path(store), experiment, self.uri, place)
        self._retry_after = retry_after
        self._changed = threading.Condition()
        self._parent = WantedRun(slot="", name=experiment, marks={"pinch.kind": "sweep"}, status="RUNNING")
        self._wanted: dict[str, WantedRun] = {}
        self._languages: set[str] = set()  # that scores are in
        self._queue: dict[str, None] = {}  # slots with something to say, in order
        self._closing = False
        self._warned = False
        self._thread: threading.Thread | None = None

    def sync_sweep(self, sweep: SweepRecord) -> None:
        """Have the parent run say this."""
        metrics: dict[str, float] = {}
        for kind, (done, total) in sweep.counts.items():
            metrics |= {f"{kind}.done": float(done), f"{kind}.total": float(total)}
        tags = {"pinch.base": sweep.base, "pinch.judge": sweep.judge}
        if sweep.description:
            tags["mlflow.note.content"] = sweep.description
        tags |= _tables(sweep.files)
        with self._changed:
            self._parent = replace(self._parent, metrics=metrics, tags=tags, files=tuple(sweep.files))
            self._want(self._parent)

    def sync_model(
        self,
        model: ModelRecord,
        scores: pd.DataFrame | None = None,
        curve: pd.DataFrame | None = None,
        dev_rouge_l: Mapping[int, float] | None = None,
    ) -> None:
        """Have the model's run say this; what it says already is not sent again.

        Args:
            model: who it is.
            scores: this model's rows of the score table; what is not available is left out.
            curve: columns ``step``, ``loss`` and, if known, ``seconds`` since the fine-tune began.
            dev_rouge_l: checkpoint step -> dev ROUGE-L.
        """
        points: dict[str, list[Point]] = {}
        if curve is not None and len(curve):
            rows = curve.sort_values("step")
            seconds = rows["seconds"] if "seconds" in rows else rows["step"]
            points["loss"] = [
                (int(step), float(loss), float(at))
                for step, loss, at in zip(rows["step"], rows["loss"], seconds, strict=True)
            ]
        if dev_rouge_l:
            points["dev_rouge_l"] = [
                (int(step), float(value), float(step)) for step, value in sorted(dev_rouge_l.items())
            ]
        wanted = WantedRun(
            slot=f"{model.key}@{model.judge}",
            name=model.name,
            marks={"pinch.kind": "model", "pinch.model_key": model.key, "pinch.judge": model.judge},
            status=model.state,
            metrics={} if scores is None else score_metrics(scores, model.studies),
            points=points,
            params=_params(model),
            tags={"pinch.studies": ", ".join(model.studies), **_tables(model.files)},
            files=tuple(model.files),
        )
        languages = {name.removeprefix("if_score.") for name in wanted.metrics if name.startswith("if_score.")}
        with self._changed:
            self._want(wanted)
            if not languages <= self._languages:
                self._languages |= languages
                self._queue.setdefault(_VIEW)

    def close(self, status: Status = "FINISHED", timeout: float = 30.0) -> bool:
        """End the parent run with a status, and wait for what is not sent yet, ``timeout`` seconds at most.

        Runs of models that are still RUNNING end with the same status. Returns whether everything arrived; what did
        not is sent by the next session that says it.
        """
        with self._changed:
            if self._thread is not None and not self._closing:
                for slot, wanted in self._wanted.items():
                    if wanted.status == "RUNNING" and slot != self._parent.slot:
                        self._wanted[slot] = replace(wanted, status=status)
                        self._queue.setdefault(slot)
                self._parent = self._wanted[self._parent.slot] = replace(self._parent, status=status)
                self._queue.pop(self._parent.slot, None)
                self._queue[self._parent.slot] = None  # last: writing a child sets its parent RUNNING
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)
        with self._changed:
            missing = len(self._queue.keys() - {_VIEW})
        if missing:
            logger.warning(
                "MLflow at %s did not take everything: %d runs are behind. The next `pinch run` catches up.",
                without_password(self.uri),
                missing,
            )
        return not self._queue

    def _want(self, wanted: WantedRun) -> None:
        if self._closing:
            raise RuntimeError("this tracker is closed")
        self._wanted[wanted.slot] = wanted
        self._queue.setdefault(wanted.slot)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pinch-tracking", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        delay = 0.0
        while True:
            with self._changed:
                if delay:
                    self._changed.wait_for(lambda: self._closing, timeout=delay)
                self._changed.wait_for(lambda: bool(self._queue) or self._closing)
                closing = self._closing
                batch = list(self._queue)
            failed = False
            for slot in batch:
                with self._changed:
                    wanted, parent, languages = self._wanted.get(slot), self._parent, sorted(self._languages)
                try:
                    if wanted is None:
                        self._runs.show(languages)
                    else:
                        self._runs.write(wanted, parent)
                except Exception as problem:  # noqa: BLE001 - whatever MLflow, a database or the network raises
                    failed = True
                    self._warn(problem)
                    with self._changed:
                        del self._queue[slot]
                        self._queue[slot] = None  # to the back: one bad run must not hold up the others
                    if not closing:
                        break
                else:
                    with self._changed:
                        if self._wanted.get(slot) is wanted and (wanted or languages == sorted(self._languages)):
                            del self._queue[slot]
            delay = min(_LONGEST_WAIT, max(self._retry_after, delay * 2)) if failed else 0.0
            if closing:
                return

    def _warn(self, problem: Exception) -> None:
        text = re.sub(r"//[^/@\s]*@", "//", str(problem)).strip().splitlines() or [type(problem).__name__]
        logger.log(
            logging.DEBUG if self._warned else logging.WARNING,
            "MLflow at %s does not answer as it should (%s). The work goes on; tracking is tried again.",
            without_password(self.uri),
            text[0][:300],
        )
        self._warned = True


def _params(model: ModelRecord) -> dict[str, str]:
    languages = sorted(model.mixture)
    params: dict[str, Any] = {
        "model": model.name,
        "model_key": model.key,
        "mixture": " ".join(f"{language}:{model.mixture[language]}" for language in languages),
        "train_languages": "+".join(languages),
        "language_count": len(languages),
        "examples": sum(model.mixture.values()),
        "multilingual_examples": sum(count for code, count in model.mixture.items() if code != ENGLISH),
        "study": model.studies[0] if model.studies else None,
        "studies": ", ".join(model.studies),
        "percent": None if model.percent is None else f"{model.percent:g}",
        "count": model.count,
        "seed": model.seed,
        "base": model.base,
        "judge": model.judge,
        **{f"recipe.{name}": value for name, value in model.recipe.items()},
    }
    return {name: _text(value) for name, value in params.items() if value is not None}


def _tables(files: Sequence[Path]) -> dict[str, str]:
    """The tag by which MLflow's pages know tables among the artifacts (as its own ``log_table`` writes it)."""
    tables = [{"path": file.name, "type": "table"} for file in files if file.name in (SAMPLES, CARD)]
    return {"mlflow.loggedArtifacts": json.dumps(tables)} if tables else {}


def _text(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def score_metrics(scores: pd.DataFrame, studies: Sequence[str] = ()) -> dict[str, float]:
    """``if_score.L``, ``ci_low.L``, ``ci_high.L`` and the averages, from one model's rows of the score table.

    Rounded to a thousandth, because MLflow's tables show every digit.
    An average is given only when all its cells are there. ``if_avg.all`` and ``if_avg.non_english`` cover every
    language evaluated. Seen and unseen differ between studies, so ``if_avg.seen`` and ``if_avg.unseen`` are those of
    the first pinch study among the rows, else of the first of ``studies``; seen leaves English out.
    """
    if not len(scores):
        return {}
    metrics: dict[str, float] = {}
    by_language = scores.drop_duplicates("eval_language")
    for row in by_language.to_dict("records"):
        for name in ("if_score", "ci_low", "ci_high"):
            if pd.notna(row[name]):
                metrics[f"{name}.{row['eval_language']}"] = round(float(row[name]), 3)
    order = {study: place for place, study in enumerate(studies)}
    first = min(
        scores["study"].unique(),
        key=lambda study: (
            bool(scores.loc[scores["study"] == study, "percent"].isna().all()),
            order.get(study, len(order)),
        ),
    )
    of_study = scores[scores["study"] == first]
    seen = of_study["seen"].astype(str).str.lower() == "true"
    averages = {
        "all": by_language,
        "non_english": by_language[by_language["eval_language"] != "en"],
        "seen": of_study[seen & (of_study["eval_language"] != "en")],
        "unseen": of_study[~seen],
    }
    for name, rows in averages.items():
        if len(rows) and rows["if_score"].notna().all():
            metrics[f"if_avg.{name}"] = round(float(rows["if_score"].astype(float).mean()), 3)
    return metrics


def tracking_uri(store: Path) -> str:
    """``MLFLOW_TRACKING_URI`` where it is set, else :func:`default_uri`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_uri(store)
