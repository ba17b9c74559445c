"""When a trial is tried again, and when a study stops by itself rather than burn its budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coldtune.studies.preflight.capacity import Room
from coldtune.studies.progress.events import Events, StoppedError
from coldtune.studies.worker.timeout import spoken

STOPPED = 3
"""The exit code of a study that stopped by itself: its trials fail, or the cluster has become too small."""

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)[a-z]*\s*")


@dataclass(frozen=True)
class Limits:
    """What a study puts up with; none of it changes what the study is.

    retries: how often a trial whose process died is started again; it goes on from its last checkpoint.
    max_failures: so many trials that fail one after the other, none between them ending well, stop the study; 0: never.
    trial_timeout: seconds that a trial may run (waiting not counted) before it counts as failed; None: for ever.
    patience: seconds to wait while the cluster is too small for even one trial.
    """

    retries: int = 2
    max_failures: int = 5
    trial_timeout: float | None = None
    patience: float = 600.0

    def __post_init__(self) -> None:
        for flag, value in (("--retries", self.retries), ("--max-failures", self.max_failures)):
            if value < 0:
                raise ValueError(f"{flag} {value}: 0 or more")


def seconds(flag: str, text: str) -> float:
    """The duration `text` of a command line's `flag` in seconds: 90s, 30m, 1h30m, 1.5 hours. ValueError otherwise."""
    compact = text.strip().lower()
    parts = _PART.findall(compact)
    if _PART.sub("", compact) or not parts:
        unit = "; say the unit" if re.fullmatch(r"[\d.]+", compact) else ""
        raise ValueError(f"{flag} {text}: not a duration{unit}; allowed are such as 90s, 30m, 2h, 1h30m")
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if total <= 0:
        raise ValueError(f"{flag} {text}: must be longer than nothing")
    return total


class Stops(Events):
    """Stops a study (StoppedError out of `tick`) whose trials all fail, or that has no room for a long time.

    say: shows a person a sentence.
    """

    def __init__(self, limits: Limits, room: Room, say: Callable[[str], None]) -> None:
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
