"""The conditions under which a study stops by itself, before it burns its budget."""

from __future__ import annotations

from collections.abc import Callable

from coldtune.durations import format_flag
from coldtune.studies.preflight.capacity import Capacity
from coldtune.studies.preflight.options import Limits
from coldtune.studies.progress.events import Events, StoppedError
from coldtune.studies.storage.outcome import TrialOutcome

STOPPED = 3
"""The exit code of a study that stopped because its trials fail, or because the cluster is too small."""


class StopConditions(Events):
    """A listener that stops a study if its trials keep failing, or if the cluster stays too small for a trial.

    It stops the study by raising StoppedError in `tick`.

    Args:
        say: Shows a sentence to the user.
    """

    def __init__(self, limits: Limits, capacity: Capacity, say: Callable[[str], None]) -> None:
        self._limits, self._capacity, self._say = limits, capacity, say
        self._failures, self._reason = 0, ""  # in a row, and of the last failure
        self._waiting = False  # the user was told that the study waits for nodes

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """Reset the count of failures."""
        self._failures = 0

    def pruned(self, number: int, step: int) -> None:
        """Reset the count of failures, because a pruned trial ran well enough to be measured."""
        self._failures = 0

    def failed(self, number: int, reason: str) -> None:
        """Count the failure."""
        self._failures, self._reason = self._failures + 1, reason

    def tick(self) -> None:
        """Raise StoppedError if a limit is reached. Say when the study begins to wait for nodes, and when they come."""
        if 0 < self._limits.max_failures <= self._failures:
            raise StoppedError(
                f"the last {self._failures} trials failed, one after the other; the last one: "
                f"{self._reason.splitlines()[0][:300]} (--max-failures {self._limits.max_failures})"
            )
        empty, patience = self._capacity.empty_for(), format_flag(self._limits.patience)
        if empty > self._limits.patience:
            raise StoppedError(f"the cluster is too small: {self._capacity}, for {patience} now")
        if empty and not self._waiting:
            self._say(f"waiting for nodes: {self._capacity}; ends in {patience} unless they come")
        elif self._waiting and not empty:
            self._say("the cluster is large enough again")
        self._waiting = bool(empty)
