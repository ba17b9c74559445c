"""The difference of settings with both of its uncertainties: the luck of training, and the images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from coldtune.metrics.intervals import Interval, normal_interval
from coldtune.verdicts.trainings import Array, Panel

Pair = Literal["network", "seed"]
"""What makes two trainings of different settings a pair: the same trained network only, or an equal seed too."""

_CAUTIOUS_BELOW, _CAUTIOUS_OF_FEW, _FEW = 0.03, 0.05, 3

LEAST_P = 1e-12
"""Smaller p-values are given as this value."""

_BISECTIONS = 50  # halve the range of log levels until it is narrower than a p-value's digits

LEAST_PAIRS = 3
"""With fewer pairs than this, trainings without a partner are worth more than the pairing."""


def cautious_below(trainings: int) -> float:
    """Return the level below which intervals are wider than Welch's, if the smaller group has so many trainings."""
    return _CAUTIOUS_OF_FEW if trainings <= _FEW else _CAUTIOUS_BELOW


@dataclass(frozen=True)
class TrainingPart:
    """A group of independent trainings (or of independent pairs) behind a difference.

    Attributes:
        variance: The variance of the group's terms of the difference, between trainings. None with one training.
        count: The number of trainings.
        settings: The settings whose trainings are combined here. More than one setting means pairs.
    """

    variance: float | None
    count: int
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A weighted sum of the means of settings, usually the mean of A minus that of B, with its standard error.

    The variance has two crossed sources. Each group of independent trainings adds s^2 / k. The images add a part that
    does not shrink with more trainings, because the same images judge all of them. The terms are those of a random
    effects model with crossed trainings and images (Gallas, 2006; Owen, 2007). The variances of the settings may
    differ (Welch, 1938; Satterthwaite, 1946), and are not pooled.

    Attributes:
        value: The weighted sum of means.
        parts: The groups of independent trainings.
        image_variance: The variance that the images add, apart from the part that shrinks with more networks.
        network_variance: The variance over images alone, if these networks are taken as given.
        num_images: The number of images.
        counts: By setting, the number of trainings that were used. Trainings without a partner are left out if the
            settings are paired.
    """

    value: float
    parts: tuple[TrainingPart, ...]
    image_variance: float
    network_variance: float
    num_images: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def paired(self) -> bool:
        """True if trainings of different settings were paired."""
        return any(len(part.settings) > 1 for part in self.parts)

    @property
    def least(self) -> int:
        """The number of trainings of the setting that has the fewest."""
        return min(part.count for part in self.parts)

    @property
    def training_variance(self) -> float:
        """The variance that the luck of training adds. Groups with one training add nothing."""
        return sum(part.variance / part.count for part in self.parts if part.variance is not None)

    @property
    def error(self) -> float:
        """The standard error over trainings and images."""
        return math.sqrt(self.training_variance + self.image_variance)

    @property
    def df(self) -> float:
        """The degrees of freedom of the standard error by Welch and Satterthwaite, infinite if the error is 0."""
        return _satterthwaite(self._terms())

    def half_width(self, alpha: float) -> float:
        """Return the half width of the two-sided interval that misses with probability `alpha`.

        Down to a level of 0.03 it is that of Welch and Satterthwaite, t(df) sqrt(V1 + V2 + ...). Far out in the tails,
        that interval misses too often: 3.5 times too often at 0.001, if 3 trainings vary 10 times as much as the other
        3. It also trusts a variance that is small by chance. Banerjee (1961) proved that sqrt(t1^2 V1 + t2^2 V2 + ...)
        never misses too often, if each t has the degrees of freedom of its own variance. But that interval is too wide.
        So below 0.03, the half width is the geometric mean of both. In simulations with unequal variances, it keeps the
        error (benchmarks/2026-11-27-verdicts.md). If a setting has three trainings, this begins below 0.05, because
        Welch's interval at 0.04 then misses in up to 5.6 % of studies. If it has two, it is Banerjee's at any level.

        Sums of g > 2 groups, such as effects in a factorial design, need less caution, because a single group hardly
        dominates and the effects of a design share their groups. Their mean gives Banerjee's the weight 2 / g^2.
        """
        welch = _quantile(self.df, alpha) * self.error
        two = any(part.count == 2 for part in self.parts)
        if alpha >= cautious_below(self.least) and not two:
            return welch
        banerjee = math.sqrt(sum(_quantile(df, alpha) ** 2 * variance for variance, df in self._terms()))
        if two or welch == 0:
            return banerjee
        weight = 2 / max(len(self.parts), 2) ** 2
        return float(welch ** (1 - weight) * banerjee**weight)

    def _terms(self) -> list[tuple[float, int]]:
        """Return the variance of each source of the error with its degrees of freedom."""
        terms = [(part.variance / part.count, part.count - 1) for part in self.parts if part.variance is not None]
        return [*terms, (self.image_variance, self.num_images - 1)]

    def interval(self, alpha: float) -> Interval:
        """Return the two-sided interval that misses the true difference with probability `alpha`."""
        half = self.half_width(alpha)
        return Interval(self.value, self.value - half, self.value + half)

    def image_interval(self) -> Interval:
        """Return the 95 % interval over images alone: a statement about these networks, not about settings."""
        return normal_interval(self.value, math.sqrt(self.network_variance))

    @property
    def p_value(self) -> float:
        """The two-sided p-value of "no difference", unadjusted: the largest level whose interval contains 0."""
        size = abs(self.value)
        if self.error == 0:
            return 1.0 if size == 0 else 0.0
        welch = float(min(2 * stdtr(min(self.df, 1e10), -size / self.error), 1.0))
        if welch >= cautious_below(self.least) and all(part.count != 2 for part in self.parts):
            return welch
        least, most = math.log(LEAST_P), 0.0  # the width falls if the level grows
        if self.half_width(LEAST_P) <= size:
            return LEAST_P
        for _ in range(_BISECTIONS):
            middle = (least + most) / 2
            contains = self.half_width(math.exp(middle)) > size
            least, most = (middle, most) if contains else (least, middle)
        return math.exp(most)


def _satterthwaite(terms: list[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of variances. Shares are squared, because tiny squares underflow."""
    total = sum(variance for variance, _ in terms)
    return 1 / sum((variance / total) ** 2 / df for variance, df in terms) if total else math.inf


