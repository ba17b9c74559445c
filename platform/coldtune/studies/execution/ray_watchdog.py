"""A watchdog for Ray's own processes. If they die, a driver hangs without end and ignores even Ctrl-C."""

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
"""The exit code of a driver that ended before its study, by Ctrl-C or because Ray died."""

_PAUSE_S = 1.0  # between two checks
_ANSWER_S = 10.0  # The kernel accepts a connection even if the process is busy. Only another machine may take long.
_DEAD_AFTER_S = 2.0  # after so long without an answer the process is gone
_RESTART_S = 30.0  # for a GCS that is restarted from outside. Ray itself gives up after 60 s.
_EXIT_S = 60.0  # to mark the runs and to print how to resume


@dataclass(frozen=True)
class Endpoint:
    """The address of a process of Ray.

    Attributes:
        name: The process in words.
        patience: For how many seconds it may be unreachable before it counts as dead.
    """

    name: str
    host: str
    port: int
    patience: float

    def answers(self) -> bool:
        """Return True if it accepts a connection. The kernel accepts for a stopped or overloaded process too."""
        try:
            socket.create_connection((self.host, self.port), timeout=_ANSWER_S).close()
        except OSError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.name} ({self.host}:{self.port})"


def ray_endpoints(own: bool) -> list[Endpoint]:
    """Return the endpoints of this driver's raylet and of the cluster's GCS.

    Args:
        own: True if this driver started the cluster. Then nothing will restart the GCS.
    """
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    endpoints = [Endpoint("Ray's GCS", host.strip("[]"), int(port), _DEAD_AFTER_S if own else _RESTART_S)]
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            endpoints.append(
                Endpoint("Ray's raylet", node["NodeManagerAddress"], node["NodeManagerPort"], _DEAD_AFTER_S)
            )
    return endpoints


@contextmanager
def watch(endpoints: Sequence[Endpoint], before_exit: Callable[[str], None]) -> Iterator[None]:
    """End this process with exit code 130 if one of the endpoints dies while the block runs.

    If the block raises because Ray is dying, its exception waits for that end. An endpoint that does not answer at the
    beginning is not watched, because then something else is in the way, such as a firewall.

    Args:
        before_exit: Called before the exit with a sentence that says what died. It runs in another thread than the
            block, which may hang inside Ray.
    """
    watcher = _Watcher([endpoint for endpoint in endpoints if endpoint.answers()], before_exit)
    watcher.start()
    try:
        yield
    except BaseException:
        watcher.wait_for_death_or_answer()
        raise
    finally:
        watcher.stop()


class _Watcher(threading.Thread):
    def __init__(self, endpoints: Sequence[Endpoint], before_exit: Callable[[str], None]) -> None:
        super().__init__(name="coldtune-watch", daemon=True)
        self._endpoints, self._before_exit = endpoints, before_exit
        self._stopped, self._ending = threading.Event(), threading.Lock()

    def run(self) -> None:
        last = dict.fromkeys(self._endpoints, time.monotonic())
        while not self._stopped.wait(_PAUSE_S):
            for endpoint in self._endpoints:
                begun = time.monotonic()
                if endpoint.answers():
                    last[endpoint] = time.monotonic()
                elif begun - last[endpoint] >= endpoint.patience:
                    self._end(endpoint)

    def wait_for_death_or_answer(self) -> None:
        """Return once every endpoint answers. If one is dead, the watchdog ends this process instead."""
        while not all(endpoint.answers() for endpoint in self._endpoints):
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """Stop watching. If the exit has begun, this call does not return."""
        with self._ending:
            self._stopped.set()

    def _end(self, endpoint: Endpoint) -> None:
        with self._ending:
            if self._stopped.is_set():
                return
            late = threading.Timer(_EXIT_S, os._exit, [INTERRUPTED])
            late.daemon = True
            late.start()
            with contextlib.suppress(Exception):
                self._before_exit(f"{endpoint} died")
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(INTERRUPTED)  # the main thread hangs in Ray's own code, where no exception reaches it
