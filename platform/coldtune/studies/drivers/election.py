"""The drivers of a study: which of them are alive, and which of them leads.

A driver is a process that runs a study. It writes two notes into the study's registry
(`coldtune.studies.drivers.registry`):

    driver:<token>    its process, its host, when it started, and its place in the order of arrival
    beat:<token>      a count that it raises while it lives

Places are given out by Lamport's bakery algorithm. A newcomer first writes that it is choosing, then takes the place
behind all others, and then looks who stands before it. If several drivers arrive at once, all of them see the same
first driver. The first living driver leads. It alone writes the run of the study, takes over the trials of dead
drivers, and measures the best trial on the test split. Another driver is refused, or joins with `--join`.

A driver on the same machine lives as long as its process. A driver on another machine lives as long as its count
changes. The watcher measures that with its own clock, as the leases of the store do. After `DEAD_AFTER_S` seconds
without a change the driver counts as dead. If it was only stopped and wakes up, it finds its trials taken over, and it
takes a new place.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from coldtune.processes import gone, here, is_process, this_process
from coldtune.studies.drivers.registry import DriverRegistry

DEAD_AFTER_S = 60.0
"""Seconds without a sign of life after which a driver on another machine counts as dead."""

_BEATS = 6  # signs of life in that time, so that several may be late
_DRIVER, _BEAT = "driver:", "beat:"
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Driver:
    """A process that runs a study.

    Attributes:
        process: Its host, its process id, and what tells it from a later process with the same id.
        place: Its place in the order of arrival. None while it is choosing.
        started: When it started, in seconds since the epoch.
        seconds: After how many seconds without a sign of life it counts as dead.
        dashboard: HOST:PORT of the dashboard of its Ray. "" if it is not known.
    """

    token: str
    process: Mapping[str, Any]
    place: int | None
    started: float
    seconds: float
    dashboard: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """The key by which drivers are sorted. A driver that is choosing comes first, so that others wait for it."""
        return (self.place or 0, self.token)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.process['pid']} on {self.process['host']} since {since}"


class DriverLease:
    """A driver's place among the drivers of a study.

    A lease that was never acquired only looks at the other drivers.
    """

    def __init__(self, registry: DriverRegistry, seconds: float = DEAD_AFTER_S) -> None:
        """Create a lease. `seconds` without a sign of life let others take this driver for dead."""
        self.registry, self.seconds = registry, seconds
        self.token, self.started = uuid.uuid4().hex, time.time()
        self._place: int | None = None
        self._dashboard = ""
        # For drivers on other machines: their last count, and when it changed by this process's clock.
        self._last_beats: dict[str, tuple[Any, float]] = {}

    def others(self) -> list[Driver]:
        """Return the other living drivers in order. A driver elsewhere counts as alive until it was watched in vain."""
        notes = self.registry.all()
        drivers = _drivers(notes, but=self.token)
        return [driver for driver in drivers if self._is_alive(driver, notes.get(_BEAT + driver.token))]

    def alive(self, token: str) -> bool:
        """Return whether the driver with a token is alive. It may be this driver."""
        if token == self.token:
            return True
        driver = _parse_driver(token, self.registry.get(_DRIVER + token))
        return driver is not None and self._is_alive(driver, self.registry.get(_BEAT + token))

    def leads(self) -> bool:
        """Return whether no living driver stands before this driver."""
        me = (self._place or 0, self.token)
        return all(other.order > me for other in self.others())

    def acquire(self, waiting: Callable[[str], None] = lambda _: None) -> Driver | None:
        """Take a place, and return the living driver that leads. Return None if this driver leads.

        Args:
            waiting: Called with a sentence for the user, if a driver on another machine must be watched for a while.
        """
        self._choose_place()
        first = min(self.living_drivers(waiting), key=lambda other: other.order, default=None)
        return first if first is not None and first.order < (self._place or 0, self.token) else None

    def living_drivers(self, waiting: Callable[[str], None] = lambda _: None) -> list[Driver]:
        """Return the other drivers that are known to be alive. Drivers on other machines are watched to find out."""
        drivers = _drivers(self.registry.all(), but=self.token)
        return [alive for driver in drivers if (alive := self._watch(driver, waiting)) is not None]

    def release(self) -> None:
        """Give the place up."""
        self._remove_notes(self.token)
        self._place = None

    def announce(self, dashboard: str) -> None:
        """Tell everyone who reads the study where the dashboard of this driver's Ray is, as HOST:PORT."""
        self._dashboard = dashboard
        if self._place is not None:
            self._write_place(self._place)

    def send_beats(self, stop: threading.Event) -> None:
        """Give signs of life until `stop` is set. A failed sign of life is only late."""
        count = 0
        while not stop.wait(self.seconds / _BEATS):
            count += 1
            with suppress(Exception):  # a database that is away for a moment may raise anything
                self.registry.put(_BEAT + self.token, count)
                if self._place is not None and self.registry.get(_DRIVER + self.token) is None:
                    self._choose_place()  # others took this driver for dead while its process was stopped

    def _choose_place(self) -> None:
        self._write_place(None)
        places = [driver.place or 0 for driver in _drivers(self.registry.all(), but=self.token)]
        self._place = 1 + max(places, default=0)
        self._write_place(self._place)

    def _write_place(self, place: int | None) -> None:
        about = {**this_process(), "place": place, "started": self.started, "seconds": self.seconds}
        known = {"dashboard": self._dashboard} if self._dashboard else {}
        self.registry.put(_DRIVER + self.token, {**about, **known})

    def _watch(self, driver: Driver, waiting: Callable[[str], None]) -> Driver | None:
        """Return `driver` once it is seen alive and has a place. Remove its notes and return None if it is dead."""
        first_beat, told = self.registry.get(_BEAT + driver.token), False
        while (now := _parse_driver(driver.token, self.registry.get(_DRIVER + driver.token))) is not None:
            beat = self.registry.get(_BEAT + driver.token)
            if not self._is_alive(now, beat):
                self._remove_notes(driver.token)
                return None
            if now.place is not None and (here(now.process) or beat != first_beat):
                return now
            if not told and not here(now.process):
                told = True
                waiting(f"watching for up to {now.seconds:g} s whether {now} still lives")
            time.sleep(_PAUSE_S)
        return None

    def _is_alive(self, driver: Driver, beat: Any) -> bool:
        if here(driver.process):
            return not gone(driver.process)
        if driver.token not in self._last_beats or self._last_beats[driver.token][0] != beat:
            self._last_beats[driver.token] = (beat, time.monotonic())
        return time.monotonic() - self._last_beats[driver.token][1] <= driver.seconds

    def _remove_notes(self, token: str) -> None:
        for head in (_DRIVER, _BEAT):
            self.registry.put(head + token, None)


