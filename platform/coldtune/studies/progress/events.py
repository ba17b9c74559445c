"""What happens while a study runs, and who listens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coldtune.studies.trials.ledger import TrialRequest


class StoppedError(Exception):
    """A study that ends before its last trial, by its own limits; its text says why."""


class Events:
    """What the executor tells while it runs; a study's view and records override what they need."""

    def asked(self, asked: TrialRequest) -> None:
        """A trial was handed to the cluster, which may have to find room for it."""

    def started(self, number: int) -> None:
        """A trial has its place and begins."""

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        """A running trial reported (see `coldtune_trial`)."""

    def completed(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial has its values, and the ledger knows them."""

    def failed(self, number: int, reason: str) -> None:
        """A trial failed, and the ledger knows why."""

    def pruned(self, number: int, step: int) -> None:
        """A trial ended at a rung, and the ledger knows it."""

    def lost(self, number: int) -> None:
        """Another driver took a trial over, and says what becomes of it."""

    def restarted(self, number: int) -> None:
        """A trial's process died; the cluster starts it again, and it goes on from its last checkpoint."""

    def tick(self) -> None:
        """Called several times a second, whether or not anything happened. A StoppedError ends the study."""


_EVENTS = [name for name in vars(Events) if not name.startswith("_")]


class EventBroadcast(Events):
    """Several listeners as one: each hears of everything, in the order in which they are given."""

    def __init__(self, listeners: Sequence[Events]) -> None:
        self._listeners = listeners
        for name in _EVENTS:
            setattr(self, name, partial(self._each, name))

    def _each(self, name: str, *what: Any) -> None:
        for listener in self._listeners:
            getattr(listener, name)(*what)
