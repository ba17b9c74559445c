"""A watch over trials whose process does not start, so that they do not look like trials that wait for resources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from coldtune.durations import format_flag
from coldtune.studies.execution.cluster import Connection
from coldtune.studies.execution.raylet_log import LOG, RayletLog, own_log
from coldtune.studies.progress.events import Events, StoppedError
from coldtune.studies.trials.ledger import TrialRequest
from coldtune.studies.worker.trial import TRAINABLE

STARTING = "starting a worker process"
WAITING = "waiting for resources"

_PAUSE_S = 5.0  # between two looks
_SUSPICIOUS_S = 60.0
_LIMIT_S = 900.0  # for a process that neither runs nor dies. Even an overloaded machine starts one within minutes.
_TAIL = 1000  # lines of a node's log


class WorkerStarts(Events):
    """A listener that says what a trial waits for, and stops a study whose processes cannot start.

    A trial that has its resources waits for Ray to start a process. If the process dies while it starts, Ray starts
    another one again and again, and reports this only in a log.

    Args:
        connection: The connection to Ray.
        say: Shows what a trial waits for, from its number and a text.
    """

    def __init__(self, connection: Connection, say: Callable[[int, str], None]) -> None:
        self._own, self._say = connection.own, say
        self._logs: Callable[[], Iterable[RayletLog]] = (
            (lambda: own_log(Path(connection.logs))) if self._own else _logs_of_nodes
        )
        self._since: dict[int, float] = {}  # since when each trial waits for its process
        self._names: dict[int, str] = {}
        self._known: dict[str, int] = {}  # crashes that were in each log before
        self._tolerated = 0  # a process may die by accident on a machine that can start processes
        self._looked = 0.0

    def asked(self, request: TrialRequest) -> None:
        """Begin to watch a trial."""
        self._names[request.number] = request.label
        self._watch(request.number)
        self._say(request.number, STARTING if self._own else WAITING)

    def restarted(self, number: int) -> None:
        """Begin to watch a trial again, after its process died."""
        self._watch(number)

    def started(self, number: int) -> None:
        """Stop watching a trial, because its process has started."""
        self._since.pop(number, None)
        self._tolerated = 1

    def lost(self, number: int) -> None:
        """Stop watching a trial of another driver."""
        self._since.pop(number, None)

    def failed(self, number: int, reason: str) -> None:
        """Stop watching a trial that has ended without a process."""
        self._since.pop(number, None)

    def tick(self) -> None:
        """Show what the trials wait for.

        Raises:
            StoppedError: If processes die while they start, or if one does not start for a very long time.
        """
        now = time.monotonic()
        if not self._since or now - self._looked < _PAUSE_S:
            return
        self._looked = now
        if not self._own:
            text = STARTING if _is_starting() else WAITING
            for number in self._since:
                self._say(number, text)
            if text == WAITING:
                self._since = dict.fromkeys(self._since, now)  # only the start of a process has a limit
                return
        waited = now - min(self._since.values())
        if waited < _SUSPICIOUS_S:
            return
        for log in self._logs():
            # A cluster may be old, so what its logs say at the first look does not count.
            known = self._known.setdefault(log.place, 0 if self._own else log.crashes())
            if log.crashes() > known + self._tolerated:
                raise StoppedError(log.describe())
        if waited > _LIMIT_S:
            places = ", ".join(log.place for log in self._logs()) or "with the logs of the cluster's nodes"
            name = self._names.get(min(self._since), str(min(self._since)))
            raise StoppedError(
                f"Ray has not started a worker process for trial {name} for {format_flag(_LIMIT_S)}, "
                f"although it has its resources. Ray's log is {places}"
            )

    def _watch(self, number: int) -> None:
        if not self._since:
            self._known = {log.place: log.crashes() for log in self._logs()} if self._own else {}
        self._since[number] = time.monotonic()


def _logs_of_nodes() -> Iterator[RayletLog]:
    """Yield the logs of the cluster's living nodes, as far as its dashboard has them."""
    import ray
    from ray.util.state import get_log

    for node in ray.nodes():
        if not node["Alive"]:
            continue
        try:
            text = "".join(get_log(node_id=node["NodeID"], filename=LOG, tail=_TAIL))
        except Exception:  # without a dashboard Ray raises errors of several types
            continue
        name = node["NodeManagerHostname"]
        yield RayletLog(f"node {name}", f"`ray logs {LOG} --node-id {node['NodeID']}`", text)


def _is_starting() -> bool:
    """Return True if a process of this study has its resources and has not started. False if that is unknown."""
    import ray
    from ray.util.state import list_actors

    filters: Any = [
        ("class_name", "=", TRAINABLE),
        ("state", "=", "PENDING_CREATION"),
        ("job_id", "=", ray.get_runtime_context().get_job_id()),
    ]
    try:
        return bool(list_actors(filters=filters, timeout=5))
    except Exception:  # without a dashboard Ray raises errors of several types
        return False
