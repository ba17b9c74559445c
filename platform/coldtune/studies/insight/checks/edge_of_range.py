"""The best values of a range lie at its edge, so better values may lie beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution, IntDistribution
from scipy import stats

from coldtune.metrics.registry import label
from coldtune.studies.insight.checks.check import HealthCheck
from coldtune.studies.insight.facts import StudyFacts

_LEAST = 10  # settings with the key
_BEST, _LEAST_BEST = 0.1, 5  # the share of settings that are the best, and their least number
_EDGE = 0.1  # of the range
_ALPHA = 0.05  # of all ends of all keys together

_Range = FloatDistribution | IntDistribution
Array = NDArray[np.float64]


def check_edges(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Find ranges with most of the best settings at the same end.

    Two things must hold. The best settings lie there more often than uniform points would. And settings there are
    better than settings elsewhere, because a search also visits an end by chance.
    """
    ranges = {key: each for key, each in facts.distributions.items() if isinstance(each, _Range) and not each.single()}
    for name, distribution in ranges.items():
        having = [setting for setting in facts.settings if name in setting.point]
        if len(having) < _LEAST:
            continue
        losses = facts.sign * np.array([facts.mean(setting) for setting in having])
        places = np.array([_place(distribution, float(setting.point[name])) for setting in having])
        for at_top in (False, True):
            if _is_best_at_end(1 - places if at_top else places, losses, distribution, 2 * len(ranges)):
                yield _finding(facts, name, distribution, at_top)


def _is_best_at_end(distances: Array, losses: Array, distribution: _Range, tests: int) -> bool:
    """Return True if the best settings lie at an end of a range.

    Args:
        distances: How far each setting is from the end, 0 to 1.
        tests: The number of ends that are tested, which share the error.
    """
    count = max(math.ceil(_BEST * len(losses)), _LEAST_BEST)
    width = max(_EDGE, count / len(losses)) + 1e-9  # of uniform points, as many lie there as count as the best
    at_end = distances <= width
    there = int(at_end[np.argsort(losses, kind="stable")[:count]].sum())
    if 2 * there <= count or at_end.all():
        return False
    crowded = stats.binomtest(there, count, _expected(distribution, width), "greater")
    better = stats.mannwhitneyu(losses[at_end], losses[~at_end], alternative="less")
    return bool(max(crowded.pvalue, better.pvalue) < _ALPHA / tests)


def _place(distribution: _Range, value: float) -> float:
    """Return where a value lies in its range, 0 to 1, in the scale of the search."""
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _expected(distribution: _Range, width: float) -> float:
    """Return the share of uniform points that are no farther than `width` from an end."""
    if distribution.step is None or distribution.log:
        return width
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return (math.floor(width * (count - 1)) + 1) / count


def _finding(facts: StudyFacts, name: str, distribution: _Range, at_top: bool) -> HealthCheck:
    end = distribution.high if at_top else distribution.low
    side, direction = ("upper", "above") if at_top else ("lower", "below")
    best = "settings" if len(facts.objectives) == 1 else f"settings by {label(facts.objective.metric)}"
    return HealthCheck(
        "edge of range",
        f"Most of the best {best} have `{name}` near the {side} end of its range, {end:g}.",
        f"Widen `{facts.paths.get(name, name)}` {direction} {end:g} if such values are possible. A new study with "
        f"`--import {facts.name}` keeps what this one knows.",
    )
