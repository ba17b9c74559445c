"""How Ray Tune learns that Ray has lost a trial's process.

Tune (Ray 2.60) knows two kinds of errors: those of a trial's code, and `RayActorError` for a dead process. Ray has more
for a lost process. If its memory monitor kills the process, the error is an `OutOfMemoryError`, and Tune raises
RuntimeError out of its loop, without a retry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def report_lost_workers(deaths: Callable[[Exception | None], None]) -> Iterator[None]:
    """Make Tune take every error of a lost process for the end of the trial's process while the block runs.

    Tune then starts the trial again within its budget, as after any other end of its process.

    Args:
        deaths: Called with the error with which Ray reported the end, before Tune acts on it, and with None afterwards.
            Tune itself does not tell its searcher and its callbacks the error.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import RayActorError, RayTaskError

    # Tune creates its manager itself, and no public setting replaces it.
    of_task, of_start = RayActorManager._actor_task_failed, RayActorManager._actor_start_failed

    def task_failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        deaths(exception)
        if not isinstance(exception, RayActorError | RayTaskError):
            lost = RayActorError(error_msg=f"{type(exception).__name__}: {exception}")
            lost.__cause__ = exception
            exception = lost
        try:
            of_task(self, tracked_actor_task, exception)
        finally:
            deaths(None)

    def start_failed(self: Any, tracked_actor: Any, exception: Exception) -> None:
        deaths(exception)
        try:
            of_start(self, tracked_actor, exception)
        finally:
            deaths(None)

    RayActorManager._actor_task_failed, RayActorManager._actor_start_failed = task_failed, start_failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed, RayActorManager._actor_start_failed = of_task, of_start
