"""Where runs go: checking a tracking URI, making its database and experiment once, and opening it in a browser."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coldtune.files import lock_file
from coldtune.tracking.uris import SERVERS, TIMEOUT, UnusableError, checked, shown

# An outage must cost seconds, not the four minutes of MLflow's defaults; what a user set stays.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # its failures are ours to report, in one line
}
# The pages for training runs rather than MLflow's default, those for language-model applications.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True)
class Target:
    """A tracking server (or database) and an experiment on it, as `prepare` found or made them."""

    uri: str
    experiment_id: str

    @property
    def key(self) -> str:
        """16 hex digits for server and experiment, free of credentials: what a spool's delivery state holds for."""
        return hashlib.sha256(f"{shown(self.uri)} {self.experiment_id}".encode()).hexdigest()[:16]


def default_uri(home: Path) -> str:
    """The tracking URI of a home that names no other: a SQLite database in it."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def ui_command(uri: str) -> str:
    """What a user types to see the runs; for a tracking server, the address to open.

    MLflow's job runners (for language-model scorers) stay off: they cost 1.5 GB of memory and serve nothing here.
    """
    if urlsplit(uri).scheme in SERVERS:
        return shown(uri)
    command = f"uv run mlflow ui --workers 1 --backend-store-uri {shlex.quote(uri)}"
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {command}"


def client(uri: str) -> Any:
    """An `MlflowClient` that is quiet and gives up within seconds. Importing MLflow takes about 4 s, once a process."""
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def prepare(uri: str, experiment: str, artifact_root: Path) -> Target:
    """Check a tracking URI and make its database and experiment where they are missing; call it once, in the driver.

    Several processes may call it at once. Runs of a database keep their artifacts under `artifact_root`; a tracking
    server decides about its own. Raises ValueError, within seconds, where the URI is unusable, the server cannot be
    reached or is no MLflow server, or the experiment was deleted.
    """
    try:
        uri = checked(uri)
    except UnusableError as why:
        raise ValueError(f"tracking URI = {shown(uri)!r}: {shown(str(why))}") from None
    server = urlsplit(uri).scheme in SERVERS
    location = None if server else artifact_root.absolute().as_uri()
    with _only_one(uri):
        try:
            return Target(uri, _experiment(client(uri), experiment, location))
        except ValueError:
            raise
        except Exception as error:  # whatever MLflow, SQLAlchemy or a database driver raise: the user's URI is why
            raise ValueError(f"tracking URI = {shown(uri)!r}: {_explained(error, server)}") from error


def _experiment(client: Any, name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise ValueError(f"experiment = {name!r}: was deleted on the tracking server; restore it with `{restore}`")
    return str(found.experiment_id)


def _explained(error: Exception, server: bool) -> str:
    text = str(error)
    if any(word in text for word in ("error code 401", "error code 403", "UNAUTHENTICATED", "PERMISSION_DENIED")):
        return f"access denied; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD ({_first_line(text)})"
    if server:
        return f"answers, but not as an MLflow server ({_first_line(text)})"
    return _first_line(text)


def _first_line(text: str) -> str:
    return shown(text.strip().splitlines()[0][:300]) if text.strip() else "no message"


@contextmanager
def _only_one(uri: str) -> Iterator[None]:
    """Processes that make one SQLite database at the same moment corrupt each other's migrations: one at a time."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    with lock_file(Path(uri.removeprefix("sqlite:///") + ".lock")):
        yield
