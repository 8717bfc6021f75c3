"""Looking at what was tracked: the server to start, and a view of the runs that shows scores.

MLflow lists a new experiment's runs by time, children folded under their parent, without a single metric. A saved view,
which is a tag of the experiment, offers what a sweep is about instead: one row a model, best first, with its averages
and languages. The tag's form is MLflow's own (3.17) and read by its pages only; another version that does not know it
shows its plain list.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.mlflow_place import ARTIFACTS, DATABASE

VIEW = "pinch-scores"
"""The saved view's key, in ``#/experiments/<id>/runs?viewStateShareKey=<key>``."""


def default_uri(store: Path) -> str:
    """The sqlite database inside a store."""
    return f"sqlite:///{Path(store).resolve() / DATABASE}"


def view_tags(languages: Sequence[str], created: int) -> dict[str, str]:
    """The experiment's tags that make its page show scores in these evaluation languages.

    Args:
        languages: codes, in the order of the columns.
        created: milliseconds since 1970, shown beside the view's name.
    """
    metrics = ["if_avg.non_english", "if_avg.all", *(f"if_score.{language}" for language in languages)]
    columns = [f"metrics.`{metric}`" for metric in metrics]
    columns += [f"params.`{param}`" for param in ("percent", "count", "mixture")]
    state = {"selectedColumns": columns, "orderByKey": "metrics.`if_avg.non_english`", "orderByAsc": False}
    view = {"name": "Scores, best first", "createdAt": created, "updatedAt": created, "state": json.dumps(state)}
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
    }


def ui_command(store: Path, host: str = "127.0.0.1", port: int = 5000) -> tuple[list[str], dict[str, str]]:
    """MLflow's server on a store's own database: its command line, and what to add to the environment.

    MLflow answers 403 to a Host header it was not told of, which is what keeps other web pages from reading a local
    server through a name of their own; so the names are exactly those a browser on this machine would use.
    """
    folder = Path(store).resolve()
    hosts = dict.fromkeys(f"{name}:{port}" for name in (_in_url(host), "127.0.0.1", "localhost"))
    argv = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", default_uri(folder)]
    argv += ["--artifacts-destination", str(folder / ARTIFACTS)]
    argv += ["--host", host, "--port", str(port), "--workers", "1", "--allowed-hosts", ",".join(hosts)]
    env = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # the runs are only looked at; its workers would idle
    }
    return argv, env


def serve(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a server until it ends, or this process is told to; returns the server's exit status.

    MLflow's command leaves its own server running when it is killed, so the whole session goes.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def ui_pages(store: Path, host: str = "127.0.0.1", port: int = 5000) -> dict[str, str]:
    """Sweep -> the address at which :func:`ui_command`'s server shows its scores, for the sweeps tracked in a store."""
    pages = {}
    for ledger in sorted((Path(store) / "tracking").glob("*.json")):
        try:
            book = json.loads(ledger.read_text())["destinations"]["store"]
            experiment = book["experiment"].split()[0]
        except (ValueError, KeyError, IndexError):  # half a ledger, or a sweep tracked elsewhere
            continue
        pages[ledger.stem] = f"http://{_in_url(host)}:{port}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"
    return pages


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
