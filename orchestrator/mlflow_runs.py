"""One experiment on one MLflow, and the ledger of what it has been told.

A :class:`WantedRun` says what a run should say. :meth:`Runs.write` compares it with the ledger,
``<store>/tracking/<experiment>.json``, and sends the difference with explicit run ids, so that writing the same thing
twice sends nothing and a resumed sweep goes on in the same runs.

The ledger is a memory, not the truth. Runs carry marks (tags) by which they are found again if the ledger is lost, and
the first time a session has something new for a run it reads what is already there. A file lock around every write
keeps two sessions on one store from making a run twice; the store's id among the marks keeps two stores on one server
apart. The ledger has a part for each server, since run ids mean nothing elsewhere.

Everything here may raise whatever MLflow or the network raises; :mod:`orchestrator.tracking` sees to it that this stops
no work. This module must never know what a model or a score is.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import hashlib
import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from orchestrator.mlflow_place import DATABASE, artifact_location, settle
from orchestrator.mlflow_ui import view_tags

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Point = tuple[int, float, float]
"""Step, value, seconds since the run began."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing about a sweep leaves the machine unasked
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the tracker retries by itself; the default would hang for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for programs
}
"""Environment for MLflow, where the user has not set it."""

STORE_ID = "tracking/store-id"
"""Where a store keeps its name among the runs of a server."""
_METRICS_PER_BATCH = 1000  # MLflow's own limits
_PARAMS_PER_BATCH = 100
_LOCK_PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class WantedRun:
    """What one run should say."""

    slot: str
    """The run's place in the ledger; the parent's is the empty string."""
    name: str
    marks: Mapping[str, str]
    """Tags that tell this run from every other of the experiment; written when it is made."""
    status: Status
    metrics: Mapping[str, float] = field(default_factory=dict)
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    """Curves: metrics with steps."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    """Artifacts, sent again when their content changes."""


class Runs:
    """The parent run and the children of one experiment.

    Args:
        store: a local folder; the ledger lies in ``tracking/`` below it, artifacts of the default in ``mlartifacts/``.
        experiment: its name.
        uri: an MLflow tracking URI.
        place: the URI's name in the ledger (without a password, and not naming the store's own path).
    """

    def __init__(self, store: Path, experiment: str, uri: str, place: str) -> None:
        self.store, self.experiment, self.uri, self.place = store, experiment, uri, place
        self._ledger = store / "tracking" / f"{experiment}.json"
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._made = ""  # tells this experiment from one of the same number in another database
        self._read: set[str] = set()  # runs that were read in this session, and not been in doubt since

    def write(self, wanted: WantedRun, parent: WantedRun) -> None:
        """Have a run say what is wanted; it, its parent and the experiment are made if they are not there.

        A parent is not set RUNNING for its own sake, only when it or one of its children has something new.
        """
        with self._book() as book:
            if not self._differs(book["runs"].get(wanted.slot, {}), wanted):
                return
            client = self._connect(book)
            above = self._ensure(client, book, parent)
            if wanted.slot == parent.slot:
                self._send(client, book, above, wanted)
                return
            if above["status"] != "RUNNING":
                client.update_run(above["run_id"], status="RUNNING")
                above["status"] = "RUNNING"
            entry = self._ensure(client, book, wanted, {"mlflow.parentRunId": above["run_id"]})
            self._send(client, book, entry, wanted)

    def show(self, languages: Sequence[str]) -> None:
        """Have the experiment's page show scores in these languages, beside those it shows already."""
        with self._book() as book:
            shown = sorted({*book.get("shown", []), *languages})
            if shown == book.get("shown"):
                return
            client = self._connect(book)
            for name, value in view_tags(shown, int(time.time() * 1000)).items():
                client.set_experiment_tag(self._experiment_id, name, value)
            book["shown"] = shown
            self._save(book)

    def _differs(self, entry: Mapping[str, Any], wanted: WantedRun) -> bool:
        status = entry.get("status") != wanted.status and not (
            wanted.slot == "" and wanted.status == "RUNNING" and "run_id" in entry
        )
        return bool(
            status
            or _changed(entry.get("metrics", {}), wanted.metrics)
            or _changed(entry.get("tags", {}), wanted.tags)
            or wanted.params.keys() - entry.get("params", {}).keys()
            or any(_unsent(entry, name, points) for name, points in wanted.points.items())
            or any(path.is_file() for path in self._unsent_files(entry, wanted.files))
        )

    def _connect(self, book: dict[str, Any]) -> MlflowClient:
        if self._client is None:
            address, credentials = _apart(self.uri)
            for name, value in {**SETTINGS, **credentials}.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            for noisy in ("mlflow.store.db.utils", "alembic"):  # the making of a database is not news
                logging.getLogger(noisy).setLevel(logging.WARNING)
            if self.place == "store":
                settle(self.store)
            client = MlflowClient(tracking_uri=address)
            self._experiment_id = self._find_or_make_experiment(client)
            self._made = f"{self._experiment_id} of {client.get_experiment(self._experiment_id).creation_time}"
            self._client = client
        if book["experiment"] != self._made:  # a new database: what was in the old one is not in this
            book.clear()
            book.update(_empty_book(), experiment=self._made)
        return self._client

    def _find_or_make_experiment(self, client: MlflowClient) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            location = artifact_location(self.store) if self.place == "store" else None
            try:
                return client.create_experiment(self.experiment, artifact_location=location)
            except MlflowException:
                found = client.get_experiment_by_name(self.experiment)
                if found is None:  # no: it was not another store's session that made it just before
                    raise
        if found.lifecycle_stage == "deleted":  # its name cannot be used otherwise
            client.restore_experiment(found.experiment_id)
        return found.experiment_id

    def _ensure(
        self,
        client: MlflowClient,
        book: dict[str, Any],
        wanted: WantedRun,
        tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The ledger's entry of a run that exists, saying what that run says."""
        entry: dict[str, Any] = book["runs"].setdefault(wanted.slot, {})
        if entry.get("run_id") in self._read:
            return entry
        marks = {**wanted.marks, "pinch.store": _store_id(self.store)}
        run = _get_run(client, entry.get("run_id"))
        if run is None:
            entry.clear()
            query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in marks.items() if "'" not in value)
            found = client.search_runs([self._experiment_id], query, order_by=["attributes.start_time ASC"])
            run = found[0] if found else None
        if run is None:
            origin = {
                "mlflow.user": getpass.getuser(),
                "mlflow.source.name": "pinch",
                "mlflow.source.type": "LOCAL",
            }
            run = client.create_run(self._experiment_id, run_name=wanted.name, tags={**origin, **marks, **(tags or {})})
        curves = dict(entry.get("curves", {}))
        for name in wanted.points:
            if name not in curves and name in run.data.metrics:
                curves[name] = max(metric.step for metric in client.get_metric_history(run.info.run_id, name))
        entry.update(
            run_id=run.info.run_id,
            start=run.info.start_time,
            status=run.info.status,
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            metrics={name: value for name, value in run.data.metrics.items() if name not in wanted.points},
            curves=curves,
        )
        self._save(book)
        self._read.add(entry["run_id"])
        return entry

    def _send(self, client: MlflowClient, book: dict[str, Any], entry: dict[str, Any], wanted: WantedRun) -> None:
        """Send what the run does not say yet, then write down that it does."""
        from mlflow.entities import Metric, Param, RunTag

        run_id, now = entry["run_id"], int(time.time() * 1000)
        metrics = _changed(entry["metrics"], wanted.metrics)
        tags = _changed(entry["tags"], wanted.tags)
        # A param cannot be changed: one that is there stays, whatever a label is called by now.
        params = {name: value for name, value in wanted.params.items() if name not in entry["params"]}
        batch = [Metric(name, value, now, 0) for name, value in metrics.items()]
        for name, points in wanted.points.items():
            # Times follow from the run's start, so a point sent twice is the same point, which MLflow keeps once.
            batch += [
                Metric(name, value, entry["start"] + int(seconds * 1000), step)
                for step, value, seconds in _unsent(entry, name, points)
            ]
        files = self._unsent_files(entry, wanted.files)
        try:
            for part in _parts(batch, _METRICS_PER_BATCH):
                client.log_batch(run_id, metrics=part, synchronous=True)
            for part in _parts([Param(name, value) for name, value in params.items()], _PARAMS_PER_BATCH):
                client.log_batch(run_id, params=part, synchronous=True)
            for part in _parts([RunTag(name, value) for name, value in tags.items()], _PARAMS_PER_BATCH):
                client.log_batch(run_id, tags=part, synchronous=True)
            for path in files:
                client.log_artifact(run_id, str(path))
            if entry["status"] != wanted.status and wanted.status == "RUNNING":
                client.update_run(run_id, status="RUNNING")
            elif entry["status"] != wanted.status:
                client.set_terminated(run_id, status=wanted.status)
        except Exception:
            self._read.discard(run_id)  # it may have arrived all the same: look before the next try
            raise
        entry["metrics"].update(metrics)
        entry["tags"].update(tags)
        entry["params"].update(params)
        entry["curves"].update({name: points[-1][0] for name, points in wanted.points.items() if points})
        entry.setdefault("files", {}).update(files.items())
        entry["files"] = {Path(path).name: digest for path, digest in entry["files"].items()}
        entry["status"] = wanted.status
        self._save(book)

    def _unsent_files(self, entry: Mapping[str, Any], files: Sequence[Path]) -> dict[Path, str]:
        known = entry.get("files", {})
        digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
        return {path: digest for path, digest in digests.items() if known.get(path.name) != digest}

    @contextlib.contextmanager
    def _book(self) -> Iterator[dict[str, Any]]:
        """This destination's part of the ledger, under the lock that every session on the store takes."""
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._ledger.with_suffix(".lock")):
            lost = self.place == "store" and not (self.store / DATABASE).exists()
            yield _empty_book() if lost else self._load().get(self.place, _empty_book())

    def _load(self) -> dict[str, Any]:
        try:
            return json.loads(self._ledger.read_text())["destinations"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError):
            logger.warning("%s cannot be read; the runs it named are found again by their tags.", self._ledger)
            return {}

    def _save(self, book: dict[str, Any]) -> None:
        everything = {**self._load(), self.place: book}
        text = json.dumps({"schema": 1, "destinations": everything}, indent=1, sort_keys=True)
        temporary = self._ledger.with_name(f".{self._ledger.name}.{uuid.uuid4().hex[:8]}")
        temporary.write_text(text)
        os.replace(temporary, self._ledger)


