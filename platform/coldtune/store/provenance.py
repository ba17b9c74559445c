"""Where and with what software results are made. Recorded beside them, never part of a key."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import coldtune
from coldtune.files import write_file

# A longer diff is only counted. It is hardly a change of code.
_LONGEST_DIFF = 1_000_000
_MOST_UNTRACKED = 200


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


def keep_environment(folder: Path) -> dict[str, Any]:
    """Write the software of this process into `folder`, and return everything that is needed to repeat its results.

    The file is `DIGEST.json`: the version of Python and of every installed package, the commit of coldtune, and the
    changes of its checkout since. All processes with equal software share it.

    Returns:
        The result of `made`, and the digest under `software`.
    """
    text = _software()
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    if not (folder / f"{digest}.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / f"{digest}.json", text)
    return {**made(), "software": digest}


@cache
def _software() -> str:
    """Return the software of this process as JSON."""
    packages = {item.metadata["Name"]: item.version for item in distributions() if item.metadata["Name"]}
    commit = git_commit()
    return json.dumps(
        {
            "python": sys.version,
            "coldtune": coldtune.__version__,
            "commit": commit,
            **(_changes() if commit and commit.endswith("-dirty") else {}),
            "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        },
        indent=1,
    )


def _changes() -> dict[str, Any]:
    """Return the difference of the checkout to its commit, and the checksums of its untracked files."""
    root = Path(coldtune.__file__).parents[2]
    try:
        diff = _git(root, "diff", "HEAD")
        untracked = _git(root, "ls-files", "--others", "--exclude-standard").splitlines()
        sums = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in untracked[:_MOST_UNTRACKED]}
    except (OSError, subprocess.SubprocessError):
        return {}
    shown = diff if len(diff) <= _LONGEST_DIFF else f"({len(diff):,} characters, too long to keep)"
    return {"diff": shown, "untracked": sums}


def _git(root: Path, *command: str) -> str:
    run = ["git", "-C", str(root), *command]
    return subprocess.run(
        run, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=30
    ).stdout.strip()


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
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
