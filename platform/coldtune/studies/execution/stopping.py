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
    """A listener that stops a study whose trials all fail, or for which the cluster is too small for a long time.

    The study stops by a StoppedError from `tick`.

    Args:
        say: Shows a sentence to the user.
    """

    def __init__(self, limits: Limits, capacity: Capacity, say: Callable[[str], None]) -> None:
        self._limits, self._capacity, self._say = limits, capacity, say
        self._failed, self._why = 0, ""
        self._told = False

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """Reset the count of failures."""
        self._failed = 0

    def pruned(self, number: int, step: int) -> None:
        """Reset the count of failures, because a pruned trial ran well enough to be measured."""
        self._failed = 0

    def failed(self, number: int, reason: str) -> None:
        """Count the failure."""
        self._failed, self._why = self._failed + 1, reason

    def tick(self) -> None:
        """Check both limits."""
        if 0 < self._limits.max_failures <= self._failed:
            raise StoppedError(
                f"the last {self._failed} trials failed, one after the other; the last one: "
                f"{self._why.splitlines()[0][:300]} (--max-failures {self._limits.max_failures})"
            )
        empty, patience = self._capacity.empty_for(), format_flag(self._limits.patience)
        if empty > self._limits.patience:
            raise StoppedError(f"the cluster is too small: {self._capacity}, for {patience} now")
        if empty and not self._told:
            self._say(f"waiting for nodes: {self._capacity}; ends in {patience} unless they come")
        elif self._told and not empty:
            self._say("the cluster has room again")
        self._told = bool(empty)
