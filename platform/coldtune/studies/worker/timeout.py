"""The time limit of a trial, which fails at its next report, or is ended by force if no report comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from coldtune.durations import format_flag

_GRACE_S = 60.0  # time for a late trial to notice its limit; then its process ends, and a new process takes over


class LateError(RuntimeError):
    """Raised if a trial ran longer than it may. Its text is the reason that the study stores."""


class TrialTimeout:
    """The clock of a trial. It stands still while the trial waits for other trials or for the cluster.

    As a context, it watches the trial and ends it by force if it hangs.
    """

    def __init__(self, seconds: float | None, force: Callable[[str], object], grace: float = _GRACE_S) -> None:
        """Create the clock, which runs at once.

        Args:
            seconds: How long the trial may run. None: no limit.
            force: Called with the reason, in a thread of its own, if the trial does not end within `grace` seconds
                after its limit. It must not return.
        """
        self._seconds, self._force, self._grace = seconds, force, grace
        self._spent, self._since = 0.0, time.monotonic()
        self._paused, self._closed = False, threading.Event()
        self._lock = threading.Lock()

    @property
    def reason(self) -> str:
        """The reason for the failure of a late trial."""
        return f"ran longer than {format_flag(self._seconds or 0.0)} (--trial-timeout)"

    def ran(self) -> float:
        """Return the seconds that count."""
        with self._lock:
            return self._spent + (0.0 if self._paused else time.monotonic() - self._since)

    @property
    def paused(self) -> bool:
        """True while the clock stands still."""
        return self._paused

    def pause(self) -> None:
        """Stop the clock, because the trial waits."""
        with self._lock:
            if not self._paused:
                self._spent += time.monotonic() - self._since
            self._paused = True

    def resume(self) -> None:
        """Start the clock again."""
        with self._lock:
            if self._paused:
                self._since = time.monotonic()
            self._paused = False

    def check(self) -> None:
        """Raise LateError if the trial has run longer than it may."""
        if self._seconds is not None and self.ran() > self._seconds:
            raise LateError(self.reason)

    def __enter__(self) -> Self:
        """Start to watch the trial."""
        if self._seconds is not None:
            threading.Thread(target=self._watch, name="coldtune-deadline", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()

    def _watch(self) -> None:
        assert self._seconds is not None
        while (left := self._seconds + self._grace - self.ran()) > 0:
            if self._closed.wait(max(min(left, 1.0), 0.01)):
                return
        if not self._closed.is_set():
            self._force(self.reason)
