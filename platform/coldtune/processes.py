"""Which process one is, and whether another one still lives, as far as one machine can tell."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """What others know this process by: its host, id, when it started, and where its id means the same."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "process": _started(pid), "space": _space()}


def here(other: Mapping[str, Any]) -> bool:
    """Whether `other` (as by `this_process`) ran on this boot of this machine, in this pid namespace."""
    return bool(other.get("space")) and other["space"] == _space()


def gone(other: Mapping[str, Any]) -> bool:
    """Whether `other` is known to be dead: a process of this machine and pid namespace that is no longer there."""
    return here(other) and _started(int(other["pid"])) != str(other["process"])


@cache
def _space() -> str | None:
    """Where process ids mean the same: this boot of this machine, this pid namespace; None where it cannot be told."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When process `pid` started, which tells it from a later one of the same id; None where it is not running."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started
