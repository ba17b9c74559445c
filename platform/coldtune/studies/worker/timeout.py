"""How long a trial may run: told at its next report, or ended by force where none comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from coldtune.durations import format_flag

_GRACE_S = 60.0  # for a trial to notice by itself; then its process ends, and a fresh one takes the next trial


class LateError(RuntimeError):
    """A trial ran longer than it may; its text is the reason that the study notes."""


class TrialTimeout:
    """The clock of one trial, a context: it counts while the trial runs, not while it waits for work or for room.

    seconds: how long it may run; None: for ever. force: called in a thread of its own with the
    reason, where a trial does not end within `grace` seconds after its time; it must not come back.
    """

    def __init__(self, seconds: float | None, force: Callable[[str], object], grace: float = _GRACE_S) -> None:
        self._seconds, self._force, self._grace = seconds, force, grace
        self._spent, self._since = 0.0, time.monotonic()
        self._paused, self._closed = False, threading.Event()
        self._lock = threading.Lock()

    @property
    def reason(self) -> str:
        """What is said of a trial that is late."""
        return f"ran longer than {format_flag(self._seconds or 0.0)} (--trial-timeout)"

    def ran(self) -> float:
        """Seconds that count."""
        with self._lock:
            return self._spent + (0.0 if self._paused else time.monotonic() - self._since)

    def pause(self) -> None:
        """What follows is waiting."""
        with self._lock:
            if not self._paused:
                self._spent += time.monotonic() - self._since
            self._paused = True

    def resume(self) -> None:
        """What follows counts."""
        with self._lock:
            if self._paused:
                self._since = time.monotonic()
            self._paused = False

    def check(self) -> None:
        """LateError where the time is over."""
        if self._seconds is not None and self.ran() > self._seconds:
            raise LateError(self.reason)

    def __enter__(self) -> Self:
        """Watch from here on."""
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
