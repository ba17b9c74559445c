"""The events of a running study, and their listeners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coldtune.studies.storage.outcome import TrialOutcome
    from coldtune.studies.trials.ledger import TrialRequest


class StoppedError(Exception):
    """Raised if a study ends before its last trial because of its own limits. The text says why."""


class Events:
    """A listener to the events of a running study.

    Every method does nothing. A listener overrides the events that it needs.
    """

    def asked(self, request: TrialRequest) -> None:
        """Handle a trial that was handed to the cluster. It may have to wait for resources."""

    def started(self, number: int) -> None:
        """Handle a trial that has its resources and begins."""

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        """Handle a report of a running trial (see `coldtune_trial`)."""

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """Handle a finished trial, after the ledger has recorded its values."""

    def failed(self, number: int, reason: str) -> None:
        """Handle a failed trial, after the ledger has recorded the reason."""

    def pruned(self, number: int, step: int) -> None:
        """Handle a trial that was pruned at a rung, after the ledger has recorded it."""

    def lost(self, number: int) -> None:
        """Handle a trial that another driver took over. That driver reports the end of the trial."""

    def restarted(self, number: int) -> None:
        """Handle a trial whose process died. The cluster starts it again, and it resumes from its last checkpoint."""

    def tick(self) -> None:
        """Run periodic work. Called several times a second. A StoppedError ends the study."""


_EVENTS = [name for name in vars(Events) if not name.startswith("_")]


class EventBroadcast(Events):
    """A listener that passes every event on to several listeners, in their order."""

    def __init__(self, listeners: Sequence[Events]) -> None:
        self._listeners = listeners
        for name in _EVENTS:
            setattr(self, name, partial(self._pass_on, name))

    def _pass_on(self, name: str, *arguments: Any) -> None:
        for listener in self._listeners:
            getattr(listener, name)(*arguments)
