"""Opening the storage of a study: a journal file in its folder, or a database that many machines reach."""

from __future__ import annotations

import shlex
import warnings
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage

from coldtune.environment import free_port, runner
from coldtune.studies.storage.journal import Journal
from coldtune.tracking import shown

_DASHBOARD_PORT = 8080  # of optuna-dashboard, by default
JOURNAL = "journal.log"
_CONNECT_S = 10
_EXTRAS = {"psycopg": "coldtune[postgres] (in a checkout: uv sync --extra postgres)"}


def open_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """Open the storage of a study. If a database goes away later, the storage waits for it (`PatientStorage`).

    Args:
        folder: The study's folder, which holds the journal.
        url: The database: PostgreSQL, MySQL or SQLite. None means the journal.

    Raises:
        ValueError: If the URL cannot be used or reached, or if its driver is not installed.
    """
    if url is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return JournalStorage(Journal(folder / JOURNAL))
    try:
        return _open_database(database_url(url))
    except ImportError as error:
        missing = _missing_package(error)
        raise ValueError(
            f"--storage {shown(url)}: its driver {missing} is not installed; install {_EXTRAS.get(missing, missing)}"
        ) from None
    except Exception as error:  # SQLAlchemy and the drivers raise many types, and the user's URL is the cause of all
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"--storage {shown(url)}: cannot be opened ({reason}); allowed: a database such as "
            "postgresql://USER@HOST/DATABASE, or another SQLAlchemy URL whose driver is installed"
        ) from None


def stored_study(folder: Path, name: str, url: str | None) -> optuna.Study | None:
    """Return the stored Optuna study of that name. Return None if its driver was stopped before it created the study.

    Raises:
        ValueError: If its database cannot be reached.
    """
    if url is None and not (folder / JOURNAL).exists():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=open_storage(folder, url))
    except KeyError:
        return None


def database_url(url: str) -> str:
    """Return `url` with the driver that coldtune installs. SQLAlchemy's default driver depends on its version."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return f"postgresql+psycopg://{url.removeprefix(plain)}"
    return url


def dashboard_command(folder: Path, url: str | None) -> str:
    """Return the command that opens the study in optuna-dashboard. A password in the URL is replaced by `***`."""
    from sqlalchemy.engine import make_url

    place = str(folder / JOURNAL) if url is None else make_url(database_url(url)).render_as_string(hide_password=True)
    port = "" if (free := free_port(_DASHBOARD_PORT)) == _DASHBOARD_PORT else f"--port {free} "
    command = f"optuna-dashboard {port}{shlex.quote(place)}"
    if find_spec("optuna_dashboard") is None:
        install = "uv run --with optuna-dashboard " if runner() else "pip install optuna-dashboard && "
        return f"{install}{command}"
    return f"{runner()}{command}"


def _open_database(url: str) -> BaseStorage:
    from coldtune.studies.storage.database import PatientStorage  # SQLAlchemy takes a while to import

    # If the server was restarted in the meantime, a connection is lost, and the study goes on with a new connection.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        options["connect_args"] = {"connect_timeout": _CONNECT_S}
    storage = PatientStorage(url, options)
    weakref.finalize(storage, storage.engine.dispose)  # psycopg warns about connections that are dropped while open
    return storage


def _missing_package(error: BaseException | None) -> str:
    """Return the package that an ImportError, or the error behind it, did not find."""
    name = "its driver"
    while error is not None:
        name = getattr(error, "name", None) or name
        error = error.__cause__ or error.__context__
    return name.partition(".")[0]
