"""Watching Ray's own processes: when they die, a driver waits for ever and does not even hear Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

INTERRUPTED = 130
"""The exit code of a driver that ended before its study, whether by Ctrl-C or because Ray died."""

_PAUSE_S = 1.0  # between two looks
_ANSWER_S = 10.0  # the kernel accepts a connection however busy the process is: only another machine may take long
_TWICE_S = 2.0  # refused for so long: the process is gone, this was no moment's trouble
_RESTART_S = 30.0  # for a GCS that its keeper starts again; Ray itself gives up after 60 s
_FAREWELL_S = 60.0  # for marking runs and printing how to resume


@dataclass(frozen=True)
class Endpoint:
    """A process of Ray: its `name` in words, where it listens, and for how many seconds it may be unreachable."""

    name: str
    host: str
    port: int
    patience: float

    def answers(self) -> bool:
        """Whether it accepts a connection. The kernel does that for it, so a stopped or overloaded process does too."""
        try:
            socket.create_connection((self.host, self.port), timeout=_ANSWER_S).close()
        except OSError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"


def ray_places(own: bool) -> list[Endpoint]:
    """The raylet of this driver's node and the GCS of the cluster that it is connected to; own: started by it."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    places = [Endpoint("Ray's GCS", host.strip("[]"), int(port), _TWICE_S if own else _RESTART_S)]
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            places.append(Endpoint("Ray's raylet", node["NodeManagerAddress"], node["NodeManagerPort"], _TWICE_S))
    return places


@contextmanager
def watch(places: Sequence[Endpoint], farewell: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, end this process with exit code 130 where one of `places` dies.

    farewell: called before, with what died, in another thread than the block's, which may hang inside Ray for good.
    An exception that the block raises because Ray is dying waits for that end rather than overtake it. A place that
    does not answer at the beginning is not watched: what is in the way then is not its death.
    """
    watcher = _Watcher([place for place in places if place.answers()], farewell)
    watcher.start()
    try:
        yield
    except BaseException:
        watcher.outlive()
        raise
    finally:
        watcher.stop()


class _Watcher(threading.Thread):
    def __init__(self, places: Sequence[Endpoint], farewell: Callable[[str], None]) -> None:
        super().__init__(name="coldtune-watch", daemon=True)
        self._places, self._farewell = places, farewell
        self._stopped, self._ending = threading.Event(), threading.Lock()

    def run(self) -> None:
        last = dict.fromkeys(self._places, time.monotonic())
        while not self._stopped.wait(_PAUSE_S):
            for place in self._places:
                begun = time.monotonic()
                if place.answers():
                    last[place] = time.monotonic()
                elif begun - last[place] >= place.patience:
                    self._end(place)

    def outlive(self) -> None:
        """Return once every place answers; where one is dead, this process ends instead."""
        while not all(place.answers() for place in self._places):
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """No end from here on; one that has begun is not returned from."""
        with self._ending:
            self._stopped.set()

    def _end(self, place: Endpoint) -> None:
        with self._ending:
            if self._stopped.is_set():
                return
            late = threading.Timer(_FAREWELL_S, os._exit, [INTERRUPTED])
            late.daemon = True
            late.start()
            with contextlib.suppress(Exception):
                self._farewell(f"{place} died")
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(INTERRUPTED)  # the main thread hangs in Ray's own code, where no exception reaches it
