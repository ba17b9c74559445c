"""The result of an evaluator: a share for each key, its resamples, and whether it may be due to chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.9
"""The level of the intervals of importance."""

_UNEXPLAINED = 0.6  # by how much the ends of an interval move, times sqrt(1 - R2)


@dataclass(frozen=True)
class Estimate:
    """The shares of the keys.

    Attributes:
        shares: By key.
        by_chance: By key, whether the key may have no effect at all (`coldtune.studies.insight.chance`).
        resamples: By key, the shares under resampled settings and trainings. None if the evaluator has no intervals.
        r2: The share of the variance between settings that the model predicts for settings that it has not seen. It
            may be negative. None if the evaluator has no model of values.
    """

    shares: Mapping[str, float]
    by_chance: Mapping[str, bool]
    resamples: Mapping[str, Array] | None = None
    r2: float | None = None

    def ranked(self) -> list[str]:
        """Return the keys from the most to the least important."""
        return sorted(self.shares, key=lambda name: (-self.shares[name], name))

    def rank_held(self) -> dict[str, float]:
        """Return for each key the share of the resamples in which the key has its rank or a better one.

        The last key is left out, because every resample has it at its rank or better. Without resamples, all keys are
        left out.
        """
        if self.resamples is None:
            return {}
        drawn = np.array([self.resamples[name] for name in self.shares])
        held = {}
        for rank, name in enumerate(self.ranked()[:-1]):
            larger = (drawn > self.resamples[name]).sum(axis=0)
            held[name] = float((larger <= rank).mean())
        return held

    def interval(self, keys: tuple[str, ...]) -> tuple[float, float | None, float | None]:
        """Return the sum of the shares of some keys, and the ends of its interval. They are None without resamples.

        The interval has two parts: that of the resamples, and one for the part of the variance, 1 - R2, that the model
        does not predict. A missed part of the function changes a share by its product with the predicted part, which
        grows as the square root of 1 - R2. So both ends are moved by 0.6 sqrt(1 - R2). The factor was chosen in
        simulations, and intervals of the resamples alone contain the true share too rarely
        (benchmarks/2026-11-28-importance.md). The lower end is 0 if each of the keys may have its share by chance.
        """
        share = sum(self.shares[key] for key in keys)
        if self.resamples is None:
            return share, None, None
        drawn = np.sum([self.resamples[key] for key in keys], axis=0)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        unexplained = 0.0 if self.r2 is None else _UNEXPLAINED * (1 - min(max(self.r2, 0.0), 1.0)) ** 0.5
        low = 0.0 if all(self.by_chance[key] for key in keys) else max(min(low, share) - unexplained, 0.0)
        return share, float(low), float(min(max(high, share) + unexplained, 1.0))