def _quantile(df: float, alpha: float) -> float:
    """Return the two-sided quantile of Student's t. scipy has none for infinite degrees of freedom."""
    return float(stdtrit(min(df, 1e10), 1 - alpha / 2))


def contrast(panel: Panel, weights: Mapping[str, float], pair: Pair = "network") -> Difference:
    """Estimate a weighted sum of the means of settings.

    {"A": 1, "B": -1} is the difference A - B. {"AB": 1, "A": -1, "B": -1, "base": 1} is an interaction.

    Settings that use the same trained networks are paired: their terms are summed network by network, and the luck of
    training cancels as far as it is the same. The pairs are used if there are at least 3, or if a setting has no other
    trainings. Otherwise each shared network stays in the setting that has fewer trainings, and counts there alone.

    Args:
        panel: The trainings.
        weights: The weight of each setting. Settings with weight 0 play no part.
        pair: "seed" also pairs different trainings with equal seeds. Decide so before the first training.

    Raises:
        ValueError: If a setting is unknown or has no training, or a seed is there twice in a setting.
    """
    used = {name: weight for name, weight in weights.items() if weight}
    if unknown := [name for name in used if name not in panel.rows]:
        raise ValueError(f"setting {unknown[0]}: unknown; known are {', '.join(panel.rows)}")
    if empty := [name for name in used if not panel.rows[name]]:
        raise ValueError(f"setting {empty[0]}: has no training yet")
    keys = {name: _keys(panel, name, pair) for name in used}
    groups = [group for names in _connected(keys) for group in _independent({name: keys[name] for name in names})]
    value, parts, total = 0.0, [], np.zeros(len(panel.values))
    own = 0.0  # the part of the image variance that belongs to single networks, and shrinks with their number
    for group in groups:
        terms = np.zeros((len(next(iter(group.values()))), len(panel.values)))
        for name, rows in group.items():
            terms[np.arange(len(rows)), list(rows)] = used[name]
        count = len(terms)
        sums = terms @ panel.values
        value += float(sums.mean())
        variance = float(sums.var(ddof=1)) if count > 1 else None
        parts.append(TrainingPart(variance, count, tuple(group)))
        total += terms.mean(0)
        own += own_image_variance(terms @ panel.covariance @ terms.T) / count
    images = max(float(total @ panel.covariance @ total), 0.0)
    counts = {name: len(rows) for group in groups for name, rows in group.items()}
    return Difference(value, tuple(parts), max(images - own, 0.0), images, panel.num_images, counts)


