"""Planning before any training: which difference can be detected, and when pairing by seed pays."""

from __future__ import annotations

import math

from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import nct

from coldtune.metrics.intervals import LEVEL
from coldtune.verdicts.estimate import CAUTIOUS_BELOW
from coldtune.verdicts.levels import FIRST_SHARE, LEAST, per_comparison

POWER = 0.8


def detectable_difference(
    sd: float,
    replicates: int,
    *,
    comparisons: int = 1,
    power: float = POWER,
    alpha: float = FIRST_SHARE * (1 - LEVEL),
    image_error: float = 0.0,
    correlation: float | None = None,
    df: float | None = None,
) -> float:
    """Return the difference of two settings that k trainings of each detect with 80 % power.

    Args:
        sd: The standard deviation between trainings of a setting, from a pilot or from earlier trainings.
        replicates: k, the trainings on each side of the comparison. For a main effect of a factorial design, it is the
            number of trainings at each level.
        comparisons: The comparisons of the family.
        power: The probability of a verdict if the true difference is the returned number.
        alpha: The error that all comparisons share, two-sided. The default is that of the first look of a fixed plan.
        image_error: The standard error that the images add to a difference. It does not shrink with k.
        correlation: The correlation of pairs, if trainings are paired. None if they are not.
        df: The degrees of freedom of the error, if more settings share it. None takes those of the two settings.

    Returns:
        The difference in units of the metric. Infinite below 3 trainings, because no verdict is given then.

    Raises:
        ValueError: If a number is out of range.
    """
    _check(sd, replicates, power)
    if replicates < LEAST:
        return math.inf
    training = 2 * sd**2 / replicates * (1 if correlation is None else 1 - correlation)
    images = image_error**2
    error = math.sqrt(training + images)
    if error == 0:
        return 0.0
    least = replicates - 1
    freedom = df if df is not None else least * (1 if correlation is not None else 2)
    level = per_comparison(alpha, comparisons)
    freedom = min(freedom * (error**2 / training) ** 2, 1e6) if training else 1e6  # Satterthwaite
    critical = _quantile(freedom, level)
    if level < CAUTIOUS_BELOW:  # as `Difference.half_width`
        banerjee = math.sqrt(_quantile(least, level) ** 2 * training + _quantile(1e6, level) ** 2 * images) / error
        critical = math.sqrt(critical * banerjee)

    def lacking(size: float) -> float:
        # The other tail is smaller than 2 %, and scipy has no number for it if `size` is large.
        other = nct.cdf(-critical, freedom, size) if size < 5 else 0.0
        return float(nct.sf(critical, freedom, size) + other) - power

    high = critical
    while lacking(high) < 0:
        high *= 1.25
    return float(brentq(lacking, 0.0, high)) * error


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
