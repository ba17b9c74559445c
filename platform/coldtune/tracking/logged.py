"""Reading files back from a trial's MLflow run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldtune.addresses import redact, sqlite_path
from coldtune.tracking.runs import TAG_KIND, TAG_STATE, TAG_STUDY
from coldtune.tracking.server import client
from coldtune.tracking.uris import UnusableError, check_uri


def logged_file(run_id: str, name: str, uris: Sequence[str]) -> str:
    """Read a text file that was logged as an artifact of a trial's run.

    Args:
        name: The name of the file, at the root of the run's artifacts.
        uris: The tracking URIs at which the run is looked for, in this order.

    Raises:
        ValueError: If no URI knows the run, a URI cannot be used, the run is not that of a trial, or it has no such
            file. It is raised within seconds, even if a server does not answer.
    """
    for uri in uris:
        run = _find_run(run_id, uri)
        if run is not None:
            return _read_text(run, name, uri)
    places = ", ".join(map(redact, uris)) or "nowhere, because this home has no tracking store"
    raise ValueError(f"{run_id}: no such MLflow run (looked in: {places}). Name another store with --tracking-uri")


def _find_run(run_id: str, uri: str) -> Any:
    """Return the run, or None if the store does not know it."""
    from mlflow.exceptions import MlflowException

    if (path := sqlite_path(uri)) is not None and path.is_file() and not path.stat().st_size:
        return None  # MLflow would make its tables in an empty file
    try:
        return client(check_uri(uri, create=False)).get_run(run_id)
    except UnusableError as why:
        raise ValueError(f"tracking URI = {redact(uri)!r}: {redact(str(why))}") from None
    except Exception as error:  # of MLflow, SQLAlchemy or a database driver
        if isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        if isinstance(error, MlflowException):
            raise ValueError(f"tracking URI = {redact(uri)!r}: {_first_line(error)}") from None
        raise ValueError(  # a database that is damaged, or locked, or of another program
            f"tracking URI = {redact(uri)!r}: cannot be read ({_first_line(error)}). Restore the database. If it is "
            "lost, remove it, and `coldtune tracking sync` sends all records of the home again"
        ) from None


def _read_text(run: Any, name: str, uri: str) -> str:
    run_id, tags = run.info.run_id, run.data.tags
    if tags.get(TAG_KIND) != "trial":
        owner = f"that of study {tags[TAG_STUDY]}" if TAG_STUDY in tags else "not from coldtune"
        raise ValueError(f"{run_id}: this run is {owner}. Name the run of a trial")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(client(check_uri(uri, create=False)).download_artifacts(run_id, name, scratch))
            return file.read_text(encoding="utf-8")
    except Exception as error:  # of MLflow, its database, the file system or a server
        state = tags.get(TAG_STATE, "unknown")
        raise ValueError(
            f"{run_id}: its {name} cannot be had ({_first_line(error)}). The trial's state is {state!r}. "
            "If it is finished, `coldtune tracking sync` delivers files that are still in the spool"
        ) from None


def _first_line(error: Exception) -> str:
    return redact((str(error).strip().splitlines() or [type(error).__name__])[0][:200])
