"""Opening the storage of a study: a journal file in its folder, or a database that many machines reach."""

from __future__ import annotations

import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from coldtune.addresses import is_sqlite, normalised, password_hint, redact, sqlite_path, without_password
from coldtune.environment import free_port, runner, shell_command
from coldtune.readback import unreadable
from coldtune.studies.storage.journal import open_journal
from coldtune.waiting import within

_DASHBOARD_PORT = 8080  # of optuna-dashboard, by default
JOURNAL = "journal.log"
_CONNECT_S = 10
_OPEN_S = 30.0  # the longest wait for a server that is opened for the first time
_DENIED = ("no password supplied", "password authentication failed", "Access denied for user")
_EXTRAS = {"psycopg": "coldtune[postgres] (in a checkout: uv sync --extra postgres)"}


def open_storage(folder: Path, url: str | None = None, *, create: bool = True) -> BaseStorage:
    """Open the storage of a study. If a database goes away later, the storage waits for it (`PatientStorage`).

    Args:
        folder: The study's folder, which holds the journal.
        url: The database: PostgreSQL, MySQL or SQLite. None means the journal.
        create: Whether the file of a SQLite database may be created. A command that only looks must not.

    Raises:
        ValueError: If the URL cannot be used or reached, if its driver is not installed, or if the journal is damaged.
    """
    if url is None:
        return open_journal(folder / JOURNAL)
    name = f"--storage {redact(url)}"
    try:
        path = sqlite_path(url)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if path is not None and not create and not _has_content(url):
        raise ValueError(f"{name}: no such database")
    try:
        if path is not None:
            return _open_database(url)
        return within(_OPEN_S, lambda: _open_database(database_url(normalised(url))))
    except ImportError as error:
        missing = _missing_package(error)
        install = _EXTRAS.get(missing, missing)
        raise ValueError(f"{name}: its driver {missing} is not installed; install {install}") from None
    except TimeoutError:
        raise ValueError(f"{name}: does not answer within {_OPEN_S:g} s. Is this a database server?") from None
    except Exception as error:  # SQLAlchemy and the drivers raise many types, and the user's URL is the cause of all
        raise _unusable(url, error) from None


def check_kind(url: str) -> None:
    """Check that SQLAlchemy knows this kind of database. Nothing is opened.

    Raises:
        ValueError: If it does not, or if this is no URL.
    """
    from sqlalchemy.engine import make_url

    try:
        make_url(database_url(normalised(url))).get_dialect()
    except Exception as error:  # of many types, and caused by the user's URL
        raise _unusable(url, error) from None


def _unusable(url: str, error: Exception) -> ValueError:
    reason = redact((str(error).strip() or type(error).__name__).splitlines()[0])
    allowed = "allowed: a database such as postgresql://USER@HOST/DATABASE, or another SQLAlchemy URL"
    denied = any(word in str(error) for word in _DENIED)
    hint = password_hint(url) if denied else f"{allowed} whose driver is installed"
    return ValueError(f"--storage {redact(url)}: cannot be opened ({reason}); {hint}")


def stored_study(folder: Path, name: str, url: str | None) -> optuna.Study | None:
    """Return the stored Optuna study of that name. Return None if its driver was stopped before it created the study.

    Raises:
        ValueError: If its database cannot be reached.
    """
    if url is None and not (folder / JOURNAL).exists():
        return None
    if url is not None and is_sqlite(url) and not _has_content(url):
        return None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=open_storage(folder, url, create=False))
    except KeyError:
        return None
    except optuna.exceptions.StorageInternalError as error:  # a damaged database
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        place, why = f"--storage {redact(url or '')}", f"cannot be read ({redact(reason)})"
        raise unreadable(place, why, "Restore it.") from None


def load_started_study(folder: Path, name: str, url: str | None, storage: BaseStorage | None = None) -> optuna.Study:
    """Return the stored Optuna study of a folder whose study was started, and so must have been stored.

    Args:
        storage: The open storage, if the caller has it.

    Raises:
        ValueError: If the storage has no such study. A study that lost its trials must not look like a new study.
    """
    if storage is None:
        study = stored_study(folder, name, url)
    else:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            study = None
    if study is not None:
        return study
    hint = (
        f"Restore it. To begin again with trial 0, remove spec.yaml and start.json in {folder} and start the study "
        "with its own command: its finished work is found in the store."
    )
    if url is not None:
        raise unreadable(f"--storage {redact(url)}", f"the database has no study {name}, although it was started", hint)
    path = folder / JOURNAL
    if not path.exists():
        raise unreadable(path, "there is no such file, although the study was started", hint)
    if not path.stat().st_size:
        raise unreadable(path, "is empty, although the study was started", hint)
    raise unreadable(path, f"holds no study {name}, so it is the journal of another study", hint)


def _has_content(url: str) -> bool:
    path = sqlite_path(url)
    return path is not None and path.is_file() and path.stat().st_size > 0


def database_url(url: str) -> str:
    """Return `url` with the driver that coldtune installs. SQLAlchemy's default driver depends on its version."""
    for plain in ("postgresql://", "postgres://"):
        if url.startswith(plain):
            return f"postgresql+psycopg://{url.removeprefix(plain)}"
    return url


def dashboard_command(folder: Path, url: str | None) -> str:
    """Return the command that opens the study in optuna-dashboard.

    It holds no password. The drivers read PGPASSWORD themselves.
    """
    place = str(folder / JOURNAL) if url is None else database_url(without_password(url))
    port = () if (free := free_port(_DASHBOARD_PORT)) == _DASHBOARD_PORT else ("--port", free)
    command = ("optuna-dashboard", *port, place)
    if find_spec("optuna_dashboard") is None:
        if runner():
            return shell_command("--with", "optuna-dashboard", *command)
        return f"pip install optuna-dashboard && {shell_command(*command)}"
    return shell_command(*command)


def _open_database(url: str) -> BaseStorage:
    from coldtune.studies.storage.database import PatientStorage  # SQLAlchemy takes a while to import

    # If the server was restarted in the meantime, a connection is lost, and the study goes on with a new connection.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith(("postgresql", "mysql", "mariadb")):
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
