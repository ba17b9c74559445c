"""The artifacts of a home that was moved or copied.

MLflow records the absolute place of the artifacts of an experiment, of every run and of every logged model. In the
database of a home, this module replaces the beginning of these places by the home's present place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOG = logging.getLogger("coldtune.tracking")
_BUSY_S = 10.0
_PLACES_OF_MODELS = (
    ("logged_models", "artifact_location"), ("model_versions", "source"), ("model_versions", "storage_location"),
)  # fmt: skip


def relocate_artifacts(database: Path, experiment_id: str, folder: Path) -> int:
    """Make an experiment in a SQLite database look for its artifacts in `folder`, if it looks for them elsewhere.

    Nothing changes if the database does not lie beside the folder, because then it belongs to several homes. Nothing
    changes either if both places are the same folder, for example through a link.

    Returns:
        The number of runs whose artifacts are found at the new place.
    """
    if database.parent != folder.parent:
        return 0
    with contextlib.closing(sqlite3.connect(database, timeout=_BUSY_S)) as connection, connection:
        row = connection.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = ?", [experiment_id]
        ).fetchone()
        old, new = (row[0] or "").rstrip("/") if row else "", folder.as_uri()
        if not old.startswith("file:") or old == new or _same_folder(old, folder):
            return 0
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", [new, experiment_id])
        count = connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            [new, len(old) + 1, experiment_id, len(old) + 1, f"{old}/"],
        ).rowcount
        for table, column in _PLACES_OF_MODELS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                [new, len(old) + 1, len(old) + 1, f"{old}/"],
            )
    _LOG.warning("tracking: this home was moved; the artifacts of %d runs are looked for in %s now", count, folder)
    return count


def _same_folder(uri: str, folder: Path) -> bool:
    try:
        return os.path.samefile(unquote(urlsplit(uri).path), folder)
    except OSError:
        return False
