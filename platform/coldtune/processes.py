"""The identity of this process, and whether another process is still alive, as far as this machine can tell."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """Return the identity of this process: host, process id, start time and the namespace of the id."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "process": _started(pid), "space": _space()}


def is_process(other: Any) -> bool:
    """Return whether `other`, which was read from a file, has the form of what `this_process` returns."""
    if not isinstance(other, Mapping):
        return False
    types = {"host": str, "pid": int, "process": str | None, "space": str | None}
    return all(isinstance(other.get(key), kind) for key, kind in types.items())


def here(other: Mapping[str, Any]) -> bool:
    """Return True if `other`, as made by `this_process`, ran on this boot of this machine and in this pid namespace."""
    return bool(other.get("space")) and other["space"] == _space()


def gone(other: Mapping[str, Any]) -> bool:
    """Return True if `other` is known to be dead: a process of this machine and pid namespace that no longer exists."""
    return here(other) and _started(int(other["pid"])) != str(other["process"])


@cache
def _space() -> str | None:
    """Return the namespace of process ids: this boot of this machine and this pid namespace. None if it is unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """Return when process `pid` started, or None if it is not running.

    The start time tells a process from a later process with the same id.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started
