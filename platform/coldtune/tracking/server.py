"""The tracking server: checks of a URI, preparation of database and experiment, and how to open it in a browser."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coldtune.addresses import is_sqlite, password_hint, redact, sqlite_address, without_password
from coldtune.environment import ensure_home_variable, free_port, shell_command
from coldtune.files import lock_file
from coldtune.tracking.relocate import relocate_artifacts
from coldtune.tracking.uris import SERVERS, TIMEOUT, UnusableError, check_uri, sqlite_file
from coldtune.waiting import within

# With MLflow's defaults, an outage would cost four minutes instead of seconds. Values that a user has set are kept.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(TIMEOUT),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # coldtune reports failures itself, in a line each
}
_PORT = 5000  # MLflow's default
_PREPARE_S = 120.0  # the longest wait for a database, in which MLflow may have to make its tables
_DENIED = (
    "error code 401", "error code 403", "UNAUTHENTICATED", "PERMISSION_DENIED",
    "no password supplied", "password authentication failed", "Access denied for user",
)  # fmt: skip
# MLflow then shows its pages for training runs instead of those for language models, which are its default.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True)
class Target:
    """A tracking server (or database) and an experiment on it, as `prepare` returns them.

    Attributes:
        born: When the experiment was made, in milliseconds since the epoch. A database that was removed and made again
            has an experiment of the same id, but of another time. 0 if it is not known.
    """

    uri: str
    experiment_id: str
    born: int = 0

    @property
    def key(self) -> str:
        """16 hex digits that identify server and experiment in a spool's delivery state, without credentials."""
        address = redact(without_password(self.uri))
        return hashlib.sha256(f"{address} {self.experiment_id}".encode()).hexdigest()[:16]


def default_uri(home: Path) -> str:
    """Return the default tracking URI of a home, which is a SQLite database in it."""
    return sqlite_address(home.absolute() / "mlflow.db")


def ui_port() -> int:
    """Return the port at which `ui_command` shows the runs: MLflow's default, or the next one that is free."""
    return free_port(_PORT)


def ui_command(uri: str) -> str:
    """Return the command that shows the runs in a browser, or the address to open if `uri` is a tracking server.

    The command turns off MLflow's job runners for language-model scorers, which would cost 1.5 GB of memory. It holds
    no password, so PGPASSWORD must be set for a database that wants a password.
    """
    if urlsplit(uri).scheme in SERVERS:
        return redact(uri)
    port = () if (free := ui_port()) == _PORT else ("--port", free)
    command = shell_command("mlflow", "ui", "--workers", "1", *port, "--backend-store-uri", without_password(uri))
    return f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {command}"


def client(uri: str) -> Any:
    """Return an `MlflowClient` that prints nothing and gives up within seconds.

    The first call in a process takes about 4 s, because it imports MLflow.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    ensure_home_variable()
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def check_server(uri: str) -> None:
    """Check that a tracking server or database can be reached. Nothing is made, and a SQLite database is not looked at.

    Raises:
        ValueError: If the URI is unusable, or does not lead to a server.
    """
    if is_sqlite(uri):
        return
    try:
        check_uri(uri)
    except UnusableError as why:
        raise ValueError(f"tracking URI = {redact(uri)!r}: {redact(str(why))}") from None


def prepare(uri: str, experiment: str, artifact_root: Path) -> Target:
    """Check a tracking URI, and make its database and experiment if they are missing.

    Call this in the driver before the first trial. Several processes may call it at once. If the database lies in a
    home that was moved or copied, its artifacts are looked for in the home's present place from now on.

    Args:
        artifact_root: The folder for the artifacts of runs in a database. A tracking server decides about its own.

    Raises:
        ValueError: If the URI is unusable, the server cannot be reached or is not an MLflow server, or the experiment
            was deleted. It is raised within seconds, even if a server does not answer.
    """
    try:
        uri = check_uri(uri)
    except UnusableError as why:
        raise ValueError(f"tracking URI = {redact(uri)!r}: {redact(str(why))}") from None
    server = urlsplit(uri).scheme in SERVERS
    location = None if server else artifact_root.absolute().as_uri()
    with _sqlite_lock(uri):
        try:
            # The client itself opens a database, so it is made where the wait has a limit.
            make = partial(_open_experiment, uri, experiment, location)
            if is_sqlite(uri):
                target = make()
                relocate_artifacts(sqlite_file(uri), target.experiment_id, artifact_root.absolute())
            elif server:  # each request has limits of its own
                target = make()
            else:
                # MLflow would try for hours to reach a database that accepts connections and does not answer.
                os.environ.setdefault("PGCONNECT_TIMEOUT", str(2 * TIMEOUT))
                target = within(_PREPARE_S, make)
            return target
        except ValueError:
            raise
        except Exception as error:  # of MLflow, SQLAlchemy or a database driver, and caused by the user's URI
            raise ValueError(f"tracking URI = {redact(uri)!r}: {_explained(error, uri)}") from None


def _open_experiment(uri: str, name: str, location: str | None) -> Target:
    opened = client(uri)
    experiment_id = _get_or_make_experiment(opened, uri, name, location)
    return Target(uri, experiment_id, int(opened.get_experiment(experiment_id).creation_time or 0))


def _get_or_make_experiment(client: Any, uri: str, name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)  # another process has made it meanwhile
    if experiment.lifecycle_stage != "active":
        command = shell_command("mlflow", "experiments", "restore", "--experiment-id", experiment.experiment_id)
        restore = f"MLFLOW_TRACKING_URI={shlex.quote(redact(uri))} {command}"
        raise ValueError(f"experiment = {name!r}: was deleted on the tracking server. Restore it with `{restore}`")
    return str(experiment.experiment_id)


def _explained(error: Exception, uri: str) -> str:
    text = str(error)
    if any(word in text for word in _DENIED):
        return f"access denied; {password_hint(uri)} ({_first_line(text)})"
    if isinstance(error, TimeoutError):
        return f"does not answer within {_PREPARE_S:g} s"
    if urlsplit(uri).scheme in SERVERS:
        return f"answers, but not as an MLflow server ({_first_line(text)})"
    return _first_line(text)


def _first_line(text: str) -> str:
    return redact(text.strip().splitlines()[0][:300]) if text.strip() else "no message"


@contextmanager
def _sqlite_lock(uri: str) -> Iterator[None]:
    """Let one process at a time make a SQLite database, because two would corrupt each other's migrations."""
    if not is_sqlite(uri):
        yield
        return
    with lock_file(Path(f"{sqlite_file(uri)}.lock")):
        yield
