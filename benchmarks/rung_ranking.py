"""Measure how well the rungs of an unpruned study rank its settings, and how many prunings would be regretted.

    uv run coldtune study run benchmarks/rung_ranking.yaml --trials 40 --replicates 2 --study rung-ranking --home HOME
    uv run benchmarks/rung_ranking.py --study rung-ranking --home HOME

A rung that keeps the best half is simulated on studies of 12 settings, which are drawn at random from all settings. A
pruning is regretted if the pruned setting has a better final value than every kept setting. Intervals are 95 %
bootstrap intervals over settings. If every setting has two trainings, the rank correlation of their final values says
how well any early value could rank at most.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coldtune.cli.common import find_study
from coldtune.metrics import higher_is_better
from coldtune.store.provenance import git_commit
from coldtune.studies.insight.checks.rung_ranking import rank_correlation
from coldtune.studies.insight.facts import SettingFacts, StudyFacts, observe
from coldtune.studies.trials.reading import read_study

Array = NDArray[np.float64]
_SUBSET, _KEPT = 12, 0.5
_STUDIES, _RESAMPLES = 400, 200
_LEAST_AT_ALL = 4  # settings
_LEAST = 30  # settings, below which the numbers only show that the script works


def columns(facts: StudyFacts, step: int) -> Array:
    """Return the value at a rung and the final value of each setting, smaller is better. Shape (settings, 2)."""
    sign = -1 if higher_is_better(facts.rung_metric) else 1
    pairs = [(each.rung(step, facts.rung_metric), facts.mean(each)) for each in facts.settings]
    return np.array([(sign * value, facts.sign * final) for value, final in pairs if value is not None])


def prune(pairs: Array, rng: np.random.Generator) -> tuple[float, float, float]:
    """Simulate prunings at a rung.

    Returns:
        The share of prunings that are regretted, the share of studies that prune their best setting, and by how much
        the best final value of a study gets worse on average.
    """
    size = min(_SUBSET, len(pairs))
    kept = max(int(_KEPT * size), 1)
    regretted, lost = [], []
    for _ in range(_STUDIES):
        chosen = pairs[rng.permutation(len(pairs))[:size]]
        final = chosen[np.argsort(chosen[:, 0], kind="stable"), 1]
        best = final[:kept].min()
        regretted.append(np.mean(final[kept:] < best))
        lost.append(max(best - final[kept:].min(), 0.0))
    return float(np.mean(regretted)), float(np.mean(np.array(lost) > 0)), float(np.mean(lost))


def with_interval(pairs: Array, measure: Callable[[Array, np.random.Generator], tuple[float, ...]]) -> list[str]:
    """Return each number of `measure` with its bootstrap interval over settings."""
    rng = np.random.default_rng(0)
    values = measure(pairs, rng)
    drawn = np.array([measure(pairs[rng.integers(len(pairs), size=len(pairs))], rng) for _ in range(_RESAMPLES)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return [f"{value:.3f} [{a:.3f}, {b:.3f}]" for value, a, b in zip(values, low, high, strict=True)]


def ceiling(settings: tuple[SettingFacts, ...]) -> str:
    """Return the rank correlation of the final values of two trainings of each setting, or why it is not known."""
    several = [each.values for each in settings if len(each.values) > 1]
    if len(several) < len(settings) or len(settings) < 3:
        return "not known, because settings have a single training"
    value, low, high = rank_correlation(np.array([(first[0], second[0]) for first, second, *_ in several]))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="the home of the study")
    parser.add_argument("--study", required=True, help="the name of the study")
    options = parser.parse_args()
    reader = read_study(find_study(options.home.absolute(), options.study))
    facts = observe(reader, options.home)
    if facts.pruned:
        sys.exit(f"{options.study}: {len(facts.pruned)} settings were pruned, and only an unpruned study can tell")
    if len(facts.settings) < _LEAST_AT_ALL:
        sys.exit(f"{options.study}: {len(facts.settings)} settings have finished, and a ranking needs {_LEAST_AT_ALL}")
    trainings = sum(len(each.values) for each in facts.settings)
    print(f"commit {git_commit()}, study {options.study}: {len(facts.settings)} settings, {trainings} trainings")
    if len(facts.settings) < _LEAST:
        print(f"Fewer than {_LEAST} settings, so these numbers only show that the script works.")
    print(f"rank correlation of the final values of two trainings of a setting: {ceiling(facts.settings)}\n")
    print(
        "| rung at step | settings | rank correlation with the final value | prunings regretted | best setting pruned ",
        end="",
    )
    print("| final value worse by |\n|--:|--:|--:|--:|--:|--:|")
    for step in facts.steps:
        pairs = columns(facts, step)
        value, low, high = rank_correlation(pairs)
        cells = [f"{step}", f"{len(pairs)}", f"{value:.2f} [{low:.2f}, {high:.2f}]", *with_interval(pairs, prune)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
