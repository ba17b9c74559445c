"""Where and with what software a store entry is made. Recorded in its manifest, never part of its key."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import coldtune


def made() -> dict[str, Any]:
    """Describe this machine, its software versions, and how this process computes.

    Returns:
        Among others `device`, the GPU that the process has used, otherwise its CPU; `workers`, the number of processes
        of a distributed training, otherwise 1; and `threads`, those of torch, or None if torch was not imported.
    """
    torch = sys.modules.get("torch")
    device, threads, workers, built = _cpu(), None, 1, _version("torch")
    if torch is not None:
        built = str(torch.__version__)  # unlike the package's version, this names the CUDA version too
        threads = torch.get_num_threads()
        if torch.cuda.is_initialized():
            device = torch.cuda.get_device_name()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            workers = torch.distributed.get_world_size()
    return {**_machine(), "torch": built, "device": device, "threads": threads, "workers": workers}


@cache
def git_commit() -> str | None:
    """Return the commit of the running coldtune, with `-dirty` if files differ from it. None outside a checkout."""
    root = Path(coldtune.__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        return _git(root, "rev-parse", "HEAD") + ("-dirty" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *command: str) -> str:
    run = ["git", "-C", str(root), *command]
    return subprocess.run(run, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


@cache
def _machine() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "coldtune": coldtune.__version__,
        "commit": git_commit(),
    }


@cache
def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
