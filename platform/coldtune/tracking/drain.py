"""Delivery of whole directories of spools, either once or in the background while a process lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coldtune.addresses import redact
from coldtune.errors import describe_os_error, is_about_files
from coldtune.tracking.deliver import ParentMissingError, drain_spool
from coldtune.tracking.runs import Runs
from coldtune.tracking.server import Target
from coldtune.tracking.spool import STUDY, Spool, sizes

_LOG = logging.getLogger("coldtune.tracking")
_MAX_BACKOFF_S = 30.0
_MAX_SCAN_SHARE = 0.05  # the largest share of a core's time that is spent on looking for spools that have grown


@dataclass(frozen=True)
class Drained:
    """The result of draining a directory.

    Attributes:
        pending: Bytes that were not delivered.
        error: Why they were not.
        records: The number of records that were delivered.
        runs: The number of runs that these records belong to.
        busy: The number of runs that were left out because another process was delivering them.
    """

    pending: int
    error: str | None = None
    records: int = 0
    runs: int = 0
    busy: int = 0


def drain(directory: Path, target: Target) -> Drained:
    """Deliver the undelivered records of all spools of `directory` once, in order.

    Records that fail stay in the spool for the next time. Spools that another process is delivering are left to it. An
    unreachable server is not raised, but reported in `error` of the result.
    """
    error, sent, busy = None, list[int](), 0
    try:
        runs = Runs(target)
        for name in sizes(directory):
            spool = Spool(directory, name)
            before = spool.state(target.key, target.born).offset
            done, problem = _deliver_spool(spool, runs)
            error = problem or error
            busy += not done and problem is None
            sent += [spool.count(before, spool.state(target.key, target.born).offset)] if done or problem else []
    except Exception as failure:
        error = _explain(failure, target)
    return Drained(pending(directory, target), error, sum(sent), sum(map(bool, sent)), busy)


def pending(directory: Path, target: Target) -> int:
    """Return the number of bytes in the spools of `directory` that are not yet delivered to `target`."""
    return sum(_undelivered(directory, target, sizes(directory)).values())


class Drainer:
    """A background thread that delivers a directory of spools while other processes append to them.

    It raises nothing into the process. In an outage it tries again after 1, 2, 4, ... 30 s. The outage is logged once,
    by the logger `coldtune.tracking`, and `error` is the reason until the outage ends. Any number of drainers may watch
    the same directory.

    Args:
        name: Deliver only the spool of this name.
        interval: Seconds between two passes over the directory. The server lags behind by as much.
        wait: Let the first losses of each trial wait for its values, as `first_metrics` says, until `flush` or `close`.
    """

    def __init__(
        self, directory: Path, target: Target, *, name: str | None = None, interval: float = 1.0, wait: bool = False
    ) -> None:
        self.directory = directory
        self.target = target
        self.error: str | None = None
        self._name = name
        self._interval = interval
        self._losses_wait = wait
        self._delivered: dict[str, int] = {}
        self._spool_errors: dict[str, str] = {}
        self._runs: Runs | None = None
        self._wake = threading.Event()
        self._stop = False
        self._failures = 0
        self._thread = threading.Thread(target=self._loop, name="coldtune-drain", daemon=True)
        self._thread.start()

    def pending(self) -> int:
        """Return the number of bytes that are not yet delivered."""
        return sum(_undelivered(self.directory, self.target, self._sizes()).values())

    def flush(self, timeout: float) -> bool:
        """Wait until everything that was appended before this call is delivered.

        Returns:
            False if it is not delivered after `timeout` seconds.
        """
        return self._wait(timeout, patient=True)

    def close(self, timeout: float = 10.0) -> bool:
        """Deliver the rest for at most `timeout` seconds, and stop the thread. In an outage, nothing more is tried.

        Records that are not delivered stay in the spool for the next drainer.

        Returns:
            True if everything is delivered.
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
        self._losses_wait = False
        while True:
            left = _undelivered(self.directory, self.target, wanted)
            if not left:
                return True
            wanted = {name: wanted[name] for name in left}
            hopeless = self._in_outage() or left.keys() <= self._spool_errors.keys()
            if time.monotonic() >= deadline or not self._thread.is_alive() or (hopeless and not patient):
                return False
            self._wake.set()
            time.sleep(0.05)

    def _in_outage(self) -> bool:
        """Return True if the last pass failed and the server has not answered the current pass.

        `error` alone does not tell, because a pass resets it only at its end, when all spools are delivered.
        """
        return self.error is not None and not (self._runs is not None and self._runs.answering)

    def _loop(self) -> None:
        while not self._stop:
            scan_s = self._pass()
            pause = max(self._interval, scan_s / _MAX_SCAN_SHARE)
            self._wake.wait(min(_MAX_BACKOFF_S, 2.0 ** (self._failures - 1)) if self._failures else pause)
            self._wake.clear()

    def _pass(self) -> float:
        """Deliver the spools that have grown. Return the seconds that looking for them took."""
        started = time.monotonic()
        grown = [name for name, size in self._sizes().items() if size > self._delivered.get(name, 0)]
        scan_s = time.monotonic() - started
        error = None
        try:
            self._runs = self._runs or Runs(self.target)
            for name in grown:
                self._deliver(Spool(self.directory, name), self._runs)
        except Exception as failure:
            error = _explain(failure, self.target)
            if self._runs is not None:
                self._runs.answering = False
        if error is not None and self.error is None:
            _LOG.warning("%s. Until it does, records stay in %s", error, self.directory)
        elif error is None and self.error is not None:
            _LOG.warning("tracking: %s takes what is sent again; all records were delivered", redact(self.target.uri))
        self._failures = 0 if error is None else self._failures + 1
        self.error = error
        return scan_s

    def _deliver(self, spool: Spool, runs: Runs) -> None:
        size = spool.size()
        done, problem = _deliver_spool(spool, runs, wait=self._losses_wait)
        if done and spool.name != STUDY:
            # The study's spool is visited in every pass, because a trial may have made the study's run again.
            self._delivered[spool.name] = size
        if problem is None:
            self._spool_errors.pop(spool.name, None)
        elif self._spool_errors.get(spool.name) != problem:
            self._spool_errors[spool.name] = problem
            _LOG.warning("%s: %s", spool.path, problem)

    def _sizes(self) -> dict[str, int]:
        if self._name is None:
            return sizes(self.directory)
        return {self._name: Spool(self.directory, self._name).size()}


def _undelivered(directory: Path, target: Target, wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the missing bytes of each spool that is not yet delivered up to `wanted` bytes."""
    missing = {
        name: size - Spool(directory, name).state(target.key, target.born).offset for name, size in wanted.items()
    }
    return {name: left for name, left in missing.items() if left > 0}


def _deliver_spool(spool: Spool, runs: Runs, *, wait: bool = False) -> tuple[bool, str | None]:
    """Deliver a spool. Return whether it was delivered, and otherwise why not.

    Both are False and None if another process is delivering it, or if losses wait. Raises if the server itself does
    not answer.
    """
    try:
        return drain_spool(spool, runs, wait=wait), None
    except ParentMissingError as missing:
        return False, str(missing)
    except OSError as failure:
        if is_about_files(failure):
            return False, describe_os_error(failure)
        raise
    except Exception as failure:
        if not runs.reachable():
            raise
        return False, _explain(failure, runs.target)


def _explain(error: Exception, target: Target) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"tracking: {redact(target.uri)} does not take what is sent ({redact(first[:200])})"
