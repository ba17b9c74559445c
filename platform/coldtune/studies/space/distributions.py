"""Values of a space: dotted keys of nested mappings, and what can be drawn from a distribution."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def grid_values(path: str, distribution: BaseDistribution) -> Sequence[Any]:
    """The values of one key in a grid; ValueError naming `path` where there is no end of them."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None or distribution.log:
        raise ValueError(f"vary.{path}: search.algorithm = 'grid' needs choices or a step, it goes through every value")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + distribution.step * i for i in range(count)]


def uniform(distribution: BaseDistribution, rng: random.Random) -> Any:
    """A value drawn uniformly; log-uniformly where the distribution says so."""
    if isinstance(distribution, CategoricalDistribution):
        return rng.choice(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return rng.randrange(low, high + 1, distribution.step)  # type: ignore[arg-type]
    if step is not None and isinstance(distribution, FloatDistribution):
        return low + step * rng.randrange(round((high - low) / step) + 1)
    value = low * (high / low) ** rng.random() if distribution.log else rng.uniform(low, high)
    return round(value) if isinstance(distribution, IntDistribution) else value


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `value` is one of the distribution's."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and distribution._contains(distribution.to_internal_repr(value))


def described(distribution: BaseDistribution) -> str:
    """The distribution as an error names what is allowed."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = f" in steps of {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low} to {distribution.high}{step}"