@contextmanager
def driver_lease(
    registry: DriverRegistry,
    name: str,
    join: bool,
    waiting: Callable[[str], None] = lambda _: None,
    seconds: float = DEAD_AFTER_S,
) -> Iterator[DriverLease]:
    """Be a driver of the study `name` while the block runs.

    Args:
        join: Whether other drivers may run the study at the same time.
        waiting: Called with a sentence for the user, if a driver on another machine must be watched for a while.
        seconds: Seconds without a sign of life after which others take this driver for dead.

    Raises:
        ValueError: If another driver runs the study and `join` is False. The message names it, and how to stop it or
            to join it.
    """
    lease = DriverLease(registry, seconds)
    stop = threading.Event()
    beating = threading.Thread(target=lease.send_beats, args=(stop,), daemon=True, name="coldtune-lease")
    beating.start()
    try:
        other = lease.acquire(waiting)
        if other is not None and not join:
            raise ValueError(
                f"--study {name}: is being run by {other}. Stop it there with `kill -INT {other.process['pid']}` "
                "(nothing is lost), or run trials beside it with --join."
            )
        yield lease
    finally:
        stop.set()
        beating.join(10)  # the thread may be waiting for a database that is away
        with suppress(Exception):  # must not hide the first error; other drivers will see that this process has ended
            lease.release()


def _drivers(notes: Mapping[str, Any], but: str) -> list[Driver]:
    """Return the drivers that have a note, without the driver `but`, in order."""
    tokens = [key.removeprefix(_DRIVER) for key in notes if key.startswith(_DRIVER)]
    found = [_parse_driver(token, notes[_DRIVER + token]) for token in tokens if token != but]
    return sorted((driver for driver in found if driver is not None), key=lambda driver: driver.order)


def _parse_driver(token: str, about: Any) -> Driver | None:
    """Return the driver of a note. None if there is no note, or if it is damaged: a living driver writes it again."""
    if not is_process(about):
        return None
    place, started, seconds = about.get("place"), about.get("started"), about.get("seconds")
    dashboard = about.get("dashboard", "")
    numbers = isinstance(started, int | float) and isinstance(seconds, int | float)
    if not numbers or not isinstance(place, int | None):
        return None
    shown = dashboard if isinstance(dashboard, str) else ""
    return Driver(token, about, place, float(started), float(seconds), shown)
