"""The log of a node's raylet, which alone says that worker processes die while they start."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = "raylet.err"
_CRASHED = "probably it crashed during start"  # Ray writes it 60 s after it started a process that died
_CAUSE = re.compile(r"^bash: |Error|No such file|not found|[Pp]ermission denied")
_PAUSE_S = 1.0
_START_S = 600.0  # Even an overloaded machine starts Ray within minutes.


class RayletLog:
    """The log of a node's raylet.

    Args:
        node: The node in words.
        place: Where the user finds the log.
        text: Its content.
    """

    def __init__(self, node: str, place: str, text: str) -> None:
        self.node, self.place, self._lines = node, place, text.splitlines()

    def crashes(self) -> int:
        """Return how many processes died while they started."""
        return sum(_CRASHED in line for line in self._lines)

    def describe(self) -> str:
        """Say that processes die, what they or their shell wrote, and where the log is."""
        said = [line.strip() for line in self._lines if _CAUSE.search(line) and not line.startswith("[")]
        cause = f" ({said[-1][:200]})" if said else ""
        return (
            f"Ray cannot start worker processes on {self.node}, because they die while they start{cause}. "
            f"Ray's log is {self.place}"
        )


def own_log(logs: Path) -> Iterator[RayletLog]:
    """Yield the log of a Ray on this machine, if it exists.

    Args:
        logs: The folder of Ray's logs.
    """
    path = logs / LOG
    if path.exists():
        yield RayletLog("this machine", str(path), path.read_text(errors="replace"))


@contextmanager
def watch_start(folder: Path) -> Iterator[None]:
    """End this process with exit code 2 if the Ray that the block starts cannot start.

    Ray waits without a limit for its first worker processes, in code that no exception and no Ctrl-C reaches.

    Args:
        folder: The folder for Ray's files.
    """
    started = threading.Event()
    threading.Thread(target=_watch, args=(folder, started), name="coldtune-start", daemon=True).start()
    try:
        yield
    finally:
        started.set()


def _watch(folder: Path, started: threading.Event) -> None:
    begun = time.monotonic()
    while not started.wait(_PAUSE_S):
        reason = ""
        for session in folder.glob(f"session_*_{os.getpid()}"):
            reason = next((log.describe() for log in own_log(session / "logs") if log.crashes()), "")
        if not reason and time.monotonic() - begun > _START_S:
            reason = f"Ray did not start within 10 minutes. Ray's logs are in {folder}/session_latest/logs"
        if reason and not started.is_set():
            print(f"error: {reason}", file=sys.stderr, flush=True)
            os._exit(2)
