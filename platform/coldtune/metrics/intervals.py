"""95 % intervals: the infinitesimal jackknife for distances, a seeded bootstrap for means, Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.metrics.moments import to_float64

LEVEL = 0.95
RESAMPLES = 2000
_QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)  # 1.96
_DRAWN = 1 << 20  # resampled indices held at a time: 8 MB
_BOOTSTRAP = draws.stream("metrics/bootstrap")


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of a monotone function of the estimate, such as the root of a mean squared error."""
        low, high = sorted((function(self.low), function(self.high)))
        return Interval(function(self.value), low, high)

    def within(self, least: float, most: float) -> Interval:
        """The interval with its bounds in [least, most], where the estimated quantity lies."""
        return Interval(self.value, max(self.low, least), min(self.high, most))

    @property
    def excludes_zero(self) -> bool:
        """Whether both bounds lie on one side of 0."""
        return self.low > 0 or self.high < 0


def jackknife_interval(value: float, influences: Tensor) -> Interval:
    """value +- 1.96 standard errors, of influences (N,) of mean 0: variance sum(influences^2) / (N (N - 1)).

    Also for the difference of two values on the same images: hand in the difference of their influences.
    ValueError below 2 images.
    """
    count = len(influences)
    if count < 2:
        raise ValueError(f"{count} influences: an interval needs at least 2 images")
    error = float(((influences**2).sum() / (count * (count - 1))).sqrt())
    reach = _QUANTILE * error
    return Interval(value, value - reach, value + reach)


def share_interval(share: float, count: int) -> Interval:
    """A share of `count` independent images with Wilson's (1927) interval, which has a width at 0 and 1 too.

    At a share of 1 its lower bound is 1 / (1 + 3.84 / count): with 100 images 0.963. ValueError for a share outside
    [0, 1] and below 1 image.
    """
    if not 0 <= share <= 1 or count < 1:
        raise ValueError(f"share = {share} of {count} images: allowed are 0..1 of at least 1")
    spread = _QUANTILE**2 / count
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return Interval(share, min(middle - reach, share), max(middle + reach, share)).within(0.0, 1.0)


def bootstrap_mean(values: Tensor, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean over images of values (N,), with its percentile bootstrap interval.

    The resamples are those of (seed, N), the same for all models: two means at one seed are resampled alike. The
    interval is that of the mean over images of this kind, at the same protocol. Narrower intervals need more images;
    more resamples only steady the bounds (at 2,000 by about 1/30 of the interval's half width).
    ValueError below 2 values, for values that are not finite, and below 100 resamples.
    """
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values {tuple(values.shape)}: a bootstrap needs (N,) with N >= 2, one for each image")
    if bad := int((~torch.isfinite(values)).sum()):
        raise ValueError(f"{bad} of {len(values)} values are NaN or infinite")
    if resamples < 100:
        raise ValueError(f"resamples = {resamples}: allowed are integers of at least 100")
    means = resampled_means(to_float64(values).cpu(), seed, resamples)
    low, high = torch.quantile(means, torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)).tolist()
    return Interval(float(to_float64(values).mean()), low, high)


def resampled_means(values: Tensor, seed: int, resamples: int) -> Tensor:
    """The mean of each resample of values (N,), drawn with replacement: (resamples,)."""
    count = len(values)
    seeds = draws.derive(seed, _BOOTSTRAP, torch.arange(resamples))
    chunks = torch.split(seeds, max(_DRAWN // count, 1))
    return torch.cat([values[draws.integers(chunk, _BOOTSTRAP, 0, count, (count,))].mean(1) for chunk in chunks])
