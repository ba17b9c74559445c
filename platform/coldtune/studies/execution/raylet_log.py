"""The log of a node's raylet, which alone says that worker processes die while they start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LOG = "raylet.err"
_CRASHED = "probably it crashed during start"  # Ray writes it 60 s after it started a process that died
_CAUSE = re.compile(r"^bash: |Error|No such file|not found|[Pp]ermission denied")


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
        yield RayletLog("this machine", str(path), path.read_text(encoding="utf-8", errors="replace"))
