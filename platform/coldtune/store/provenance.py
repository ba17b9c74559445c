"""Where and with what a store entry is made: recorded in its manifest, never part of its key."""

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
    """This machine, these versions, and how this process computes.

    device: the GPU that the process has used, otherwise its CPU; workers: processes of the distributed training that
    it belongs to, 1 where it belongs to none; threads: of torch (None where torch is not loaded).
    """
    torch = sys.modules.get("torch")
    device, threads, workers, built = _cpu(), None, 1, _version("torch")
    if torch is not None:
        built = str(torch.__version__)  # which names the CUDA version too
        threads = torch.get_num_threads()
        if torch.cuda.is_initialized():
            device = torch.cuda.get_device_name()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            workers = torch.distributed.get_world_size()
    return {**_machine(), "torch": built, "device": device, "threads": threads, "workers": workers}


@cache
def git_commit() -> str | None:
    """The commit of the running coldtune, `-dirty` where files differ from it; None outside a checkout."""
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
