"""The artifacts in a store that was moved, or copied: they are where the store is now.

MLflow writes whole paths into its database: an experiment has one, and every run its own below it. In a store's own
database they are put right before anything is written or shown. MLflow has no call for that, so the two columns are
changed in the database itself; they are as old as MLflow's database and the same in 3.17.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from trainables.errors import EnvironmentProblem

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"


def artifact_location(store: Path) -> str:
    """Where the artifacts of the sweeps in a store are, as MLflow is told it."""
    return (Path(store).resolve() / ARTIFACTS).as_uri()


def settle(store: Path) -> None:
    """Have a store's own database name its artifacts where the store is now; nothing where it has none yet.

    Raises:
        EnvironmentProblem: it is no database, or may not be written, or another process holds it for half a minute; or
            it names artifacts elsewhere, as a store from somebody else may.
    """
    database = Path(store) / DATABASE
    if not database.is_file():
        return
    try:
        _settle(database, artifact_location(store))
    except sqlite3.Error as problem:
        raise EnvironmentProblem(
            f"{database}: cannot be used ({problem}); mend it, or remove it: the next pinch run makes it again."
        ) from problem


def _settle(database: Path, here: str) -> None:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'experiments'").fetchone():
            return
        moved = connection.execute(
            "SELECT experiment_id, artifact_location FROM experiments "
            "WHERE artifact_location LIKE 'file://%/' || ? AND artifact_location <> ?",
            (ARTIFACTS, here),
        ).fetchall()
        for experiment, before in moved:
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (here, len(before) + 1, experiment, len(before) + 1, f"{before}/"),
            )
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, experiment)
            )
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'Default'", (here,)
        )  # MLflow's own
        named = connection.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
        for (location,) in named:
            inside = str(location).startswith((f"{here}/", "mlflow-artifacts:/")) and ".." not in location.split("/")
            if location != here and not inside:
                raise EnvironmentProblem(
                    f"{database}: names artifacts outside of the store ({location}), which MLflow's pages would show; "
                    "remove it: the next pinch run makes it again."
                )
