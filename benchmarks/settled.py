"""Simulate searches, and measure what `--stop-when-settled` loses and saves.

    uv run benchmarks/settled.py

Each search asks 100 settings of a known function of four keys. A value has normal noise. The rule stops the search at
the first number of settings at which it holds. *Lost* is the true value of the best setting at the stop, minus that of
the best setting of all 100, in units of the noise. A search that still gains would lose many units.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np
import optuna
from numpy.typing import NDArray

from coldtune.store.provenance import git_commit
from coldtune.studies.search.settled import LEAST, has_settled

Array = NDArray[np.float64]
SETTINGS, KEYS = 100, 4
CENTRE = 0.3


def bowl(x: Array) -> float:
    """Return a quadratic function whose keys matter unequally."""
    return float(3 * ((x - CENTRE) ** 2 * np.linspace(1, 0.2, KEYS)).sum())


def hole(x: Array) -> float:
    """Return a function with a narrow hole in a flat bowl, which a search finds late."""
    distance = ((x - CENTRE) ** 2).sum()
    return float(1 - np.exp(-distance / (2 * 0.12**2)) + 0.3 * distance)


def corner(x: Array) -> float:
    """Return a function that improves on the whole way to its best point."""
    return float(np.abs(x - 0.9).sum())


def valley(x: Array) -> float:
    """Return Rosenbrock's function on -1.5..1.5, divided by 500: a curved valley, whose floor falls slowly."""
    z = 3 * x - 1.5
    return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum() / 500)


def waves(x: Array) -> float:
    """Return Rastrigin's function on -1..1 around `CENTRE`, divided by 40: a bowl with many local minima."""
    z = 2 * (x - CENTRE)
    return float((z**2 + 10 * (1 - np.cos(2 * np.pi * z))).sum() / 40)


FUNCTIONS: dict[str, Callable[[Array], float]] = {each.__name__: each for each in (bowl, hole, corner, valley, waves)}


def search(function: Callable[[Array], float], sampler: str, noise: float, seed: int) -> tuple[Array, Array]:
    """Return the noisy and the true values of a search, in the order in which they were asked."""
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    study, rng = optuna.create_study(sampler=samplers[sampler]()), np.random.default_rng(seed + 1000)
    seen, true = [], []
    for _ in range(SETTINGS):
        trial = study.ask()
        value = function(np.array([trial.suggest_float(f"x{key}", 0, 1) for key in range(KEYS)]))
        seen.append(value + noise * rng.normal())
        true.append(value)
        study.tell(trial, seen[-1])
    return np.array(seen), np.array(true)


def first_stop(seen: Array, noise: float) -> int:
    """Return after how many settings the rule stops a search. All of them if it never does."""
    counts = range(LEAST, len(seen))
    return next((count for count in counts if has_settled(list(seen[:count]), noise)), len(seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20, help="searches of each row (default 20)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="seed of the first search (default 0)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore")
    began = time.time()
    seeds = range(options.first_seed, options.first_seed + options.studies)
    print(f"commit {git_commit()}, {options.studies} searches a row, seeds {seeds[0]} to {seeds[-1]}\n")
    print("| function | search | noise | stopped at (median) | never | lost (mean) | lost > 1 | lost > 2 | lost > 5 |")
    print("|:--|:--|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for name, function in FUNCTIONS.items():
        for sampler in ("tpe", "random"):
            for noise in (0.02, 0.1):
                made = [search(function, sampler, noise, seed) for seed in seeds]
                stops = np.array([first_stop(seen, noise) for seen, _ in made])
                lost = [
                    (true[seen[:stop].argmin()] - true[seen.argmin()]) / noise
                    for (seen, true), stop in zip(made, stops, strict=True)
                ]
                shares = [f"{100 * np.mean(np.array(lost) > bound):.0f} %" for bound in (1, 2, 5)]
                cells = [
                    name,
                    sampler,
                    f"{noise}",
                    f"{np.median(stops):.0f}",
                    f"{100 * np.mean(stops == SETTINGS):.0f} %",
                ]
                print(f"| {' | '.join([*cells, f'{np.mean(lost):.2f}', *shares])} |", flush=True)
    print(f"\n{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()
