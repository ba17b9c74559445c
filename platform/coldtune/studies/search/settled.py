"""The rule by which a search has settled: more settings would hardly improve the best value by more than its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 30
"""The settings that a search must have before it can have settled."""

_LATE = 1 / 2  # of the settings
_BEST = 5  # settings of each half


def count_late(settings: int) -> int:
    """Return how many of the settings, in the order in which they were asked, are the late ones."""
    return int(_LATE * settings)


def late_gain(losses: Sequence[float]) -> float:
    """Return by how much the last half of the settings improved the best loss.

    Args:
        losses: The loss of each setting, in the order in which they were asked. At least two.
    """
    count = count_late(len(losses))
    return max(min(losses[:-count]) - min(losses), 0.0)


def gain_of_best_five(losses: Sequence[float]) -> float:
    """Return by how much the five best losses of the last half are better, on average, than those of the first half.

    A single value that was lucky early can hide for long that the search still improves. Five values hide it less.

    Args:
        losses: The loss of each setting, in the order in which they were asked. At least two.
    """
    count = count_late(len(losses))
    early, late = np.sort(losses[:-count])[:_BEST], np.sort(losses[-count:])[:_BEST]
    return max(float(early.mean() - late.mean()), 0.0)


def expected_gain(losses: Sequence[float]) -> float:
    """Return by how much a random half of the settings improves the best loss of the others, on average.

    A search often finds nothing in its last half by chance. This gain is the mean over all orders of the settings, so
    it is large while the best setting is better than the next ones. The best of m out of n settings has the rank k
    (from 0) with the probability C(n - 1 - k, m - 1) / C(n, m).

    Args:
        losses: The loss of each setting. At least two.
    """
    ranked, n = np.sort(np.asarray(losses, dtype=np.float64)), len(losses)
    m = n - count_late(n)
    expected, not_yet = 0.0, 1.0  # the probability that no better setting is among the m
    for rank in range(n - m + 1):
        expected += not_yet * m / (n - rank) * float(ranked[rank])
        not_yet *= 1 - m / (n - rank)
    return expected - float(ranked[0])


def has_settled(losses: Sequence[float], noise: float) -> bool:
    """Return True if no measure of the gain exceeds the noise (sd) of a loss. False for fewer than `LEAST` settings."""
    gains = (late_gain, gain_of_best_five, expected_gain)
    return len(losses) >= LEAST and max(gain(losses) for gain in gains) <= noise
