"""The surroundings of a command: a submitted Ray job, Ray's copy of a folder, uv, and the default home."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

MOST_THREADS = 1024
"""The largest number of CPU threads that a process may be given."""
ALLOW_CODE = "COLDTUNE_ALLOW_CODE"
"""The environment variable that allows code which a file from elsewhere names."""


def allows_code() -> bool:
    """Return True if the user allows code that a config.yaml, an MLflow run or a study's folder names."""
    return os.environ.get(ALLOW_CODE, "") not in ("", "0")


def submitted() -> bool:
    """Return True if `ray job submit` started this process."""
    return bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))


def local() -> bool:
    """Return True if a study would start Ray on this machine instead of using the cluster of RAY_ADDRESS."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def in_ray_copy(path: Path) -> bool:
    """Return True if `path` lies in Ray's copy of a working directory, which Ray deletes after the job."""
    return "runtime_resources" in path.parts


def default_home() -> Path:
    """Return the home of a command without `--home`: $COLDTUNE_HOME, or else `./runs`.

    A submitted job runs in Ray's copy of its working directory. Its default is `~/coldtune-runs`, which Ray keeps.
    """
    if home := os.environ.get("COLDTUNE_HOME"):
        return expand_path(home, "COLDTUNE_HOME")
    return expand_path("~/coldtune-runs", "the default home") if in_ray_copy(Path.cwd()) else Path.cwd() / "runs"


def ensure_home_variable() -> None:
    """Set HOME if this user has no home folder at all, as in a container. Some libraries refuse to be imported then."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.sep


def expand_path(path: str | Path, name: str) -> Path:
    """Return the absolute path of a path in which a user may have written `~`.

    Args:
        name: The flag or environment variable that holds the path.

    Raises:
        ValueError: If there is no such user, or the user has no home folder.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise ValueError(
            f"{name} {path}: no home folder is known for `{Path(path).parts[0]}`. Write the whole path."
        ) from None


def runner() -> str:
    """Return the prefix of commands that we print for the user: `uv run ` if uv runs this process, or nothing."""
    return "uv run " if "UV" in os.environ or "UV_RUN_RECURSION_DEPTH" in os.environ else ""


def free_port(first: int) -> int:
    """Return the first port from `first` on that no server on this machine uses, for a command that we print."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return first


def shell_command(*words: object) -> str:
    """Return a command that a person can paste into a shell, with the prefix of `runner`. Every word is quoted."""
    return runner() + shlex.join(map(str, words))


def coldtune_command(verb: str, home: Path, *names: object, flags: Sequence[object] = ()) -> str:
    """Return a `coldtune` command that a person can paste into a shell.

    Args:
        verb: The words of the command, such as `study show`.
        home: The home, which the command always names.
        names: The positional arguments. If one begins with a dash, they stand behind `--`.
        flags: Further flags, each followed by its value.
    """
    given = [str(name) for name in names]
    if any(name.startswith("-") for name in given):
        return shell_command("coldtune", *verb.split(), "--home", home, *flags, "--", *given)
    return shell_command("coldtune", *verb.split(), *given, "--home", home, *flags)
