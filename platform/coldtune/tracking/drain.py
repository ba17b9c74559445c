"""Delivering whole directories of spools: once, or for as long as a process lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coldtune.tracking.deliver import ParentMissingError, drain_spool
from coldtune.tracking.runs import Runs
from coldtune.tracking.server import Target
from coldtune.tracking.spool import STUDY, Spool, sizes
from coldtune.tracking.uris import shown

_LOG = logging.getLogger("coldtune.tracking")
_MAX_BACKOFF = 30.0
_MAX_SHARE = 0.05  # of a core's time for looking whether anything has grown


@dataclass(frozen=True)
class Drained:
    """What draining a directory did: `records` of `runs` delivered; `pending` bytes not delivered, and why.

    busy: how many runs another process was delivering, to which they were left.
    """

    pending: int
    error: str | None = None
    records: int = 0
    runs: int = 0
    busy: int = 0


def drain(directory: Path, target: Target) -> Drained:
    """Deliver all that the spools of `directory` still hold, once, in order; what fails stays for the next time.

    Never raises for an unreachable server: `error` says so. Spools that another process is delivering are left to it.
    """
    error, sent, busy = None, list[int](), 0
    try:
        runs = Runs(target)
        for name in sizes(directory):
            spool = Spool(directory, name)
            before = spool.state(target.key).offset
            done, trouble = _try(spool, runs)
            error = trouble or error
            busy += not done and trouble is None
            sent += [spool.count(before, spool.state(target.key).offset)] if done or trouble else []
    except Exception as failure:
        error = _why(failure, target)
    return Drained(pending(directory, target), error, sum(sent), sum(map(bool, sent)), busy)


def pending(directory: Path, target: Target) -> int:
    """Bytes that wait in the spools of `directory` for delivery to `target`."""
    return sum(_waiting(directory, target, sizes(directory)).values())


class Drainer:
    """A background thread that delivers a directory of spools, or the one called `name`, while others append to it.

    It never raises into the process: in an outage it tries again after 1, 2, 4, ... 30 s and says so once, through
    the logger `coldtune.tracking`; `error` holds the reason until it is over. Any number of drainers may watch one
    directory. `interval` is the time in seconds between two looks, and so how far the server may lag behind.
    """

    def __init__(self, directory: Path, target: Target, *, name: str | None = None, interval: float = 1.0) -> None:
        self.directory = directory
        self.target = target
        self.error: str | None = None
        self._name = name
        self._interval = interval
        self._delivered: dict[str, int] = {}
        self._troubles: dict[str, str] = {}
        self._runs: Runs | None = None
        self._wake = threading.Event()
        self._stop = False
        self._failures = 0
        self._thread = threading.Thread(target=self._loop, name="coldtune-drain", daemon=True)
        self._thread.start()

    def pending(self) -> int:
        """Bytes that wait for delivery."""
        return sum(_waiting(self.directory, self.target, self._sizes()).values())

    def flush(self, timeout: float) -> bool:
        """Wait until all that was appended before this call is delivered; False after `timeout` seconds."""
        return self._wait(timeout, patient=True)

    def close(self, timeout: float = 10.0) -> bool:
        """Deliver what is left, for at most `timeout` seconds and not at all in an outage; True when nothing is left.

        What is left stays in the spool for the next drainer.
        """
        deadline = time.monotonic() + timeout
        done = self._wait(timeout, patient=False)
        self._stop = True
        self._wake.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) if self.error is None else 0.0)
        return done

    def _wait(self, timeout: float, patient: bool) -> bool:
        deadline = time.monotonic() + timeout
        wanted = self._sizes()
        while True:
            left = _waiting(self.directory, self.target, wanted)
            if not left:
                return True
            wanted = {name: wanted[name] for name in left}
            hopeless = self._in_outage() or left.keys() <= self._troubles.keys()
            if time.monotonic() >= deadline or not self._thread.is_alive() or (hopeless and not patient):
                return False
            self._wake.set()
            time.sleep(0.05)

    def _in_outage(self) -> bool:
        """Return True if the last pass failed and the pass that is running now has no answer from the server yet.

        `error` alone would not do, because a pass resets it only at its end, after it has delivered all spools.
        """
        return self.error is not None and not (self._runs is not None and self._runs.answering)

    def _loop(self) -> None:
        while not self._stop:
            looking = self._pass()
            pause = max(self._interval, looking / _MAX_SHARE)
            self._wake.wait(min(_MAX_BACKOFF, 2.0 ** (self._failures - 1)) if self._failures else pause)
            self._wake.clear()

    def _pass(self) -> float:
        """Deliver what has grown; gives the seconds that it took to look."""
        started = time.monotonic()
        grown = [name for name, size in self._sizes().items() if size > self._delivered.get(name, 0)]
        looking = time.monotonic() - started
        error = None
        try:
            self._runs = self._runs or Runs(self.target)
            for name in grown:
                self._deliver(Spool(self.directory, name), self._runs)
        except Exception as failure:
            error = _why(failure, self.target)
            if self._runs is not None:
                self._runs.answering = False
        if error is not None and self.error is None:
            _LOG.warning("%s; what is logged waits in %s", error, self.directory)
        elif error is None and self.error is not None:
            _LOG.warning("tracking: %s takes what is sent again; what had waited was sent", shown(self.target.uri))
        self._failures = 0 if error is None else self._failures + 1
        self.error = error
        return looking

    def _deliver(self, spool: Spool, runs: Runs) -> None:
        size = spool.size()
        done, trouble = _try(spool, runs)
        if done and spool.name != STUDY:
            # A trial may have to make its study's run anew, so the study's spool is looked at every time.
            self._delivered[spool.name] = size
        if trouble is None:
            self._troubles.pop(spool.name, None)
        elif self._troubles.get(spool.name) != trouble:
            self._troubles[spool.name] = trouble
            _LOG.warning("%s: %s", spool.path, trouble)

    def _sizes(self) -> dict[str, int]:
        if self._name is None:
            return sizes(self.directory)
        return {self._name: Spool(self.directory, self._name).size()}


def _waiting(directory: Path, target: Target, wanted: Mapping[str, int]) -> dict[str, int]:
    """Of the spools not yet delivered up to `wanted` bytes: how many are missing."""
    missing = {name: size - Spool(directory, name).state(target.key).offset for name, size in wanted.items()}
    return {name: left for name, left in missing.items() if left > 0}


def _try(spool: Spool, runs: Runs) -> tuple[bool, str | None]:
    """Deliver one spool: whether it was, and what was in the way. Raises where the server itself does not answer."""
    try:
        return drain_spool(spool, runs), None
    except ParentMissingError as missing:
        return False, str(missing)
    except Exception as failure:
        if not runs.reachable():
            raise
        return False, _why(failure, runs.target)


def _why(error: Exception, target: Target) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"tracking: {shown(target.uri)} does not take what is sent ({shown(first[:200])})"
