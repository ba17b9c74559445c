"""The Ray cluster of a study: started on this machine, or the cluster that the study was submitted to."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coldtune
from coldtune.environment import local, submitted

# Set before Ray is imported. A value that the user set stays.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output engine prints tables and ignores our reporter
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would wait until the trials stop by themselves
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own state is never read, because the study's storage is the truth
    # The time for a pruned trial and its workers to end, so that the process can run the next trial. Tune's default of
    # 2 s is too short (`training.distributed`).
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # ours contains a PYTHONPATH from `ray job submit`
}


class NotStartedError(Exception):
    """Raised if Ray does not start on this machine, because it was killed or the machine is overloaded."""


@dataclass(frozen=True)
class Connection:
    """A connection to a Ray cluster.

    Attributes:
        own: True if this process started Ray.
        dashboard: The address of Ray's dashboard, or "" if the cluster has none.
    """

    own: bool
    dashboard: str


@contextmanager
def connect(study: str) -> Iterator[Connection]:
    """Connect to the cluster of RAY_ADDRESS, or start Ray on this machine, and disconnect at the end of the block.

    A submitted job has RAY_ADDRESS set. Workers import the coldtune that this process imported.

    Raises:
        ValueError: If no cluster answers at RAY_ADDRESS.
        NotStartedError: If Ray does not start on this machine.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    address = os.environ.get("RAY_ADDRESS", "")
    own = local()
    # Under `uv run`, Ray would start every worker through uv in an uploaded copy of this folder. That environment is
    # new at best and lacks Ray at worst, and then the study would wait without end. A submitted job may want it.
    if own or not submitted():
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if not own:
        _check_reachable(address)
    else:
        # Despite its name, this makes all of Ray listen on 127.0.0.1 only, on every system. `_node_ip_address` alone
        # does not, because Ray would replace a loopback address by the machine's own.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray.job_config import JobConfig

    options: dict[str, Any] = {
        "address": "local",
        "object_store_memory": 256 * 2**20,
        "include_dashboard": True,
    }
    package = str(Path(coldtune.__file__).parents[1])
    python_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    try:
        context = ray.init(
            **(options if own else {}),
            job_config=JobConfig(metadata=_job_metadata(study)),
            runtime_env={"env_vars": {"PYTHONPATH": python_path}},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises a bare Exception if one of its processes dies during the start
        if own:
            raise NotStartedError(f"Ray did not start on this machine ({_first_line(error)})") from error
        if not isinstance(error, ConnectionError):
            raise
        raise ValueError(
            f"RAY_ADDRESS = {address}: {error}. If the cluster was started with a token, set RAY_AUTH_MODE=token and "
            "the token here too (`ray get-auth-token` on its head prints it)."
        ) from error
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the study itself reports the errors of trials
    try:
        yield Connection(own, context.dashboard_url or "")
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_reachable(address: str) -> None:
    """Raise ValueError if nothing answers at `address`. Ray itself would try for minutes."""
    if address.startswith("ray://"):
        raise ValueError(f"RAY_ADDRESS = {address}: a study runs inside its cluster. Start it with `ray job submit`.")
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return  # Ray reports the error, or finds the cluster itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS = {address}: no cluster answers there ({error}). Unset it to start Ray on this machine."
        ) from None


def _job_metadata(study: str) -> dict[str, str]:
    """Return the metadata of a job. `job_name` fills the column "Name" of the dashboard's job list."""
    return {"job_name": study, "study": study}


def nodes() -> list[dict[str, float]]:
    """Return the resources of every living node of the connected cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
