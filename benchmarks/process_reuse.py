"""Compare processes that run trial after trial with a new process for each trial.

    uv run benchmarks/process_reuse.py [--trials 8] [--steps 20] [--rounds 2]

The script runs jobs/sweep_blur.py as a user does, and alternately the same with Tune's `reuse_actors` off. It measures
the time from each trial's ask to its tell, minus the time of its stages. What remains is the start of the process,
imports, data, store, records and pictures. The first trials are shown separately, because both ways must start a
process for each of them. The result is a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import overhead

from coldtune.store.provenance import git_commit, made

JOB = overhead.ROOT / "jobs" / "sweep_blur.py"
ANEW = """
import runpy, sys
from ray import tune
plain = tune.TuneConfig
tune.TuneConfig = lambda **settings: plain(**{**settings, "reuse_actors": False})
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def sweep(reused: bool, arguments: list[str], scratch: str) -> tuple[list[overhead.Trial], float]:
    """Run a sweep, and return its trials and its wall time."""
    home = Path(tempfile.mkdtemp(dir=scratch))
    how = [str(JOB)] if reused else ["-c", ANEW, str(JOB)]
    began = time.time()
    command = [sys.executable, *how, "--home", str(home), "--confirm", "0", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "RAY_TMPDIR": scratch})
    return overhead.trials(home, began), time.time() - began


def row(reused: bool, found: list[overhead.Trial], wall: float, at_once: int) -> str:
    found = sorted(found, key=lambda trial: trial.asked)
    besides = [trial.told - trial.asked - trial.work for trial in found]
    first, later = besides[:at_once], besides[at_once:]
    cells = [
        "used again" if reused else "one for each trial",
        f"{statistics.mean(first):.2f}",
        f"{statistics.median(later):.2f} ({min(later):.2f} to {max(later):.2f})",
        f"{wall:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20, help="of training (default 20)")
    parser.add_argument("--rounds", type=int, default=2, help="how often both ways are run, in turn (default 2)")
    parser.add_argument("--at-once", type=int, default=2, help="trials that this machine runs at once (default 2)")
    options = parser.parse_args()
    machine = made()
    print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), Python {machine['python']}.\n")
    first = f"first {options.at_once} trials besides their stages, s"
    print(f"| processes | {first} | later ones: median (range), s | sweep, s |")
    print("| :-- | --: | --: | --: |", flush=True)
    settings = {"training.steps": options.steps, "training.report_every": 10, "training.validate_every": options.steps}
    arguments = ["--trials", str(options.trials), "--set", *(f"{key}={value}" for key, value in settings.items())]
    for _ in range(options.rounds):
        for reused in (True, False):
            with tempfile.TemporaryDirectory(prefix="pr") as scratch:
                found, wall = sweep(reused, arguments, scratch)
            print(row(reused, found, wall, options.at_once), flush=True)


if __name__ == "__main__":
    main()
