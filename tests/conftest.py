"""What several test files share: small sweeps, and the `pinch` command as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.faults import Session
from tests.object_servers import free_port
from tests.store_places import gcs_address, gs, place, s3, s3_address  # noqa: F401  (fixtures)


def pytest_configure() -> None:
    """Keep away from the tests what the shell they are started from has.

    One that runs them in the background has them, and all they start, ignore Ctrl-C; and whose shell it is may have an
    MLflow server, which is not to be told of tests.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


SMALL = """
name: small
corpus: {source: cldr, languages: [en, fi], train_count: 64, dev_count: 4, eval_count: 6}
base: tiny
recipe:
  steps: 8
  batch_size: 8
  learning_rate: 2.0e-3
  max_input_tokens: 96
  max_target_tokens: 48
  checkpoint_every: 4
sampling: {temperature: 0.7, top_p: 0.9, max_new_tokens: 24}
studies:
  - {study: monolingual, languages: [en, fi]}
  - {study: pinch, languages: [en, fi], percents: [50], counts: []}
runtime: {engine: transformers}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sweep file of three models in two languages."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of that sweep, after a run in which nothing went wrong; one for all the processes that run tests."""
    of_this_process = tmp_path_factory.getbasetemp()
    folder = (of_this_process.parent if "PYTEST_XDIST_WORKER" in os.environ else of_this_process) / "undisturbed"
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            (folder / "small.yaml").write_text(SMALL)
            session = Session(folder / "small.yaml", folder / "store")
            assert session.wait() == 0, session.text()
            (folder / "done").touch()
    return folder / "store"


@pytest.fixture
def begun(undisturbed: Path, tmp_path: Path) -> Path:
    """A store that holds the base and the corpora of that sweep only."""
    (tmp_path / "store").mkdir()
    for kind in ("base", "corpus"):
        shutil.copytree(undisturbed / kind, tmp_path / "store" / kind)
    return tmp_path / "store"


Pinch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pinch(tmp_path: Path) -> Pinch:
    """The command, run in a process of its own in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(*arguments: str | Path, check: int | None = 0, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)],
            cwd=folder,
            env={
                **os.environ,
                "COLUMNS": "200",
                "HF_HUB_OFFLINE": "1",
                "PYTHONPATH": str(Path(__file__).parent.parent),
            },
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    return run


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: making one takes seconds, copying it does not."""
    from orchestrator.mlflow_ui import default_uri
    from tests.tracking_examples import client_of

    store = tmp_path_factory.mktemp("empty")
    client_of(default_uri(store)).search_experiments()
    return store / "mlflow.db"


@pytest.fixture
def port() -> int:
    """One of this machine's that is free."""
    return free_port()
