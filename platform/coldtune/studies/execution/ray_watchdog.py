"""A watchdog for Ray's own processes and files. Without them, a driver hangs without end and ignores even Ctrl-C."""

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
from pathlib import Path
from typing import TypeAlias

INTERRUPTED = 130
"""The exit code of a driver that ended before its study, by Ctrl-C or because Ray died."""

_PAUSE_S = 1.0  # between two checks
_ANSWER_S = 10.0  # The kernel accepts a connection even if the process is busy. Only another machine may take long.
_DEAD_AFTER_S = 2.0  # after so long without an answer the process is gone
_RESTART_S = 30.0  # for a GCS that is restarted from outside. Ray itself gives up after 60 s.
_GONE_AFTER_S = 5.0  # after so long without its folder, a Ray on this machine counts as dead
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

    @property
    def loss(self) -> str:
        """What has happened if it does not answer for too long."""
        return f"{self.name} ({self.host}:{self.port}) died"


@dataclass(frozen=True)
class SessionFolder:
    """The folder of Ray's session on this machine, without which Ray starts no process and a driver hangs.

    Something that cleans /tmp may remove the folder, or some of the files in it.

    Attributes:
        path: The folder.
        parts: The names in the folder that Ray needs while it runs.
        patience: For how many seconds it may be missing before Ray counts as dead.
    """

    path: Path
    parts: tuple[str, ...] = ("logs", "sockets")
    patience: float = _GONE_AFTER_S

    def answers(self) -> bool:
        """Return True if the folder is complete."""
        return all(os.path.lexists(self.path / part) for part in self.parts)

    @property
    def loss(self) -> str:
        """What has happened if it does not answer for too long."""
        return f"Ray's session folder {self.path} was removed or damaged"


Watched: TypeAlias = Endpoint | SessionFolder
"""A part of Ray that answers as long as it lives."""


def parts_of_ray(own: bool) -> list[Watched]:
    """Return the parts of Ray that this driver needs: its raylet and its session folder, and the cluster's GCS.

    Args:
        own: True if this driver started the cluster. Then nothing will restart the GCS.
    """
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    watched: list[Watched] = [Endpoint("Ray's GCS", host.strip("[]"), int(port), _DEAD_AFTER_S if own else _RESTART_S)]
    for node in ray.nodes():
        if node["NodeID"] == context.get_node_id():
            raylet = Path(node["RayletSocketName"])  # SESSION/sockets/raylet
            watched += [
                Endpoint("Ray's raylet", node["NodeManagerAddress"], node["NodeManagerPort"], _DEAD_AFTER_S),
                SessionFolder(raylet.parents[1], ("logs", f"{raylet.parent.name}/{raylet.name}")),
            ]
    return watched


@contextmanager
def watch(parts: Sequence[Watched], before_exit: Callable[[str], None]) -> Iterator[None]:
    """End this process with exit code 130 if a part of Ray dies while the block runs.

    If the block raises because Ray is dying, its exception waits for that end. A part that does not answer at the
    beginning is not watched, because then something else is in the way, such as a firewall.

    Args:
        before_exit: Called before the exit with a sentence that says what died. It runs in another thread than the
            block, which may hang inside Ray.
    """
    watcher = _Watcher([part for part in parts if part.answers()], before_exit)
    watcher.start()
    try:
        yield
    except BaseException:
        watcher.wait_for_death_or_answer()
        raise
    finally:
        watcher.stop()


class _Watcher(threading.Thread):
    def __init__(self, parts: Sequence[Watched], before_exit: Callable[[str], None]) -> None:
        super().__init__(name="coldtune-watch", daemon=True)
        self._parts, self._before_exit = parts, before_exit
        self._stopped, self._ending = threading.Event(), threading.Lock()

    def run(self) -> None:
        last = dict.fromkeys(self._parts, time.monotonic())
        while not self._stopped.wait(_PAUSE_S):
            for part in self._parts:
                begun = time.monotonic()
                if part.answers():
                    last[part] = time.monotonic()
                elif begun - last[part] >= part.patience:
                    self._end(part)

    def wait_for_death_or_answer(self) -> None:
        """Return once every part answers. If one is dead, the watchdog ends this process instead."""
        while not all(part.answers() for part in self._parts):
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """Stop watching. If the exit has begun, this call does not return."""
        with self._ending:
            self._stopped.set()

    def _end(self, part: Watched) -> None:
        with self._ending:
            if self._stopped.is_set():
                return
            late = threading.Timer(_EXIT_S, os._exit, [INTERRUPTED])
            late.daemon = True
            late.start()
            with contextlib.suppress(Exception):
                self._before_exit(part.loss)
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(Exception):
                    stream.flush()
            os._exit(INTERRUPTED)  # the main thread hangs in Ray's own code, where no exception reaches it
