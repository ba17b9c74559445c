"""Where a study is kept: a journal file in its folder, or a database that many machines reach."""

from __future__ import annotations

import os
import shlex
import warnings
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage

from coldtune.studies.storage.journal import Journal
from coldtune.tracking import shown

JOURNAL = "journal.log"
_CONNECT_S = 10
_EXTRAS = {"psycopg": "coldtune[postgres] (in a checkout: uv sync --extra postgres)"}


def open_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """The storage of a study: a journal file in its folder, or the database at `url` (PostgreSQL, MySQL, SQLite).

    A database that goes away later is waited for (`PatientStorage`). ValueError for a URL that cannot be used or
    reached, or whose driver is not installed.
    """
    if url is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return JournalStorage(Journal(folder / JOURNAL))
    try:
        return _database(database_url(url))
    except ImportError as error:
        missing = _missing(error)
        raise ValueError(
            f"--storage {shown(url)}: its driver {missing} is not installed; install {_EXTRAS.get(missing, missing)}"
        ) from None
    except Exception as error:  # whatever SQLAlchemy or a database driver raise: the user's URL is why
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"--storage {shown(url)}: cannot be opened ({reason}); allowed: a database such as "
            "postgresql://USER@HOST/DATABASE, or another SQLAlchemy URL whose driver is installed"
        ) from None


def stored_study(folder: Path, name: str, url: str | None) -> optuna.Study | None:
    """The Optuna study of that name as it is stored; None for one that was stopped before it was there.

    ValueError where its database cannot be reached.
    """
    if url is None and not (folder / JOURNAL).exists():
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=open_storage(folder, url))
    except KeyError:
        return None


def database_url(url: str) -> str:
    """`url` with the driver named that we install: what `postgresql://` alone means differs between SQLAlchemys."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return f"postgresql+psycopg://{url.removeprefix(plain)}"
    return url


def _database(url: str) -> BaseStorage:
    from coldtune.studies.storage.retrying import PatientStorage  # SQLAlchemy takes a while to import

    # A server that was restarted in the meantime costs one connection, not the study.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("postgresql"):
        options["connect_args"] = {"connect_timeout": _CONNECT_S}
    storage = PatientStorage(url, options)
    weakref.finalize(storage, storage.engine.dispose)  # connections that are dropped open make psycopg complain
    return storage


def _missing(error: BaseException | None) -> str:
    """The package that an ImportError, or the one behind it, did not find."""
    name = "its driver"
    while error is not None:
        name = getattr(error, "name", None) or name
        error = error.__cause__ or error.__context__
    return name.partition(".")[0]


def dashboard_command(folder: Path, url: str | None) -> str:
    """The command that opens the study in optuna-dashboard; a password in the database's URL is left out (`***`)."""
    from sqlalchemy.engine import make_url

    where = str(folder / JOURNAL) if url is None else make_url(database_url(url)).render_as_string(hide_password=True)
    with_uv = "UV" in os.environ or "UV_RUN_RECURSION_DEPTH" in os.environ
    if find_spec("optuna_dashboard") is None:
        install = "uv run --with optuna-dashboard " if with_uv else "pip install optuna-dashboard && "
        return f"{install}optuna-dashboard {shlex.quote(where)}"
    return f"{'uv run ' if with_uv else ''}optuna-dashboard {shlex.quote(where)}"
