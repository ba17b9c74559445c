"""Every use of Ray's private interfaces that changes what Ray does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

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
