"""Tracking URIs: which kinds there are, whether one can be used at all, and how to show one."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 5
"""Seconds after which whoever does not answer is called unreachable."""

SERVERS = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_ALLOWED = "allowed: http(s)://HOST:PORT (an MLflow server), sqlite:///PATH, postgresql://, mysql://, mssql://"


def shown(text: str) -> str:
    """A URI, or a message with URIs in it, without user names and passwords: fit for a terminal or a file."""
    return re.sub(r"//[^/@\s]+@", "//", text)


class UnusableError(Exception):
    """Why a tracking URI cannot be used."""


def checked(uri: str) -> str:
    """`uri` in the form in which it is used (SQLite paths absolute); UnusableError where it names nothing reachable."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise UnusableError(f"{error}; {_ALLOWED}") from None
    scheme = parts.scheme.partition("+")[0]
    if scheme in SERVERS:
        _reach_server(uri)
        return uri.rstrip("/")
    if scheme not in _DATABASES:
        raise UnusableError(f"unknown kind (MLflow keeps no runs in plain files any more); {_ALLOWED}")
    if scheme == "sqlite":
        return _sqlite(uri)
    try:
        socket.create_connection((parts.hostname or "localhost", port or _PORTS[scheme]), TIMEOUT).close()
    except OSError as error:
        raise UnusableError(f"the database cannot be reached: {error}") from None
    return uri


def _sqlite(uri: str) -> str:
    """Absolute (a Ray worker runs elsewhere), with a folder that exists."""
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


def _reach_server(uri: str) -> None:
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=TIMEOUT)
    except requests.RequestException as error:
        hint = "start it (`mlflow server`), or give another --tracking-uri"
        reason = "no answer" if isinstance(error, requests.Timeout) else _cause(error)
        raise UnusableError(f"the server cannot be reached ({reason}); {hint}") from None


def _cause(error: BaseException) -> str:
    """The operating system's word in a chain of wrapped network errors."""
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "No route to host", "certificate verify failed"):
        if known in text:
            return known.lower()
    return text.splitlines()[0][:200]
