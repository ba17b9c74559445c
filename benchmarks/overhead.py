"""Measure the share of a sweep's wall time that is not training, sampling or measuring, and split it into parts.

    uv run benchmarks/overhead.py --trials 4 --steps 2000 [--home DIR]

The script runs jobs/sweep_blur.py on scikit-learn's digits in a separate process, as a user does. The study says when
each trial was asked and told, and how long its stages took. The total is the time from the start of the command to its
end, multiplied by the number of trials at once. The result is a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from coldtune.store.provenance import git_commit, made
from coldtune.studies.storage.backends import open_storage

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Trial:
    """The times of a trial's ask and tell, in seconds after the command's start, and the seconds of its stages."""

    asked: float
    told: float
    work: float


def run(arguments: list[str], home: Path, scratch: str) -> tuple[float, float]:
    """Run the job, and return its start and its end in seconds since the epoch."""
    command = [sys.executable, str(ROOT / "jobs" / "sweep_blur.py"), "--home", str(home), "--confirm", "0", *arguments]
    print(f"    {shlex.join(command)}\n", file=sys.stderr, flush=True)
    began = time.time()
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, "RAY_TMPDIR": scratch})
    return began, time.time()


def trials(home: Path, began: float) -> list[Trial]:
    import optuna

    (folder,) = (home / "studies").iterdir()
    storage = open_storage(folder)
    study = optuna.load_study(study_name=folder.name, storage=storage)
    # A failed trial has no stages.
    return [_trial(trial, began) for trial in study.trials if "stages" in trial.user_attrs]


def _trial(trial: Any, began: float) -> Trial:
    def since(moment: datetime) -> float:
        return moment.timestamp() - began

    work = sum(seconds for _, _, found, seconds, *_ in trial.user_attrs["stages"] if not found)
    return Trial(since(trial.datetime_start), since(trial.datetime_complete), work)


def gaps(found: list[Trial], at_once: int) -> float:
    """Return the seconds between a trial's end and the next trial's start in the same slot, summed over all trials."""
    free: list[float] = []
    idle = 0.0
    for trial in sorted(found, key=lambda trial: trial.asked)[at_once:]:
        free = sorted(t.told for t in found if t.told <= trial.asked)
        taken = sum(other.asked < trial.asked for other in found) - at_once
        idle += trial.asked - free[taken]
    return idle


def report(found: list[Trial], wall: float, at_once: int) -> None:
    total, work = wall * at_once, sum(trial.work for trial in found)
    firsts, later = found[:at_once], found[at_once:]
    start = sum(trial.asked for trial in firsts)
    first = sum(trial.told - trial.asked - trial.work for trial in firsts)
    rest = sum(trial.told - trial.asked - trial.work for trial in later)
    between = gaps(found, at_once)
    ends = sorted(trial.told for trial in found)[-at_once:]
    tail = sum(ends[-1] - end for end in ends)
    end = at_once * (wall - ends[-1])
    rows = [
        ("training, sampling, measuring", work),
        ("from the command to the first trials: imports, checks, MLflow, Ray", start),
        (f"the first {at_once} trials, besides their stages: processes, imports", first),
        (f"the other {len(later)} trials, besides their stages", rest),
        ("between a trial's end and the next one's start", between),
        ("a slot that has no more trials waits for the last one", tail),
        ("after the last trial: the best one on test, table, records", end),
    ]
    print(f"| {len(found)} trials, {at_once} at once, {wall:.0f} s | slot seconds | share |\n| :-- | --: | --: |")
    for name, seconds in rows:
        print(f"| {name} | {seconds:.1f} | {100 * seconds / total:.1f} % |")
    print(f"| all but work | {total - work:.1f} | {100 * (total - work) / total:.1f} % |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2000, help="of training; about a minute a trial (default 2000)")
    parser.add_argument("--at-once", type=int, default=2, help="trials that this machine runs at once (default 2)")
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    arguments = ["--trials", str(options.trials), "--set", f"training.steps={options.steps}"]
    machine = made()
    print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), Python {machine['python']}.\n")
    with tempfile.TemporaryDirectory(prefix="oh") as scratch:
        home = options.home or Path(scratch)
        began, ended = run(arguments, home, scratch)
        report(trials(home, began), ended - began, options.at_once)


if __name__ == "__main__":
    main()
