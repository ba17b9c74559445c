"""Rungs rank trials otherwise than their final values do, so pruning may have ended good trials."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from coldtune.metrics.registry import higher_is_better, label
from coldtune.studies.insight.checks.check import HealthCheck, listed
from coldtune.studies.insight.facts import StudyFacts

_LEAST = 5  # trials that ran to the end
_AGREES = 0.5  # rank correlation
_RESAMPLES = 2000
_PROMOTED = 3  # trials of the random sample


def check_rungs(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Compare the ranking at each rung with the final ranking, over the trials that ran to the end.

    Pruned trials have no final value. They had the bad values at a rung, so without them nobody knows whether their
    final values would have been bad. Trials that are promoted from a random sample can tell.
    """
    metric = facts.rung_metric
    for step in facts.steps:
        known = [(setting.rung(step, metric), facts.mean(setting)) for setting in facts.settings]
        pairs = [(value, final) for value, final in known if value is not None]
        if len(pairs) < _LEAST:
            continue
        correlation, low, high = rank_correlation(np.array(pairs) * [-1 if higher_is_better(metric) else 1, facts.sign])
        if correlation >= _AGREES or np.isnan(correlation):
            continue
        final, what = label(facts.objective.metric), f"{facts.what}s"
        missing = f" {len(facts.pruned)} pruned {what} are missing in it." if facts.pruned else ""
        yield HealthCheck(
            "ranking at rungs",
            f"At step {step:,}, {label(metric)} ranks the {len(pairs)} {what} that ran to the end otherwise than their "
            f"final {final}: rank correlation {correlation:.2f}, 95 % CI [{low:.2f}, {high:.2f}].{missing}",
            _advice(facts),
        )


def rank_correlation(pairs: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return Spearman's rank correlation of two columns with its 95 % bootstrap interval. NaN if a column is constant.

    Args:
        pairs: Shape (n, 2).
    """
    rng, drawn = np.random.default_rng(0), []
    for _ in range(_RESAMPLES):
        sample = pairs[rng.integers(len(pairs), size=len(pairs))]
        if np.ptp(sample, axis=0).all():
            drawn.append(_spearman(sample))
    if not np.ptp(pairs, axis=0).all() or not drawn:
        return float("nan"), float("nan"), float("nan")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return _spearman(pairs), float(low), float(high)


def _spearman(pairs: NDArray[np.float64]) -> float:
    return float(np.corrcoef(stats.rankdata(pairs, axis=0).T)[0, 1])


def _advice(facts: StudyFacts) -> str:
    if not facts.pruned:
        return "Begin the rungs later (`rungs.steps`), or use `--set pruning.kind=none`."
    chosen = sorted(random.Random(facts.name).sample(facts.pruned, min(_PROMOTED, len(facts.pruned))))
    commands = [facts.command("study promote", number) for number in chosen]
    return f"Train a random sample of the pruned {facts.what}s to the end: {listed(commands)}. Then resume the study."
