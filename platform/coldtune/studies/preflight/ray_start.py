"""The start of a study's own Ray: its private folder, its token, and the causes that would keep it from starting.

`check_ray` finds such causes before anything is spent, and `prepare` sets what Ray needs.

Everything here is checked or set before Ray is imported. A cause that stays is a ValueError with what to do about it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from coldtune.environment import local

_SOCKET_PATH = 107 if sys.platform == "linux" else 103  # bytes that the system allows in the path of a socket
_LONGEST_SOCKET = len("/session_2026-01-31_00-00-00_123456_1234567/sockets/dash_TaskEventsHead")
_LONGEST_LISTENER = len("/pymp-12345678/listener-12345678")  # of Python's multiprocessing, which Ray's dashboard uses
_UNUSABLE = "'\\"  # Ray's own parsing of commands takes these characters as quotes
_BASH_S = 60.0  # a busy machine may need seconds to start Python
_MOVE = "Move the virtual environment, for example with UV_PROJECT_ENVIRONMENT=/path/to/.venv"


@dataclass(frozen=True)
class OwnRay:
    """How a study starts its own Ray.

    Attributes:
        folder: The folder for Ray's files. Ray opens it to all users, so it lies in a folder that only this user can
            enter.
        python: The Python of worker processes as Ray's runtime environment takes it, or "" if Ray's default works.
        notes: Warnings for the user, a sentence or two each.
    """

    folder: Path
    python: str
    notes: tuple[str, ...]


def check_ray() -> None:
    """Raise ValueError if Ray cannot start on this machine, or if no cluster answers at RAY_ADDRESS."""
    if local():
        _check_python()
        _ray_folder()
        _check_token_file()
    else:
        check_reachable(os.environ["RAY_ADDRESS"])


def prepare() -> OwnRay:
    """Check that Ray can start on this machine, and set the environment that it starts with.

    Raises:
        ValueError: If Ray cannot start here until the user changes something. The message says what.
    """
    python = _check_python()
    folder = _ray_folder()
    _shorten_tmpdir(folder)
    return OwnRay(folder, python, tuple(_set_token(folder.parent)))


def check_reachable(address: str) -> None:
    """Raise ValueError if `address` cannot be a cluster's, or if nothing answers there. Ray would try for minutes."""
    if address == "auto":
        return  # Ray finds the cluster of this machine
    if address.startswith("ray://"):
        raise ValueError(f"RAY_ADDRESS = {address}: a study runs inside its cluster. Start it with `ray job submit`.")
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            f"RAY_ADDRESS = {address!r}: allowed: HOST:PORT of a cluster's GCS, such as 127.0.0.1:6379, or auto. Unset "
            "it to start Ray on this machine."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"RAY_ADDRESS = {address}: no cluster answers there ({error}). Unset it to start Ray on this machine."
        ) from None


def _check_python() -> str:
    """Check that Ray can start worker processes with this Python, and return `OwnRay.python`."""
    if sys.flags.optimize > 1:
        raise ValueError("PYTHONOPTIMIZE=2 or -OO drops docstrings, which Ray needs. Use PYTHONOPTIMIZE=1.")
    executable = sys.executable
    spec = importlib.util.find_spec("ray")
    for path in (executable, spec.origin if spec and spec.origin else ""):
        if bad := next((character for character in path if character in _UNUSABLE), ""):
            raise ValueError(f"{path!r}: Ray cannot start from a path that contains {bad!r}. {_MOVE}.")
    if shutil.which("bash") is None:
        raise ValueError("bash is not on PATH, and Ray starts its worker processes with it. Install bash.")
    quoted = shlex.quote(executable)
    command = ["bash", "-c", f"exec {quoted} -S -c ''"]  # as Ray does
    try:
        done = subprocess.run(command, capture_output=True, timeout=_BASH_S, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"`{shlex.join(command)}` does not end, and Ray starts its worker processes so.") from None
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        advice = "" if "BASH_ENV" not in os.environ else " Check the file that BASH_ENV names, or unset BASH_ENV."
        raise ValueError(f"`{shlex.join(command)}` fails ({said}), and Ray starts its worker processes so.{advice}")
    # Ray does not quote the executable. In a runtime environment it may be a command with arguments.
    return quoted if quoted != executable else ""


