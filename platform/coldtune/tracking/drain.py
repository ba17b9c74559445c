"""Delivering whole directories of spools: once, or for as long as a process lives."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from coldtune.tracking.deliver import ParentMissingError, drain_spool
from coldtune.tracking.runs import Runs
from coldtune.tracking.server import Target, shown
from coldtune.tracking.spool import STUDY, Spool, spools

_LOG = logging.getLogger("coldtune.tracking")
_MAX_BACKOFF = 30.0


@dataclass(frozen=True)
class Drained:
    """What is left after draining a directory: bytes not delivered, and why."""

    pending: int
    error: str | None = None


def drain(directory: Path, target: Target) -> Drained:
    """Deliver all that the spools of `directory` still hold, once, in order; what fails stays for the next time.

    Never raises for an unreachable server: `error` says so. Spools that another process is delivering are left to it.
    """
    try:
        runs = Runs(target)
    except Exception as failure:
        return Drained(pending(directory, target), _why(failure, target))
    error = None
    for spool in spools(directory):
        try:
            drain_spool(spool, runs)
        except ParentMissingError as missing:
            error = str(missing)
        except Exception as failure:
            error = _why(failure, target)
            if not runs.reachable():
                break
    return Drained(pending(directory, target), error)


def pending(directory: Path, target: Target) -> int:
    """Bytes that wait in the spools of `directory` for delivery to `target`."""
    return sum(max(0, spool.size() - spool.state(target.key).offset) for spool in spools(directory))


class Drainer:
    """A background thread that delivers a directory of spools, or the one called `name`, while others append to it.

    It never raises into the process: in an outage it tries again after 1, 2, 4, ... 30 s and says so once, through
    the logger `coldtune.tracking`. Any number of drainers may watch one directory.
    """

    def __init__(self, directory: Path, target: Target, *, name: str | None = None, interval: float = 1.0) -> None:
        self.directory = directory
        self.target = target
        self.error: str | None = None
        self._name = name
        self._interval = interval
        self._delivered: dict[str, int] = {}
        self._runs: Runs | None = None
        self._wake = threading.Event()
        self._stop = False
        self._failures = 0
        self._passes = 0
        self._thread = threading.Thread(target=self._loop, name="coldtune-drain", daemon=True)
        self._thread.start()

    def pending(self) -> int:
        """Bytes that wait for delivery."""
        if self._name is None:
            return pending(self.directory, self.target)
        spool = Spool(self.directory, self._name)
        return max(0, spool.size() - spool.state(self.target.key).offset)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was appended before this call is delivered; False after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.pending():
            if time.monotonic() >= deadline or not self._thread.is_alive():
                return False
            self._wake.set()
            time.sleep(0.05)
        return True

    def close(self, timeout: float = 10.0) -> bool:
        """Deliver what is left, for at most `timeout` seconds and not at all in an outage; True when nothing is left.

        What is left stays in the spool for the next drainer.
        """
        deadline = time.monotonic() + timeout
        while self.error is None and self._thread.is_alive() and time.monotonic() < deadline and self.pending():
            self._wake.set()
            time.sleep(0.02)
        self._stop = True
        self._wake.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) if self.error is None else 0.0)
        return self.pending() == 0

    def _loop(self) -> None:
        while not self._stop:
            self._pass()
            backoff = min(_MAX_BACKOFF, 2.0 ** (self._failures - 1)) if self._failures else self._interval
            self._wake.wait(backoff)
            self._wake.clear()

    def _pass(self) -> None:
        error = None
        try:
            self._runs = self._runs or Runs(self.target)
            for spool in self._grown():
                error = self._try(spool, self._runs) or error
        except Exception as failure:
            error = _why(failure, self.target)
        if error is not None and self.error is None:
            _LOG.warning("%s; what is logged waits in %s", error, self.directory)
        elif error is None and self.error is not None:
            _LOG.warning("tracking: %s answers again; what had waited was sent", shown(self.target.uri))
        self._failures = 0 if error is None else self._failures + 1
        self.error = error

    def _try(self, spool: Spool, runs: Runs) -> str | None:
        """Deliver one spool; its trouble is given back, and raised where the server itself does not answer."""
        size = spool.size()
        try:
            # A trial may have had to make its study's run anew, so the study's spool is looked at every time.
            if drain_spool(spool, runs) and spool.name != STUDY:
                self._delivered[spool.name] = size
        except ParentMissingError as missing:
            _LOG.debug("%s", missing)
        except Exception as failure:
            if not runs.reachable():
                raise
            return _why(failure, self.target)
        return None

    def _grown(self) -> list[Spool]:
        """The spools that have grown since they were last delivered whole: a stat each, no reading."""
        if self._name is not None:
            found = [Spool(self.directory, self._name)]
        elif self.directory.is_dir():
            found = spools(self.directory)
        else:
            found = []
        return [spool for spool in found if spool.size() > self._delivered.get(spool.name, 0)]


def _why(error: Exception, target: Target) -> str:
    text = str(error).strip().splitlines()
    return (
        f"tracking: {shown(target.uri)} does not take what is sent ({text[0][:200] if text else type(error).__name__})"
    )
