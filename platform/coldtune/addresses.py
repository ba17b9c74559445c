"""Addresses of servers, databases and buckets: hide their passwords, keep passwords apart, make SQLite paths absolute.

An address is a URL such as `postgresql://USER:PASSWORD@HOST/DATABASE`. `redact` is the only function that prepares an
address, or a text that may contain addresses, for people and for servers. `without_password` prepares an address for a
file. Python's URL parser is too strict for both, because people write passwords that contain `@`, `/`, `:` or `#`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

HIDDEN = "***"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
# A host, perhaps with a port. A single word with a port could be a user with a password of digits before a slash.
_HOST = re.compile(r"(?:localhost|[\w\-]+(?:\.[\w\-]+)+|\[[0-9A-Fa-f:.%]+\])(?::\d*)?|[\w.\-]*")
_WHOLE = re.compile(r"(?P<user>[^/?#@]*)@(?P<rest>[^/?#@]*(?:/[^?#@]*)?(?:\?[\w.%\-\[\]]+=.*)?)", re.DOTALL)
_BARE = re.compile(r"(?<![\w/@.\-])[\w.+%\-]*:(?!//)[^\s/@]\S*@(?=[\w\[])")

_SECRET = (
    r"[\w.\-]*(?:passw(?:or)?d|passphrase|passcode|pwd|secret|token|api[_\-]?key|access[_\-]?key|account[_\-]?key"
    r"|credentials?|signature)(?:[_\-]?(?:id|key))?"
)
_SECRET_NAME = re.compile(rf"(?:{_SECRET}|sas|sig|auth)", re.IGNORECASE)
_VALUE = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\{[^}]*\}|(?:\\.|[^\s\\])+"
_ASSIGNED = re.compile(rf"(?<![\w.\-])(?P<head>{_SECRET}\s*=\s*)(?!\*\*\*)(?:{_VALUE})", re.IGNORECASE)
_QUOTED = re.compile(rf"(?P<head>(?P<quote>['\"]){_SECRET}(?P=quote)\s*:\s*)(?!\*\*\*)(?:{_VALUE})", re.IGNORECASE)
_HEADER = re.compile(r"(?P<head>authorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?)[^\s'\",]+", re.IGNORECASE)

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]*)(?P<query>\?.*)?")
_SQLITE_OPTIONS = {"timeout", "isolation_level", "cached_statements", "detect_types", "uri", "mode", "cache", "vfs"}


def redact(text: str) -> str:
    """Remove user names and passwords from an address, or from a text that may contain addresses.

    If the text is ambiguous, more is removed rather than less. Secret parameters (`password=...`, `token=...`) keep
    their names, and their values become `***`.
    """
    parts, position = [], 0
    while (found := _SCHEME.search(text, position)) is not None:
        parts.append(_without_bare_users(text[position : found.end()]))
        begin, position = found.end(), _end(text, found.end())
        parts.append(_redact_rest(text[begin:position]))
    parts.append(_without_bare_users(text[position:]))
    text = _HEADER.sub(rf"\g<head>{HIDDEN}", "".join(parts))
    return _QUOTED.sub(rf"\g<head>{HIDDEN}", _ASSIGNED.sub(rf"\g<head>{HIDDEN}", text))


def without_password(address: str) -> str:
    """Return an address for a file: without its password, and without parameters that are secrets.

    A database keeps its user name. A web server or a bucket keeps no name, because a token or a key may stand there.
    """
    scheme = _SCHEME.match(address)
    if scheme is None:
        return address
    user, rest = _split(address[scheme.end() :])
    named = _is_database(address) or user == "anonymous"  # `gs://anonymous@BUCKET` asks for no credentials
    name = user.partition(":")[0] if named else ""
    return f"{scheme.group()}{f'{name}@' if name else ''}{_without_secret_parameters(rest)}"


def has_password(address: str) -> bool:
    """Return True if an address holds something that `without_password` removes."""
    return without_password(address) != address


def keys_of(address: str) -> tuple[str, str] | None:
    """Return the key and the secret key in the URL of a bucket, or None if it does not have both."""
    scheme = _SCHEME.match(address)
    user = _split(address[scheme.end() :])[0] if scheme else ""
    key, _, secret = map(unquote, user.partition(":"))
    return (key, secret) if key and secret else None


def normalised(address: str) -> str:
    """Return an address whose user name and password are percent-encoded, so that every library reads it alike."""
    scheme = _SCHEME.match(address)
    if scheme is None:
        return address
    user, rest = _split(address[scheme.end() :])
    return f"{scheme.group()}{_encoded(user)}{rest}" if user else address


def words_without_passwords(words: Iterable[str]) -> list[str]:
    """Return the words of a command line with every address, also in `--flag=ADDRESS`, as `without_password` does."""
    changed = []
    for word in words:
        flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        changed.append(f"{flag}{equals}{without_password(value)}")
    return changed


@dataclass(frozen=True)
class Passwords:
    """The passwords of a study's servers, from a file that the user named and from the environment.

    Attributes:
        named: By name (`PGPASSWORD`, `MYSQL_PWD`, `MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_PASSWORD`).
        single: The only line of a file without names. It belongs to the study's database, or else to its server.
    """

    named: Mapping[str, str]
    single: str = ""

    @classmethod
    def read(cls, path: Path | None) -> Passwords:
        """Read the file of `--password-file`. Without a file, only the environment is read.

        Raises:
            ValueError: If the file cannot be read, or a line is not `NAME=PASSWORD` with a known name.
        """
        known = {name: os.environ[name] for name in (*_VARIABLES, _USERNAME) if os.environ.get(name)}
        if path is None:
            return cls(known)
        lines = [line for line in _read_lines(path) if line.strip() and not line.startswith("#")]
        if len(lines) == 1 and not re.match(r"[A-Z_]+=", lines[0]):
            return cls(known, lines[0])
        for number, line in enumerate(lines, 1):
            name, equals, value = line.partition("=")
            if not equals or name.strip() not in (*_VARIABLES, _USERNAME):
                raise ValueError(
                    f"--password-file {path}: line {number} is not NAME=PASSWORD; allowed names: "
                    f"{', '.join((*_VARIABLES, _USERNAME))}, or a file of one line with the password alone"
                )
            known[name.strip()] = value
        return cls(known)

    def complete(self, address: str, single: bool = True) -> str:
        """Return an address with its password, if this knows one and the address has none.

        libpq itself reads PGPASSWORD and ~/.pgpass, and MLflow reads its own variables. So only what they cannot know
        is added here.

        Args:
            single: Whether the only line of a file without names belongs to this address.
        """
        scheme = _SCHEME.match(address)
        if scheme is None:
            return address
        user, rest = _split(address[scheme.end() :])
        name, _, password = user.partition(":")
        if password:
            return normalised(address)
        web = scheme.group().startswith("http")
        password = self.named.get(password_variable(address), "") or (self.single if single else "")
        name = unquote(name) or (self.named.get(_USERNAME, "") if web else "")
        if not password or not name or address.startswith("sqlite") or not (web or _is_database(address)):
            return address
        return f"{scheme.group()}{quote(name, safe='')}:{quote(password, safe='')}@{rest}"


_VARIABLES = ("PGPASSWORD", "MYSQL_PWD", "MLFLOW_TRACKING_PASSWORD")
_USERNAME = "MLFLOW_TRACKING_USERNAME"


def password_variable(address: str) -> str:
    """Return the environment variable from which the password of an address is taken, or "" if there is none."""
    kinds = {"postgres": "PGPASSWORD", "mysql": "MYSQL_PWD", "mariadb": "MYSQL_PWD", "http": "MLFLOW_TRACKING_PASSWORD"}
    return next((name for kind, name in kinds.items() if address.startswith(kind)), "")


def password_hint(address: str) -> str:
    """Return a sentence that says how to give the password of an address."""
    variable = password_variable(address)
    user = f"{_USERNAME} and " if variable == "MLFLOW_TRACKING_PASSWORD" else ""
    return f"set {user}{variable}, or name a file with --password-file" if variable else "use --password-file"


def sqlite_address(path: Path) -> str:
    """Return the address of a SQLite database, for SQLAlchemy and MLflow.

    SQLAlchemy decodes `%..` in the path and ends it at `?`. MLflow would make the folder of the encoded path, unless
    the driver is named.
    """
    text = str(path.absolute())
    if "?" not in text and unquote(text) == text:
        return f"sqlite:///{text}"
    return f"sqlite+pysqlite:///{text.replace('%', '%25').replace('?', '%3F')}"


def sqlite_path(address: str) -> Path | None:
    """Return the path of a SQLite database, as it is written. None for any other address.

    Raises:
        ValueError: If the address names no file, or has options that SQLite does not know.
    """
    if not is_sqlite(address):
        return None
    found = _SQLITE.fullmatch(address)
    path = unquote(found["path"]) if found else ""
    if found is None or not path or path.startswith((":memory:", "file:")):
        raise ValueError("names no file; allowed: sqlite:///PATH")
    options = [part.partition("=")[0] for part in (found["query"] or "?")[1:].split("&") if part]
    if unknown := [name for name in options if name not in _SQLITE_OPTIONS]:
        raise ValueError(f"a question mark begins options, and {unknown[0]!r} is none; write %3F for one in the path")
    return Path(path)


def is_sqlite(address: str) -> bool:
    """Return True for the address of a SQLite database."""
    return re.match(r"sqlite(\+\w+)?:", address) is not None


def at_folder(address: str, folder: Path) -> str:
    """Return an address whose SQLite path, if it is relative, is below `folder`. Other addresses stay.

    Raises:
        ValueError: As `sqlite_path`.
    """
    path = sqlite_path(address)
    if path is None or path.is_absolute():
        return address
    _, question, options = address.partition("?")
    return f"{sqlite_address(folder / path)}{question}{options}"


def is_relative(address: str) -> bool:
    """Return True for a SQLite database whose path is relative to a folder that the address does not name."""
    path = sqlite_path(address)
    return path is not None and not path.is_absolute()


def _is_database(address: str) -> bool:
    scheme = address.partition(":")[0].lower().partition("+")[0]
    return scheme not in ("http", "https", "s3", "gs", "gcs", "databricks")


def _end(text: str, begin: int) -> int:
    """Return where an address ends: at white space, or later if a password contains white space."""
    space = re.search(r"\s", text[begin:])
    end = begin + space.start() if space else len(text)
    authority = re.split(r"[/?#]", text[begin:end], maxsplit=1)[0]
    if "@" not in text[begin:end] and authority.count(":") == 1 and not _HOST.fullmatch(authority.rstrip(":'\",.;)")):
        line = text[begin:].partition("\n")[0]
        if "@" in line and not re.fullmatch(r"[\w\-]+:\d+\W*", authority):
            address = re.match(r".*@\S*", line)
            assert address is not None
            return begin + address.end()
    return end


def _split(rest: str) -> tuple[str, str]:
    """Split the part of an address after `://` into the user with the password, and the remainder."""
    if (whole := _WHOLE.fullmatch(rest)) is not None:
        return whole["user"], whole["rest"]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in rest or ("@" not in authority and _HOST.fullmatch(authority)):
        return "", rest
    user, _, tail = rest.rpartition("@")
    return user, tail


def _without_bare_users(text: str) -> str:
    """Remove `USER:PASSWORD@` before a host, in an address whose scheme was forgotten."""
    return _BARE.sub("", text) if "@" in text else text


def _redact_rest(rest: str) -> str:
    head, question, query = _split(rest)[1].partition("?")
    parameters = re.split(r"([&;#])", query)
    return head + question + "".join(map(_redact_parameter, parameters))


def _redact_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    decoded = unquote(value)
    secret = _SECRET_NAME.fullmatch(unquote(name)) or (decoded != value and redact(decoded) != decoded)
    return f"{name}{equals}{HIDDEN}" if equals and secret else parameter


def _without_secret_parameters(rest: str) -> str:
    head, _, query = rest.partition("?")
    kept = [part for part in query.split("&") if part and _redact_parameter(part) == part]
    return f"{head}?{'&'.join(kept)}" if kept else head


def _encoded(user: str) -> str:
    name, colon, password = user.partition(":")
    return "".join([quote(unquote(name), safe=""), colon, quote(unquote(password), safe=""), "@"])


def _read_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            text = file.read(2**16).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ValueError(f"--password-file {path}: cannot be read: {reason}") from None
    return text.splitlines()