def _ray_folder() -> Path:
    """Return a folder for Ray's files that only this user can reach, with a path that is short enough for sockets.

    It lies in RAY_TMPDIR if that is set. Otherwise it lies in TMPDIR, or in /tmp if TMPDIR cannot be used.

    Raises:
        ValueError: If RAY_TMPDIR cannot be used, or if none of the folders can.
    """
    if explicit := os.environ.get("RAY_TMPDIR"):
        roots = {"RAY_TMPDIR": explicit}
    else:
        roots = {"TMPDIR": os.environ.get("TMPDIR", ""), "/tmp": "/tmp", "/var/tmp": "/var/tmp"}
    problems = []
    for name, root in roots.items():
        if not root:
            continue
        try:
            return _private_folder(Path(root).absolute())
        except (OSError, ValueError) as error:
            problems.append(f"{name if name == root else f'{name} = {root}'}: {_explain(error)}")
    raise ValueError(
        f"{'. '.join(problems)}. Set RAY_TMPDIR to a folder with a short path that you can write to, such as /tmp/me."
    )


def _explain(error: OSError | ValueError) -> str:
    reason = f"Ray cannot use it ({error.strerror})" if isinstance(error, OSError) else str(error)
    return reason[:1].lower() + reason[1:] if not reason.startswith("Ray") else reason


def _private_folder(root: Path) -> Path:
    """Make a private folder for Ray in `root` and return it. If `root` is private itself, it needs no further one."""
    root.mkdir(parents=True, exist_ok=True)
    parent = root if _is_private(root) else root / f"coldtune-{os.getuid()}"
    if parent != root:
        with suppress(FileExistsError):
            parent.mkdir(mode=0o700)
        if parent.is_symlink() or not parent.is_dir() or parent.stat().st_uid != os.getuid():
            # Another user made it, perhaps to read what we write there.
            parent = Path(tempfile.mkdtemp(prefix="ct-", dir=root))
        parent.chmod(0o700)
    folder = parent / "ray"
    longest = _SOCKET_PATH - _LONGEST_SOCKET
    if (length := len(os.fsencode(folder))) > longest:
        raise ValueError(f"Ray needs a path for its sockets that is at least {length - longest} bytes shorter")
    if bad := next((character for character in str(folder) if character in _UNUSABLE), ""):
        raise ValueError(f"Ray cannot use a path that contains {bad!r}")
    folder.mkdir(exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()  # tells more than permissions, for example of a full or read-only disk
    return folder


def _is_private(folder: Path) -> bool:
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o077


def _shorten_tmpdir(folder: Path) -> None:
    """Give this process and Ray another TMPDIR if the path of the user's is too long for sockets in it."""
    tmpdir = os.environ.get("TMPDIR", "")
    if len(os.fsencode(tmpdir)) + _LONGEST_LISTENER > _SOCKET_PATH:
        os.environ["TMPDIR"] = str(folder.parent)
        tempfile.tempdir = None  # otherwise the module keeps the folder that it has found before


def _set_token(private: Path) -> Iterator[str]:
    """Choose the token of a Ray that is started here, make it if it is missing, and yield warnings about its file.

    The user's own choice (RAY_AUTH_MODE, RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH) stays. Otherwise the token is in Ray's
    default file, because `ray get-auth-token` reads that, or in `private` if the user's home folder cannot be written.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"].lower() == "token" and not os.environ.get("RAY_AUTH_TOKEN"):
        _check_token_file()
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        yield from token_warnings(Path(named) if named else _make_token(private))


def _check_token_file() -> None:
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named and not os.environ.get("RAY_AUTH_TOKEN") and not _readable(Path(named)):
        raise ValueError(f"RAY_AUTH_TOKEN_PATH = {named}: cannot be read. Name a file that holds a token.")


def _make_token(private: Path) -> Path:
    """Return the file of the user's token. Only its owner can read a file that is made here."""
    with suppress(OSError, RuntimeError):  # RuntimeError if this user has no home folder at all
        default = default_token_file()
        default.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_token(default)
        return default
    path = private / "auth_token"
    _write_token(path)
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)
    return path


def default_token_file() -> Path:
    """Return the file in which Ray looks for a token by default. RuntimeError if this user has no home folder."""
    return Path.home() / ".ray" / "auth_token"


def token_warnings(path: Path) -> Iterator[str]:
    """Yield a warning if other users of this machine may read the token in `path`, and so run code as its owner."""
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            yield (
                f"{path} can be read by other users of this machine, and its token lets them run code as you. "
                f"Run `chmod 600 {shlex.quote(str(path))}`."
            )


def _write_token(path: Path) -> None:
    """Write a new token, unless the file has one. Of several processes that do so at once, the first one wins.

    Raises:
        OSError: If the file can be neither read nor written.
    """
    if _readable(path):
        return
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".auth_token-", delete=False) as file:
        file.write(secrets.token_hex(32))  # the file has mode 600 from its beginning
    new = Path(file.name)
    try:
        if path.exists() and not path.stat().st_size:
            new.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
    path.read_bytes()


def _readable(path: Path) -> bool:
    """Return True if the file can be read and is not empty. ValueError is not raised for a folder."""
    try:
        return bool(path.read_bytes().strip())
    except OSError:
        return False
