"""The Ray cluster of a study: started on this machine, or the cluster that the study was submitted to."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import coldtune
from coldtune.addresses import redact
from coldtune.environment import local, submitted
from coldtune.studies.execution.ray_private import free_agent_port, keep_credentials_out, redacted_entrypoint
from coldtune.studies.preflight.ray_start import (
    OwnRay,
    check_reachable,
    default_token_file,
    prepare,
    token_warnings,
)

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
    # Otherwise `ray.init` waits for the first worker processes, even for dead ones, and ignores Ctrl-C meanwhile.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # ours contains a PYTHONPATH from `ray job submit`
}


# Causes of a failed start that a second attempt meets again.
_LASTING = re.compile(
    r"AF_UNIX|Permission denied|No space left|Read-only file system|No such file|Not a directory|File name too long"
)


class NotStartedError(Exception):
    """Raised if Ray does not start on this machine, because it was killed or the machine is overloaded."""


@dataclass(frozen=True)
class Connection:
    """A connection to a Ray cluster.

    Attributes:
        own: True if this process started Ray.
        dashboard: The address of Ray's dashboard, or "" if the cluster has none.
        logs: The folder of Ray's logs if this process started Ray, or else "".
        notes: Warnings for the user.
    """

    own: bool
    dashboard: str
    logs: str = ""
    notes: tuple[str, ...] = ()


class Cluster:
    """A connection to Ray that opens when it is first needed, and can be closed more than once."""

    def __init__(self, study: str, console: Console) -> None:
        self._study, self._console = study, console
        self._connection: Connection | None = None
        self._stack = ExitStack()

    def open(self) -> Connection:
        """Connect to Ray, or start it, unless that was done before. The errors are those of `connect`."""
        if self._connection is None:
            starting = "starting Ray on this machine" if local() else "connecting to Ray"
            if not self._console.is_terminal:
                self._console.print(starting, style="dim")
            with self._console.status(starting):
                self._connection = self._stack.enter_context(connect(self._study))
        return self._connection

    def close(self) -> None:
        """Disconnect from Ray, and stop it if this process started it."""
        self._stack.close()

    def __enter__(self) -> Connection:
        return self.open()

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def connect(study: str) -> Iterator[Connection]:
    """Connect to the cluster of RAY_ADDRESS, or start Ray on this machine, and disconnect at the end of the block.

    A submitted job has RAY_ADDRESS set. Workers import the coldtune that this process imported.

    Raises:
        ValueError: If no cluster answers at RAY_ADDRESS, or if Ray cannot start on this machine until the user changes
            something.
        NotStartedError: If Ray does not start on this machine for another cause.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    own = prepare() if local() else None
    # Under `uv run`, Ray would start every worker through uv in an uploaded copy of this folder. That environment is
    # new at best and lacks Ray at worst, and then the study would wait without end. A submitted job may want it.
    if own or not submitted():
        os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    package = str(Path(coldtune.__file__).parents[1])
    python_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    runtime_env: dict[str, Any] = {"env_vars": {"PYTHONPATH": python_path}}
    context = _start(own, runtime_env, study) if own else _join(os.environ["RAY_ADDRESS"], runtime_env, study)
    for name in ("ray", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the study itself reports the errors of trials
    keep_credentials_out()
    try:
        if own:
            logs = Path(context.address_info["session_dir"]) / "logs"
            yield Connection(True, context.dashboard_url or "", str(logs), own.notes)
        else:
            yield Connection(False, context.dashboard_url or "", notes=tuple(_token_warnings()))
    finally:
        _shut_down()


def _start(own: OwnRay, runtime_env: dict[str, Any], study: str) -> Any:
    """Start Ray on this machine."""
    # Despite its name, this makes all of Ray listen on 127.0.0.1 only, on every system. `_node_ip_address` alone does
    # not, because Ray would replace a loopback address by the machine's own.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if own.python:
        runtime_env = {**runtime_env, "py_executable": own.python}
    try:
        with free_agent_port(), redacted_entrypoint(redact):
            return ray.init(
                address="local",
                object_store_memory=256 * 2**20,
                include_dashboard=True,
                _temp_dir=str(own.folder),
                **_options(study, runtime_env),
            )
    except Exception as error:  # Ray raises a bare Exception if one of its processes dies during the start
        reason = f"Ray did not start on this machine ({_cause(str(error)) or type(error).__name__})"
        if isinstance(error, OSError) or _LASTING.search(str(error)):
            raise ValueError(
                f"{reason}. Ray's files are in {own.folder}; RAY_TMPDIR names another folder for them."
            ) from error
        raise NotStartedError(f"{reason}. Ray's logs are in {own.folder}/session_latest/logs.") from error


def _join(address: str, runtime_env: dict[str, Any], study: str) -> Any:
    """Connect to the cluster at `address`."""
    check_reachable(address)
    import ray

    try:
        with redacted_entrypoint(redact):
            return ray.init(**_options(study, runtime_env))
    except Exception as error:  # Ray raises many types, for example if it finds no token
        raise ValueError(
            f"RAY_ADDRESS = {address}: {_cause(str(error)) or type(error).__name__}. If the cluster was started with a "
            "token, set RAY_AUTH_MODE=token and the token here too (`ray get-auth-token` on its head prints it)."
        ) from error


def _options(study: str, runtime_env: dict[str, Any]) -> dict[str, Any]:
    from ray.job_config import JobConfig

    return {
        "job_config": JobConfig(metadata=_job_metadata(study)),
        "runtime_env": runtime_env,
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,  # what Ray logs about a failed start is in its exception too
    }


def _shut_down() -> None:
    import ray

    ray.shutdown()


def _cause(text: str) -> str:
    """Return the line of Ray's error that names the cause: the last error in a log that it quotes, or line 1."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors[-1:] or lines[:1] or [""])[0]


def _token_warnings() -> Iterator[str]:
    """Yield warnings about the file of the token with which this process talks to a cluster."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    with suppress(RuntimeError):  # no home folder
        yield from token_warnings(Path(named) if named else default_token_file())


def _job_metadata(study: str) -> dict[str, str]:
    """Return the metadata of a job. `job_name` fills the column "Name" of the dashboard's job list."""
    return {"job_name": study, "study": study}


def nodes() -> list[dict[str, float]]:
    """Return the resources of every living node of the connected cluster."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
