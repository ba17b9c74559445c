"""When a trial is tried again, and when a study stops by itself rather than burn its budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coldtune.studies.preflight.capacity import Capacity
from coldtune.studies.preflight.options import Limits
from coldtune.studies.progress.events import Events, StoppedError
from coldtune.studies.worker.timeout import spoken

STOPPED = 3
"""The exit code of a study that stopped by itself: its trials fail, or the cluster has become too small."""


class StopConditions(Events):
    """Stops a study (StoppedError out of `tick`) whose trials all fail, or that has no room for a long time.

    say: shows a person a sentence.
    """

    def __init__(self, limits: Limits, room: Capacity, say: Callable[[str], None]) -> None:
        self._limits, self._room, self._say = limits, room, say
        self._failed, self._why = 0, ""
        self._told = False

    def completed(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial that ends well begins the count anew."""
        self._failed = 0

    def pruned(self, number: int, step: int) -> None:
        """So does one that was well enough to be judged."""
        self._failed = 0

    def failed(self, number: int, reason: str) -> None:
        """Count it."""
        self._failed, self._why = self._failed + 1, reason

    def tick(self) -> None:
        """Look at both limits."""
        if 0 < self._limits.max_failures <= self._failed:
            raise StoppedError(
                f"the last {self._failed} trials failed, one after the other; the last one: "
                f"{self._why.splitlines()[0][:300]} (--max-failures {self._limits.max_failures})"
            )
        empty = self._room.empty_for()
        if empty > self._limits.patience:
            raise StoppedError(f"the cluster is too small: {self._room}, for {spoken(self._limits.patience)} now")
        if empty and not self._told:
            self._say(f"waiting for nodes: {self._room}; ends in {spoken(self._limits.patience)} unless they come")
        elif self._told and not empty:
            self._say("the cluster has room again")
        self._told = bool(empty)
