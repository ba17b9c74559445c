"""The Ray cluster that a study runs on: one that it starts here, or the one it is submitted to."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import coldtune
from coldtune.environment import local, submitted

# Set before Ray is imported; what the user set stays.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the other engine prints tables and takes no reporter
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would wait for the trials to stop by themselves
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the study's storage is the truth; Tune's own state is never read
    # For a pruned trial to come to its end, its workers included, so that its process can run the next one: Tune's own
    # 2 s are less than that may take (`training.distributed`).
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # a PYTHONPATH given at `ray job submit` collides with ours, which holds it
}


class NotStartedError(Exception):
    """Ray, which a study starts on this machine, did not come up: it was killed, or the machine is overloaded."""


@contextmanager
def connect(study: str) -> Iterator[dict[str, Any]]:
    """Connect to the cluster of RAY_ADDRESS (set inside a submitted job), or start Ray on this machine, and leave it.

    Gives Ray's context as a dict. Workers import the coldtune that this process imported. ValueError where no cluster
    can be reached at RAY_ADDRESS; NotStartedError where Ray does not come up here.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    address = os.environ.get("RAY_ADDRESS", "")
    own = local()
    # Started by `uv run`, Ray would start every worker through uv in an uploaded copy of this folder: in an environment
    # made anew at best, without Ray at worst, and the study would wait for ever. A submitted job may want that.
    if own or not submitted():
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if not own:
        _reach(address)
    else:
        # Despite its name, what makes all of Ray listen on 127.0.0.1 only, on every system. `_node_ip_address` does
        # not: without this, Ray replaces a loopback address by the machine's own.
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
            job_config=JobConfig(metadata=_shown(study)),
            runtime_env={"env_vars": {"PYTHONPATH": python_path}},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises a bare one where a process of its own dies while it starts
        if own:
            raise NotStartedError(f"Ray did not start on this machine ({_first_line(error)})") from error
        if not isinstance(error, ConnectionError):
            raise
        raise ValueError(
            f"RAY_ADDRESS = {address}: {error}; a cluster that was started with a token wants RAY_AUTH_MODE=token and "
            "the token here too (`ray get-auth-token` on its head prints it)"
        ) from error
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what its errors mean for a trial, the study says itself
    if submitted():
        _name_submission(study)
    try:
        yield {"dashboard": context.dashboard_url, "own": own}
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _reach(address: str) -> None:
    """ValueError where nothing answers at `address`: Ray would try for minutes."""
    if address.startswith("ray://"):
        raise ValueError(f"RAY_ADDRESS = {address}: a study runs inside its cluster; start it with `ray job submit`")
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return  # Ray says what is wrong with it, or finds the cluster itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ValueError(
            f"RAY_ADDRESS = {address}: no cluster answers there ({error}); unset it to start Ray on this machine"
        ) from None


def _shown(study: str) -> dict[str, str]:
    """A job's metadata. `job_name` fills the column "Name" of the dashboard's job list."""
    return {"job_name": study, "study": study}


def _name_submission(study: str) -> None:
    """Add the study to the metadata that the dashboard and `ray job list` show of a submitted job.

    Ray shows what was given at `ray job submit --metadata-json` and ignores the driver's own, and a driver has no
    public way to add to it: this one is Ray's record of the job itself. Only decoration, so it may fail.
    """
    with contextlib.suppress(Exception):
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        config = json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])
        key = f"_ray_internal_job_info_{config['metadata']['job_submission_id']}".encode()
        info = json.loads(_internal_kv_get(key, namespace=b"job"))
        info["metadata"] = _shown(study) | (info["metadata"] or {})
        _internal_kv_put(key, json.dumps(info).encode(), overwrite=True, namespace=b"job")


def nodes() -> list[dict[str, float]]:
    """What each living node of the connected cluster has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
