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
QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)  # 1.96
_DRAWN = 1 << 20  # resampled indices in memory at a time: 8 MB
_BOOTSTRAP = draws.stream("metrics/bootstrap")


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """Return the interval of a monotone function of the estimate, such as the root of a mean squared error."""
        low, high = sorted((function(self.low), function(self.high)))
        return Interval(function(self.value), low, high)

    def within(self, low: float, high: float) -> Interval:
        """Return the interval with its bounds cut to [low, high], the range of the estimated quantity."""
        return Interval(self.value, max(self.low, low), min(self.high, high))

    @property
    def excludes_zero(self) -> bool:
        """True if both bounds lie on one side of 0."""
        return self.low > 0 or self.high < 0


def jackknife_interval(
    value: float, influences: Tensor, reference_influences: Tensor | None = None, pairs: Tensor | None = None
) -> Interval:
    """Return value +- 1.96 standard errors (`jackknife_error`).

    Args:
        value: The estimate, or the difference of two estimates on the same images.
        influences: Each image's influence (N,) on the value, mean 0. The influences of a difference are the difference
            of the influences.
        reference_influences: As in `jackknife_error`.
        pairs: As in `jackknife_error`.

    Raises:
        ValueError: If there are fewer than 2 images.
    """
    return normal_interval(value, jackknife_error(influences, reference_influences, pairs))


def jackknife_error(
    influences: Tensor, reference_influences: Tensor | None = None, pairs: Tensor | None = None
) -> float:
    """Return the standard error of an estimate from influences on it.

    The variance of a fixed reference is V(a) / N, with V(a) = sum(a^2) / (N - 1) for the influences a. A reference that
    is a sample too adds V(b) / M for its influences b. If images are restored from originals in the reference, both
    change together when the originals are drawn again. This adds 2 C(a, b) / M, with the covariance C over the N pairs.

    Args:
        influences: Each image's influence (N,), mean 0.
        reference_influences: Each reference image's influence (M,), mean 0. None takes the reference as fixed.
        pairs: The place in the reference of each image's original, integers (N,). None if the sets are independent.

    Raises:
        ValueError: If a set has fewer than 2 images.
    """
    rows = None if reference_influences is None else reference_influences[None]
    return math.sqrt(max(float(jackknife_covariance(influences[None], rows, pairs)), 0.0))


def jackknife_covariance(
    influences: Tensor, reference_influences: Tensor | None = None, pairs: Tensor | None = None
) -> Tensor:
    """Return the covariance (K, K) of K estimates on the same images, from influences on them.

    The variance of each estimate, and of a difference of two of them, is that of `jackknife_error`.

    Args:
        influences: Each image's influence on each estimate, (K, N), mean 0 over images.
        reference_influences: Each reference image's influence on each estimate, (K, M), mean 0. None takes the
            reference as fixed.
        pairs: As in `jackknife_error`.

    Raises:
        ValueError: If a set has fewer than 2 images.
    """
    covariance = _covariance(influences, influences) / influences.shape[1]
    if reference_influences is not None:
        count = reference_influences.shape[1]
        covariance = covariance + _covariance(reference_influences, reference_influences) / count
        if pairs is not None:
            originals = reference_influences[:, pairs]
            # Without images that have no partner, b has a mean other than 0.
            cross = _covariance(influences, originals - originals.mean(1, keepdim=True)) / count
            covariance = covariance + cross + cross.T
    return covariance


def normal_interval(value: float, error: float, count: int = 0) -> Interval:
    """Return value +- 1.96 standard errors. The number of images does not matter."""
    return Interval(value, value - QUANTILE * error, value + QUANTILE * error)


def _covariance(a: Tensor, b: Tensor) -> Tensor:
    """Return the covariances (K, K) of centred numbers (K, N)."""
    count = a.shape[1]
    if count < 2:
        raise ValueError(f"{count} influences: an interval needs at least 2 images")
    return a @ b.T / (count - 1)


def share_interval_of_error(share: float, error: float, count: int) -> Interval:
    """Return Wilson's interval of a share of `count` images whose standard error also has other sources.

    The share then tells as much as that of fewer images without these sources. Their number is `count` times the ratio
    of the two variances, the effective sample size of survey sampling (Kish, 1965). It is at most `count`.
    """
    alone = share * (1 - share) / (count - 1)  # the variance without other sources
    return share_interval(share, count * min(alone / error**2, 1.0) if alone > 0 and error > 0 else count)


def share_interval(share: float, count: float) -> Interval:
    """Return a share of `count` independent images with Wilson's (1927) interval, which has a width even at 0 and 1.

    At a share of 1 its lower bound is 1 / (1 + 3.84 / count), for example 0.963 with 100 images.

    Raises:
        ValueError: If the share is outside [0, 1], or there is no image.
    """
    if not 0 <= share <= 1 or count <= 0:
        raise ValueError(f"share = {share} of {count} images: allowed are 0..1 of at least 1")
    spread = QUANTILE**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half_width = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return Interval(share, min(middle - half_width, share), max(middle + half_width, share)).within(0.0, 1.0)


def bootstrap_mean(values: Tensor, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Return the mean over images of values (N,), with its percentile bootstrap interval.

    The interval is that of the mean over images of this kind, under the same protocol.

    Args:
        values: A number for each image.
        seed: Draws the resamples together with N, so that two models at one seed are resampled alike.
        resamples: The number of resamples. More resamples only steady the bounds (at 2,000 they vary by about 1/30 of
            the interval's half width). Narrower intervals need more images.

    Raises:
        ValueError: If there are fewer than 2 values, a value is not finite, or there are fewer than 100 resamples.
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
    """Return the mean of each resample of values (N,), drawn with replacement: (resamples,)."""
    count = len(values)
    seeds = draws.derive(seed, _BOOTSTRAP, torch.arange(resamples))
    chunks = torch.split(seeds, max(_DRAWN // count, 1))
    return torch.cat([values[draws.integers(chunk, _BOOTSTRAP, 0, count, (count,))].mean(1) for chunk in chunks])
