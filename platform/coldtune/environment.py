"""Where a command runs: submitted to Ray, in Ray's copy of a folder, started through uv, and its default home."""

from __future__ import annotations

import os
from pathlib import Path


def submitted() -> bool:
    """Whether this process was started by `ray job submit`."""
    return bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"))


def local() -> bool:
    """Whether a study started now would start Ray on this machine, rather than run on the cluster of RAY_ADDRESS."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def in_ray_copy(path: Path) -> bool:
    """Whether `path` lies in Ray's own copy of a working directory, which disappears with its job."""
    return "runtime_resources" in path.parts


def default_home() -> Path:
    """`./runs`; in a submitted job whose working directory is Ray's copy, `coldtune-runs` in the user's home."""
    if home := os.environ.get("COLDTUNE_HOME"):
        return Path(home).expanduser().absolute()
    return Path.home() / "coldtune-runs" if in_ray_copy(Path.cwd()) else Path.cwd() / "runs"


def runner() -> str:
    """What goes before a command of this environment: `uv run ` where uv runs this process."""
    import os

    return "uv run " if "UV" in os.environ or "UV_RUN_RECURSION_DEPTH" in os.environ else ""