def own_image_variance(covariance: Array) -> float:
    """Return the mean image variance (k, k) of networks that is not common to all of them.

    The variance between the values of trainings contains this part already, so it must not be added twice. 0 for a
    single network, because nothing can be told apart then.
    """
    count = len(covariance)
    if count < 2:
        return 0.0
    return max(float(np.trace(covariance) - covariance.sum() / count) / (count - 1), 0.0)


def _keys(panel: Panel, name: str, pair: Pair) -> dict[str | int, int]:
    """Return the row of each training of a setting by the key that pairs it."""
    trainings = panel.settings[name].trainings
    keys: list[str | int] = [training.seed if pair == "seed" else training.network for training in trainings]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"setting {name}: seed {twice} is there twice, so `pair: seed` is not defined")
    return dict(zip(keys, panel.rows[name], strict=True))


def _connected(keys: Mapping[str, Mapping[str | int, int]]) -> list[list[str]]:
    """Return the settings in groups, so that settings of different groups share no key."""
    groups: list[list[str]] = []
    for name, own in keys.items():
        joined = [group for group in groups if any(own.keys() & keys[other].keys() for other in group)]
        groups = [group for group in groups if group not in joined]
        groups.append([other for group in joined for other in group] + [name])
    return groups


def _independent(keys: dict[str, dict[str | int, int]]) -> list[dict[str, list[int]]]:
    """Return independent groups of rows: one group of pairs, or a group for each setting without shared networks."""
    if len(keys) == 1:
        return [{name: list(rows.values()) for name, rows in keys.items()}]
    common = [key for key in next(iter(keys.values())) if all(key in rows for rows in keys.values())]
    if common and (len(common) >= LEAST_PAIRS or len(common) == min(map(len, keys.values()))):
        return [{name: [rows[key] for key in common] for name, rows in keys.items()}]
    left = {name: dict(rows) for name, rows in keys.items()}
    for key in dict.fromkeys(key for rows in keys.values() for key in rows):
        owners = sorted((name for name in left if key in left[name]), key=lambda name: len(left[name]))
        for name in owners[1:]:
            if len(left[name]) > 1:
                del left[name][key]
    return [{name: list(rows.values())} for name, rows in left.items()]


def correlation(panel: Panel, a: str, b: str) -> float | None:
    """Return the correlation of values of trainings with equal seeds, or None with fewer than 3 such pairs."""
    values = [{training.seed: training.value for training in panel.settings[name].trainings} for name in (a, b)]
    common = [seed for seed in values[0] if seed in values[1]]
    x, y = (np.array([by_seed[seed] for seed in common]) for by_seed in values)
    if len(common) < LEAST_PAIRS or x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def chance_of_beating(difference: Difference, higher_is_better: bool) -> float | None:
    """Return the probability that a new training of A beats a new training of B on the same images.

    It is that of a predictive t distribution: the variance of a new training plus that of the two means. So it is
    nearer to 1/2 with few trainings. None with a single training on a side.
    """
    if any(part.variance is None for part in difference.parts):
        return None
    terms = [((part.variance or 0.0) * (1 + 1 / part.count), part.count - 1) for part in difference.parts]
    total = sum(variance for variance, _ in terms)
    advantage = difference.value if higher_is_better else -difference.value
    if total == 0:
        return 0.5 + 0.5 * float(np.sign(advantage))
    return float(stdtr(_satterthwaite(terms), advantage / math.sqrt(total)))
