"""Tracking URIs: the kinds that are allowed, and a check that a URI can be used."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from coldtune.addresses import is_sqlite, normalised, sqlite_address, sqlite_path
from coldtune.waiting import within

TIMEOUT = 5
"""Seconds after which a server that does not answer counts as unreachable."""

SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ALLOWED = "allowed: http(s)://HOST:PORT (an MLflow server), sqlite:///PATH, postgresql://, mysql://, mssql://"
_LONGEST_ANSWER = 2**20  # bytes; MLflow's answers to the requests of this check are much shorter


class UnusableError(Exception):
    """A tracking URI cannot be used. The message says why."""


def check_uri(uri: str, *, create: bool = True) -> str:
    """Check that a tracking URI can be reached.

    Args:
        create: Whether the file of a SQLite database may be created. A command that only looks must not.

    Returns:
        The URI in the form in which it is used. The path of a SQLite database is absolute.

    Raises:
        UnusableError: If the URI is not allowed, or its server or database cannot be reached.
    """
    uri = normalised(uri)
    if is_sqlite(uri):
        return _sqlite(uri, create)
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise UnusableError(f"its host or port is not valid; {_ALLOWED}") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme in SERVERS:
        if not parts.hostname:
            raise UnusableError(f"names no host; {_ALLOWED}")
        _check_server(uri)
        return uri.rstrip("/")
    if scheme not in _DATABASES:
        raise UnusableError(f"unknown kind (MLflow no longer keeps runs in plain files); {_ALLOWED}")
    try:
        socket.create_connection((parts.hostname or "localhost", port or _PORTS[scheme]), TIMEOUT).close()
    except (OSError, UnicodeError) as error:
        raise UnusableError(f"the database cannot be reached: {error}") from None
    return uri


def _sqlite(uri: str, create: bool) -> str:
    """Make the path absolute, because a Ray worker runs in another directory, and make its folder."""
    try:
        path = sqlite_path(uri)
        assert path is not None
        path = path.absolute()
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
        elif not path.is_file():
            raise UnusableError("no such database")
    except ValueError as error:
        raise UnusableError(str(error)) from None
    except OSError as error:
        raise UnusableError(f"cannot be written: {error.strerror}") from None
    return sqlite_address(path)


def sqlite_file(uri: str) -> Path:
    """Return the file of a SQLite tracking URI that `check_uri` returned."""
    path = sqlite_path(uri)
    assert path is not None
    return path


def _check_server(uri: str) -> None:
    """Send the two requests that every client sends first, with a limit for the time and the size of the answers."""
    import requests

    hint = "start it (`mlflow server`), or pass another --tracking-uri"
    for path in ("health", "api/2.0/mlflow/experiments/get-by-name?experiment_name=coldtune"):
        address = f"{uri.rstrip('/')}/{path}"
        try:
            within(2 * TIMEOUT, lambda address=address: _read_bounded(address))  # type: ignore[misc]
        except TimeoutError:
            raise UnusableError(f"the server cannot be reached (no answer within {2 * TIMEOUT} s); {hint}") from None
        except (requests.RequestException, OSError, UnicodeError) as error:
            late = isinstance(error, requests.Timeout)
            reason = f"no answer within {TIMEOUT} s" if late else _cause(error)
            raise UnusableError(f"the server cannot be reached ({reason}); {hint}") from None


def _read_bounded(address: str) -> None:
    import requests

    with requests.get(address, timeout=TIMEOUT, stream=True) as response:
        read = 0
        for chunk in response.iter_content(2**14):
            read += len(chunk)
            if read > _LONGEST_ANSWER:
                raise UnusableError(f"answers more than {_LONGEST_ANSWER:,} bytes, so it is not an MLflow server")


def _cause(error: BaseException) -> str:
    """Return the operating system's reason in a chain of wrapped network errors."""
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "No route to host", "certificate verify failed"):
        if known in text:
            return known.lower()
    return (text.splitlines() or [type(error).__name__])[0][:200]
