"""Tracking URIs: the kinds that are allowed, a check that a URI can be used, and a form without passwords."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 5
"""Seconds after which a server that does not answer counts as unreachable."""

SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ALLOWED = "allowed: http(s)://HOST:PORT (an MLflow server), sqlite:///PATH, postgresql://, mysql://, mssql://"


def shown(text: str) -> str:
    """Remove user names and passwords from a URI, or from a message with URIs in it, so that it can be printed."""
    return re.sub(r"//[^/@\s]+@", "//", text)


class UnusableError(Exception):
    """A tracking URI cannot be used. The message says why."""


def check_uri(uri: str) -> str:
    """Check that a tracking URI can be reached.

    Returns:
        The URI in the form in which it is used. The path of a SQLite database is absolute.

    Raises:
        UnusableError: If the URI is not allowed, or its server or database cannot be reached.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise UnusableError(f"{error}; {_ALLOWED}") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme in SERVERS:
        _check_server(uri)
        return uri.rstrip("/")
    if scheme not in _DATABASES:
        raise UnusableError(f"unknown kind (MLflow no longer keeps runs in plain files); {_ALLOWED}")
    if scheme == "sqlite":
        return _sqlite(uri)
    try:
        socket.create_connection((parts.hostname or "localhost", port or _PORTS[scheme]), TIMEOUT).close()
    except OSError as error:
        raise UnusableError(f"the database cannot be reached: {error}") from None
    return uri


def _sqlite(uri: str) -> str:
    """Make the path absolute, because a Ray worker runs in another directory, and make its folder."""
    name = uri.removeprefix("sqlite:///")
    if name == uri or not name or name.startswith(":memory:"):
        raise UnusableError("names no file; allowed: sqlite:///PATH")
    path = Path(name).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise UnusableError(f"cannot be written: {error.strerror}") from None
    return f"sqlite:///{path}"


def _check_server(uri: str) -> None:
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=TIMEOUT)
    except requests.RequestException as error:
        hint = "start it (`mlflow server`), or pass another --tracking-uri"
        reason = "no answer" if isinstance(error, requests.Timeout) else _cause(error)
        raise UnusableError(f"the server cannot be reached ({reason}); {hint}") from None


def _cause(error: BaseException) -> str:
    """Return the operating system's reason in a chain of wrapped network errors."""
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "No route to host", "certificate verify failed"):
        if known in text:
            return known.lower()
    return text.splitlines()[0][:200]
