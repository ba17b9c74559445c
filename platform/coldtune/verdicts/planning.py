"""Planning before any training: which difference can be detected, and when pairing by seed pays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaincinv, ndtr, stdtrit
from scipy.stats import nct
from scipy.stats.qmc import Sobol

from coldtune.metrics.intervals import LEVEL
from coldtune.verdicts.estimate import cautious_below
from coldtune.verdicts.levels import FIRST_SHARE, LEAST, per_comparison
from coldtune.verdicts.trainings import Array

POWER = 0.8
_DRAWS = 4096  # points at which power is averaged over the variances that trainings may show
_MOST_GROUPS = 16  # with more groups of trainings, the degrees of freedom hardly vary


def detectable_difference(
    sd: float,
    replicates: int,
    *,
    comparisons: int = 1,
    power: float = POWER,
    alpha: float = FIRST_SHARE * (1 - LEVEL),
    image_error: float = 0.0,
    correlation: float | None = None,
) -> float:
    """Return the difference of two settings that k trainings of each detect with 80 % power.

    Args:
        sd: The standard deviation between trainings of a setting, from a pilot or from earlier trainings.
        replicates: k, the trainings on each side of the comparison.
        comparisons: The comparisons of the family.
        power: The probability of a verdict if the true difference is the returned number.
        alpha: The error that all comparisons share, two-sided. The default is that of the first look of a fixed plan.
        image_error: The standard error that the images add to a difference. It does not shrink with k.
        correlation: The correlation of pairs, if trainings are paired. None if they are not.

    Returns:
        The difference in units of the metric. Infinite below 3 trainings, because no verdict is given then.

    Raises:
        ValueError: If a number is out of range.
    """
    _check(sd, replicates, power)
    variances = [sd**2 / replicates] * 2 if correlation is None else [2 * sd**2 / replicates * (1 - correlation)]
    return _detected(variances, replicates, image_error**2, per_comparison(alpha, comparisons), power)


def detectable_effect(
    sd: float,
    replicates: int,
    weights: Sequence[float],
    *,
    comparisons: int = 1,
    power: float = POWER,
    alpha: float = FIRST_SHARE * (1 - LEVEL),
) -> float:
    """Return the size of a weighted sum of means that k independent trainings of each setting detect with 80 % power.

    Args:
        sd: The standard deviation between trainings of a setting.
        replicates: k.
        weights: The weights of the settings, for example those of a main effect.
        comparisons: The effects that share the error.
        power: The probability of an interval without 0 if the true sum is the returned number.
        alpha: As in `detectable_difference`.

    Raises:
        ValueError: If a number is out of range.
    """
    _check(sd, replicates, power)
    variances = [weight**2 * sd**2 / replicates for weight in weights if weight]
    return _detected(variances, replicates, 0.0, per_comparison(alpha, comparisons), power)


def _detected(variances: Sequence[float], replicates: int, images: float, level: float, power: float) -> float:
    """Return the sum that groups of trainings with these variances of their terms detect."""
    if replicates < LEAST:
        return math.inf
    error = math.sqrt(sum(variances) + images)
    if error == 0:
        return 0.0
    shares = tuple(sorted(round(variance / error**2, 9) for variance in variances))
    return _detected_errors(shares, replicates - 1, round(images / error**2, 9), level, power) * error


@lru_cache(maxsize=4096)
def _detected_errors(shares: tuple[float, ...], df: int, images: float, level: float, power: float) -> float:
    """Return the size that is detected, in standard errors.

    The half width of an interval follows from the variances that the trainings show, and these vary by chance. So the
    power is an average over them. With few trainings, it is far below that of a half width from the true variances.

    Args:
        shares: The share of each group of trainings in the variance.
        df: The degrees of freedom of each group.
        images: The share of the images, whose degrees of freedom are taken as infinite.
    """
    if len(shares) > _MOST_GROUPS:
        freedom = df / sum(share**2 for share in shares)  # Satterthwaite
        critical, half = float(stdtrit(freedom, 1 - level / 2)), None
    else:
        points = (Sobol(len(shares), scramble=False).random(_DRAWS) + 0.5 / _DRAWS) % 1
        # The quantiles of chi-squared variances, whose mean is that of the group.
        seen = gammaincinv(df / 2, points) * 2 / df * np.array(shares)
        half = _half_width(seen, df, images, level)
        critical = float(half.max())

    def lacking(size: float) -> float:
        if half is None:
            # The other tail is smaller than 2 %, and scipy has no number for it if `size` is large.
            other = nct.cdf(-critical, freedom, size) if size < 5 else 0.0
            return float(nct.sf(critical, freedom, size) + other) - power
        return float(np.mean(ndtr(size - half) + ndtr(-size - half))) - power

    return float(brentq(lacking, 0.0, critical + 10.0))


def _half_width(seen: Array, df: int, images: float, level: float) -> Array:
    """Return the half widths of intervals for observed variances (n, groups), as `Difference.half_width` has them."""
    total = seen.sum(1) + images
    freedom = np.minimum(total**2 / ((seen**2).sum(1) / df + images**2 / 1e6), 1e6)
    welch: Array = stdtrit(freedom, 1 - level / 2) * np.sqrt(total)
    if level >= cautious_below(df + 1):
        return welch
    banerjee = np.sqrt(_quantile(df, level) ** 2 * seen.sum(1) + _quantile(1e6, level) ** 2 * images)
    weight = 2 / max(seen.shape[1], 2) ** 2
    return np.asarray(welch ** (1 - weight) * banerjee**weight)


def trainings_to_detect(
    sd: float, difference: float, *, most: int = 1000, comparisons: int = 1, power: float = POWER, **more: float
) -> int | None:
    """Return the fewest trainings of each setting that detect a difference, or None if `most` do not.

    Arguments are those of `detectable_difference`.
    """
    if difference <= 0:
        raise ValueError(f"difference = {difference:g}: must be greater than 0")

    def enough(count: int) -> bool:
        return detectable_difference(sd, count, comparisons=comparisons, power=power, **more) <= difference

    low, high = LEAST - 1, LEAST  # `low` is not enough
    while not enough(high):
        low, high = high, 2 * high
        if low >= most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= most else None


def paying_correlation(replicates: int) -> float:
    """Return the correlation of pairs above which pairing k trainings by seed makes intervals narrower.

    Pairing removes the share r of the variance, but leaves k - 1 instead of 2 (k - 1) degrees of freedom. It pays if
    r > 1 - (t(2k - 2) / t(k - 1))^2: above 0.58 at k = 3, 0.31 at k = 5 and 0.14 at k = 10.

    Raises:
        ValueError: With fewer than 2 trainings.
    """
    if replicates < 2:
        raise ValueError(f"replicates = {replicates}: pairs have no correlation below 2")
    quantile = 1 - (1 - LEVEL) / 2
    unpaired, paired = stdtrit(2 * (replicates - 1), quantile), stdtrit(replicates - 1, quantile)
    return float(1 - (unpaired / paired) ** 2)


def _quantile(df: float, alpha: float) -> float:
    return float(stdtrit(df, 1 - alpha / 2))


def _check(sd: float, replicates: int, power: float) -> None:
    if not math.isfinite(sd) or sd < 0:
        raise ValueError(f"sd = {sd:g}: must be a finite number of at least 0")
    if replicates < 1:
        raise ValueError(f"replicates = {replicates}: must be at least 1")
    if not 0 < power < 1:
        raise ValueError(f"power = {power:g}: must be between 0 and 1")
