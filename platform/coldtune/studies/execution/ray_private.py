"""Every use of Ray's private interfaces that changes what Ray does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

_CREDENTIAL = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY")


@contextmanager
def free_agent_port() -> Iterator[None]:
    """Let a Ray that is started in the block choose a free port for the HTTP server of its dashboard agent.

    `ray.init` has no option for this port. Its default is fixed, so the second Ray of a machine would have no such
    server, and its dashboard could not open logs.
    """
    from ray._private import parameter

    original = parameter.RayParams
    parameter.RayParams = partial(original, dashboard_agent_listen_port=0)
    try:
        yield
    finally:
        parameter.RayParams = original


@contextmanager
def redacted_entrypoint(redact: Callable[[str], str]) -> Iterator[None]:
    """Let a connection that is opened in the block name its command with `redact` applied to it.

    Ray keeps the whole command line of a driver in its directory, and shows it in the dashboard's list of jobs.
    """
    from ray._private import utils

    original = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: redact(original())
    try:
        yield
    finally:
        utils.get_entrypoint_name = original


def keep_credentials_out() -> None:
    """Keep Tune from putting credentials into the runtime environment of trials.

    Ray writes runtime environments to its logs and shows them in its dashboard. A process of Ray has the environment of
    the process that started Ray on its node, which is where credentials belong.
    """
    from ray.tune.execution import class_cache

    names = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in names if not _CREDENTIAL.search(name)}


@contextmanager
def drop_tasks_of_removed_actors() -> Iterator[None]:
    """Let Tune forget the tasks of an actor that it removes before the actor has started, while the block runs.

    Tune requests an actor for every trial, and removes it when the trial takes the actor of an ended trial. The tasks
    that waited for it can never run, and would stay in memory (ray#64231).
    """
    from ray.air.execution._internal.actor_manager import RayActorManager

    original = RayActorManager.remove_actor

    def remove_actor(self: Any, tracked_actor: Any, *arguments: Any, **options: Any) -> bool:
        pending = tracked_actor in self._pending_actors_to_attrs
        removed: bool = original(self, tracked_actor, *arguments, **options)
        if pending:
            self._pending_actors_to_enqueued_actor_tasks.pop(tracked_actor, None)
        return removed

    RayActorManager.remove_actor = remove_actor
    try:
        yield
    finally:
        RayActorManager.remove_actor = original
