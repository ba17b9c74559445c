"""Error levels: how 5 % are shared among the comparisons of a family and among all looks that can exist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from coldtune.verdicts.trainings import Array

LEAST = 3
"""With fewer trainings on a side, no verdict is about settings."""

FIRST_SHARE = 0.8
"""The share of the error that a fixed plan spends when it is complete. The rest is for trainings added afterwards."""

RACING_POWER = 2.0
RACING_SHARE = 0.75
"""A race has spent the share 0.75 (r / most)^2 of its error after r trainings (Kim and DeMets, 1987).

The bounds are those of normal means, applied to t statistics. If a single setting varies, all looks together then err
up to 1.28 times as often as planned. The reserve of a quarter covers that.
"""

Spending = Literal["once", "fixed", "racing"]


@dataclass(frozen=True)
class Plan:
    """When verdicts are given: at the looks, which are numbers of trainings of each setting.

    The error of all looks together is at most 5 %, by alpha spending (Lan and DeMets, 1983). A look happens when every
    setting that is still compared has that many trainings, and it uses no others. So watching a study costs nothing.
    In simulations, this decides earlier and more often than the confidence sequence of the t-test (Lai, 1976).

    Attributes:
        looks: Numbers of trainings, ascending. Looks below 3 trainings have no verdict and cost nothing.
        spending: How the error is spent. "fixed" spends 80 % at the first look, and half of the rest at each further
            look, since nobody knows how many will follow. "racing" has spent the share 0.75 (r / most)^2 after r
            trainings. "once" spends everything at a single look, after which nothing may be added.
    """

    looks: tuple[int, ...]
    spending: Spending = "fixed"

    def __post_init__(self) -> None:
        object.__setattr__(self, "looks", tuple(self.looks))
        if not self.looks or min(self.looks) < 1 or any(x >= y for x, y in pairwise(self.looks)):
            raise ValueError(f"looks = {list(self.looks)}: must be ascending numbers of trainings from 1")
        if self.spending == "once" and len(self.looks) > 1:
            raise ValueError(f"looks = {list(self.looks)}: a plan that spends its error once has one look")

    @classmethod
    def fixed(cls, replicates: int) -> Plan:
        """Return the plan of `replicates: 5`."""
        return cls((replicates,))

    @classmethod
    def racing(cls, first: int, most: int) -> Plan:
        """Return the plan of `replicates: {first: 2, most: 10}`: a look after each training from the first on.

        Raises:
            ValueError: If `first` is below 1, or `most` below `first`.
        """
        if first < 1 or most < first:
            raise ValueError(f"replicates.first = {first}, replicates.most = {most}: must be 1 <= first <= most")
        return cls(tuple(range(first, most + 1)), "racing")

    def extended(self, replicates: int) -> Plan:
        """Return the plan after trainings were added to it: a further look, which is charged as a look.

        Raises:
            ValueError: If there would be no more trainings than before, or the plan is a race.
        """
        if replicates <= self.looks[-1]:
            raise ValueError(f"replicates = {replicates}: must be more than the {self.looks[-1]} of the plan")
        if self.spending != "fixed":
            raise ValueError(f"replicates = {replicates}: only a fixed plan can be extended")
        return Plan((*self.looks, replicates))

    @property
    def counted(self) -> tuple[int, ...]:
        """The looks that may give a verdict."""
        return tuple(look for look in self.looks if look >= LEAST)

    def due(self, count: int) -> int | None:
        """Return the latest look that `count` trainings of each setting complete, or None."""
        return max((look for look in self.looks if look <= count), default=None)

    def alpha_at(self, look: int, alpha: float) -> float:
        """Return the level of a look, if all looks together may err with probability `alpha`.

        A look below 3 trainings has the level `alpha`, because it has no verdict.
        """
        counted = self.counted
        if look not in counted:
            return alpha
        shares = self._cumulative()
        levels = nominal_levels(tuple(look / counted[-1] for look in counted), tuple(alpha * x for x in shares))
        return levels[counted.index(look)]

    def _cumulative(self) -> tuple[float, ...]:
        """Return the share of the error that is spent up to and including each counted look."""
        counted = self.counted
        if self.spending == "once":
            return (1.0,)
        if self.spending == "fixed":
            return tuple(1 - (1 - FIRST_SHARE) / 2**number for number in range(len(counted)))
        return tuple(RACING_SHARE * (look / counted[-1]) ** RACING_POWER for look in counted)


def per_comparison(alpha: float, comparisons: int) -> float:
    """Return the level of each of some comparisons that together err with probability `alpha` (Sidak, 1967)."""
    return -math.expm1(math.log1p(-alpha) / max(comparisons, 1))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


@lru_cache(maxsize=4096)
def nominal_levels(fractions: tuple[float, ...], spent: tuple[float, ...]) -> tuple[float, ...]:
    """Return the two-sided level of each look of a group-sequential test.

    The statistic is a Brownian motion at the given information fractions, as for means of independent trainings. The
    density of the paths that have crossed no bound yet is integrated from look to look (Armitage, McPherson and Rowe,
    1969; Jennison and Turnbull, 2000, chapter 19).

    Args:
        fractions: The information at each look, ascending. Only ratios matter.
        spent: The error that all looks up to each look may spend together, ascending.
    """
    levels: list[float] = []
    nodes, density = np.zeros(1), np.ones(1)
    before, already = 0.0, 0.0
    for fraction, total in zip(fractions, spent, strict=True):
        step = math.sqrt(fraction - before)
        bound = _bound(nodes, density, math.sqrt(fraction), step, total - already)
        levels.append(float(2 * ndtr(-bound)))
        edge = bound * math.sqrt(fraction)
        new = _NODES * edge
        kernel = np.exp(-0.5 * ((new[:, None] - nodes[None]) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        nodes, density = new, (kernel @ density) * _WEIGHTS * edge
        before, already = fraction, total
    return tuple(levels)


def _bound(nodes: Array, density: Array, scale: float, step: float, error: float) -> float:
    """Return the bound on |Z| that paths at `nodes` cross with probability `error` at this look."""

    def excess(bound: float) -> float:
        edge = bound * scale
        crossed = ndtr((-edge - nodes) / step) + ndtr((nodes - edge) / step)
        return float(density @ crossed) - error

    low, high = 0.0, 12.0
    if excess(high) >= 0:  # nothing is left to spend
        return high
    return float(brentq(excess, low, high, xtol=1e-10))
