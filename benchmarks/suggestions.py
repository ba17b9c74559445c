"""Time a suggestion of coldtune's TPE beside one of Optuna's own TPE, for studies of more and more trials.

    uv run benchmarks/suggestions.py [--trials 100 1000 10000] [--repeats 11]

Both draw the point of the same new trial of the same study of the blur space, in turn. The script stops if a point
differs. Times are milliseconds of the process's CPU, because other load on the machine lengthens them less than wall
time. "First" is the first suggestion of a process, in which coldtune reads all trials. The result is a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import bookkeeping
import torch
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from coldtune.store.provenance import git_commit, made
from coldtune.studies.search import config
from coldtune.studies.search.sampler import FeasibleSampler
from coldtune.studies.storage.optuna_private import create_running_trial, read_trial

WAYS = {"Optuna's TPE": "theirs", "coldtune's TPE": "tpe"}


def theirs(search: Any, study_seed: int, number: int) -> TPESampler:
    """Build Optuna's TPE with the options that coldtune uses."""
    return TPESampler(
        seed=config.trial_seed(study_seed, number),
        n_startup_trials=search.startup,
        multivariate=True,
        group=True,
        constant_liar=True,
    )


def suggest(sampler: FeasibleSampler, way: str, study: Any, trial: Any) -> tuple[float, dict[str, Any]]:
    """Return the CPU milliseconds of a suggestion, and its point."""
    ours = config.ALGORITHMS["tpe"]
    if way == "theirs":
        config.ALGORITHMS["tpe"] = theirs
    try:
        started = time.process_time()
        point = sampler.sample_relative(study, read_trial(study, trial), {})
        return 1000 * (time.process_time() - started), point
    finally:
        config.ALGORITHMS["tpe"] = ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000], help="trials of the studies")
    parser.add_argument("--repeats", type=int, default=11, help="suggestions of each study (default 11)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = made()
    print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), Python {machine['python']}.\n")
    print("| trials there | Optuna's TPE, ms: first | median | coldtune's TPE, ms: first | median | ratio of medians |")
    print("| --: " * 6 + "|", flush=True)
    with tempfile.TemporaryDirectory(prefix="suggestions") as scratch:
        for count in options.trials:
            ledger = bookkeeping.filled("tpe", count, Path(scratch) / str(count))
            samplers = {way: FeasibleSampler(ledger.space, ledger.spec.search, ledger.spec.seed) for way in WAYS}
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(1 + options.repeats):
                trial = create_running_trial(ledger.study, {})
                points = []
                for way, kind in WAYS.items():
                    taken, point = suggest(samplers[way], kind, ledger.study, trial)
                    times[way].append(taken)
                    points.append(point)
                assert points[0] == points[1], points
                ledger.study.tell(trial, state=TrialState.FAIL)
            (a, *before), (b, *after) = times.values()
            x, y = statistics.median(before), statistics.median(after)
            print(f"| {count:,} | {a:.0f} | {x:.1f} | {b:.0f} | {y:.1f} | {x / y:.1f} |", flush=True)


if __name__ == "__main__":
    main()
