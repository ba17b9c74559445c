"""Who runs a study: each of its drivers says so where the study is kept, for as long as it lives.

    driver:<token>    what others know it by: process, host, since when, its place in the order of those that came
    beat:<token>      a count that it raises while it lives

They are notes on the study's board (`coldtune.studies.drivers.registry`). Places are given out as in Lamport's
bakery: a newcomer says that it is choosing, takes the place behind all others, and looks who stands before it; so of
several that come at once, all see one and the same first. The first of those that live *leads*: it alone writes the
study's own run, takes up the trials of dead drivers, and measures the best trial on test. Any other is refused, or
joins.

Whether a driver lives: on the same machine, whether its process does. On another one, whether its count changes while
one watches, by the watcher's own clock, as for the leases of the store: after `HOLD_S` without a change it is taken for
dead. One that was only stopped for so long, and wakes up, finds its trials taken and takes a new place.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from coldtune.processes import gone, here, this_process
from coldtune.studies.drivers.registry import DriverRegistry

HOLD_S = 60.0
"""Seconds without a sign of life after which a driver on another machine is taken for dead."""

_BEATS = 6  # in that time: so many may be late
_DRIVER, _BEAT = "driver:", "beat:"
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Driver:
    """A process that runs a study. place: None while it is choosing."""

    token: str
    process: Mapping[str, Any]
    place: int | None
    started: float
    seconds: float

    @property
    def order(self) -> tuple[int, str]:
        """By which drivers stand in order."""
        return (self.place or 0, self.token)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.process['pid']} on {self.process['host']} since {since}"


class DriverLease:
    """One driver's place among those of a study; without `take` only a look at them."""

    def __init__(self, board: DriverRegistry, seconds: float = HOLD_S) -> None:
        self.board, self.seconds = board, seconds
        self.token, self.started = uuid.uuid4().hex, time.time()
        self._place: int | None = None
        self._seen: dict[str, tuple[Any, float]] = {}  # of drivers elsewhere: their last count, and when it changed

    def others(self) -> list[Driver]:
        """The living drivers but this one, in order. One elsewhere lives until it was watched in vain."""
        notes = self.board.all()
        return [
            driver for driver in _listed(notes, but=self.token) if self._lives(driver, notes.get(_BEAT + driver.token))
        ]

    def alive(self, token: str) -> bool:
        """Whether the driver of this token, perhaps oneself, lives."""
        if token == self.token:
            return True
        other = _parsed(token, self.board.get(_DRIVER + token))
        return other is not None and self._lives(other, self.board.get(_BEAT + token))

    def leads(self) -> bool:
        """Whether no living driver stands before this one."""
        me = (self._place or 0, self.token)
        return all(other.order > me for other in self.others())

    def take(self, waiting: Callable[[str], None] = lambda _: None) -> Driver | None:
        """Take a place; gives the living driver that leads, or None: then this one does.

        waiting: gets a sentence where a driver on another machine has to be watched to tell whether it lives.
        """
        self._choose()
        first = min(self.watched(waiting), key=lambda other: other.order, default=None)
        return first if first is not None and first.order < (self._place or 0, self.token) else None

    def watched(self, waiting: Callable[[str], None] = lambda _: None) -> list[Driver]:
        """The other drivers, each of which is known to live: those on other machines are watched until one can tell."""
        found = [self._settled(other, waiting) for other in _listed(self.board.all(), but=self.token)]
        return [driver for driver in found if driver is not None]

    def release(self) -> None:
        """Give the place up."""
        for head in (_DRIVER, _BEAT):
            self.board.put(head + self.token, None)
        self._place = None

    def beat(self, stop: threading.Event) -> None:
        """Give signs of life until told to stop; one that fails is only late."""
        count = 0
        while not stop.wait(self.seconds / _BEATS):
            count += 1
            with suppress(Exception):  # whatever a database raises that is away for a moment
                self.board.put(_BEAT + self.token, count)
                if self._place is not None and self.board.get(_DRIVER + self.token) is None:
                    self._choose()  # taken for dead while this process was stopped

    def _choose(self) -> None:
        self._claim(None)
        places = [driver.place or 0 for driver in _listed(self.board.all(), but=self.token)]
        self._place = 1 + max(places, default=0)
        self._claim(self._place)

    def _claim(self, place: int | None) -> None:
        about = {**this_process(), "place": place, "started": self.started, "seconds": self.seconds}
        self.board.put(_DRIVER + self.token, about)

    def _settled(self, other: Driver, waiting: Callable[[str], None]) -> Driver | None:
        """`other` once it is seen to live and has a place; None, and its claim removed, where it is dead."""
        before, told = self.board.get(_BEAT + other.token), False
        while (now := _parsed(other.token, self.board.get(_DRIVER + other.token))) is not None:
            beat = self.board.get(_BEAT + other.token)
            if not self._lives(now, beat):
                for head in (_DRIVER, _BEAT):
                    self.board.put(head + other.token, None)
                return None
            if now.place is not None and (here(now.process) or beat != before):
                return now
            if not told and not here(now.process):
                told = True
                waiting(f"watching for up to {now.seconds:g} s whether {now} still lives")
            time.sleep(_PAUSE_S)
        return None

    def _lives(self, other: Driver, beat: Any) -> bool:
        if here(other.process):
            return not gone(other.process)
        if other.token not in self._seen or self._seen[other.token][0] != beat:
            self._seen[other.token] = (beat, time.monotonic())
        return time.monotonic() - self._seen[other.token][1] <= other.seconds


@contextmanager
def held(
    board: DriverRegistry,
    name: str,
    join: bool,
    waiting: Callable[[str], None] = lambda _: None,
    seconds: float = HOLD_S,
) -> Iterator[DriverLease]:
    """Run the study `name` for the body: as its first driver or, where `join`, beside those that do.

    ValueError where another driver runs it and `join` is False, naming it, and how to stop or join it.
    """
    hold = DriverLease(board, seconds)
    stop = threading.Event()
    beating = threading.Thread(target=hold.beat, args=(stop,), daemon=True, name="coldtune-hold")
    beating.start()
    try:
        other = hold.take(waiting)
        if other is not None and not join:
            raise ValueError(
                f"--study {name}: is being run by {other}; stop it there (kill -INT {other.process['pid']}:"
                " nothing is lost), or run trials of it from here, too, with --join"
            )
        yield hold
    finally:
        stop.set()
        beating.join(10)  # it may be waiting for a database that is away
        with suppress(Exception):  # a storage that is gone must not hide why; others will see that this process is, too
            hold.release()


def _listed(notes: Mapping[str, Any], but: str) -> list[Driver]:
    """All that say they run the study, but for one, in order."""
    tokens = {key.removeprefix(_DRIVER): value for key, value in notes.items() if key.startswith(_DRIVER)}
    found = [_parsed(token, value) for token, value in tokens.items() if token != but]
    return sorted((driver for driver in found if driver is not None), key=lambda driver: driver.order)


def _parsed(token: str, about: Any) -> Driver | None:
    if about is None:
        return None
    return Driver(token, about, about["place"], float(about["started"]), float(about["seconds"]))