def reachable(uri: str, timeout: float = 10.0) -> str | None:
    """Why an MLflow does not answer, in a sentence without its password; None where it does."""
    address, credentials = _apart(uri)
    once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(int(timeout))}
    os.environ.update({**SETTINGS, **once})
    for name, value in credentials.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient(tracking_uri=address).search_experiments(max_results=1)
    except Exception as problem:  # noqa: BLE001 - whatever MLflow, a database or the network raises
        text = re.sub(r"//[^/@\s]*@", "//", str(problem)).strip().splitlines() or [type(problem).__name__]
        return text[0][:300]
    return None


def _apart(uri: str) -> tuple[str, dict[str, str]]:
    """A server's address as MLflow may repeat it, and the credentials that stood in it, as MLflow reads them.

    MLflow prints and logs the address it was given. A database's credentials have no other place than its URI.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri, {}
    credentials = {"MLFLOW_TRACKING_USERNAME": parts.username, "MLFLOW_TRACKING_PASSWORD": parts.password or ""}
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, {name: unquote(value) for name, value in credentials.items()}


def _empty_book() -> dict[str, Any]:
    return {"experiment": "", "runs": {}}


def _changed(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if known.get(name) != value}


def _unsent(entry: Mapping[str, Any], name: str, points: Sequence[Point]) -> list[Point]:
    last = entry.get("curves", {}).get(name, -1)
    return [point for point in points if point[0] > last and math.isfinite(point[1])]


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _get_run(client: MlflowClient, run_id: str | None) -> Run | None:
    """The run, or None when it is not there or was deleted."""
    from mlflow.exceptions import MlflowException

    if not run_id:
        return None
    try:
        run = client.get_run(run_id)
    except MlflowException as problem:
        if problem.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _store_id(store: Path) -> str:
    """A name for this store that goes with it wherever it is moved. Called under the lock."""
    path = store / STORE_ID
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        made = uuid.uuid4().hex
    temporary = path.with_name(f".store-id.{made[:8]}")
    temporary.write_text(made + "\n")
    try:
        os.link(temporary, path)  # fails if another experiment's session was first
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_text().strip()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive file lock; the system gives it back when its holder dies.

    Raises:
        TimeoutError: when another session has held it for half a minute.
    """
    deadline = time.monotonic() + _LOCK_PATIENCE
    with path.open("a") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another session holds {path}") from None
                time.sleep(0.05)
        yield
