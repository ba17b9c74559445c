"""Questions about a single Optuna distribution: its grid, a uniform draw, its values, and its description."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

_LOOKS_LIKE_ANOTHER = re.compile(r"[-+.\d][-+.\d_eE]*|(?i:null|none|true|false|yes|no|on|off|~|[-+]?\.?(?:nan|inf))")


def grid_size(path: str, distribution: BaseDistribution) -> int:
    """Return the number of values of one key, for a grid search.

    Raises:
        ValueError: If the number of values is unlimited. The message names the key `path`.
    """
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.single():
        return 1
    if distribution.step is None or distribution.log:
        raise ValueError(
            f"vary.{path}: search.algorithm = 'grid' needs choices or a step, because it tries every value"
        )
    return round((distribution.high - distribution.low) / distribution.step) + 1


def grid_values(distribution: BaseDistribution) -> Sequence[Any]:
    """Return all values of one key, for a grid search. Check `grid_size` first."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.single():
        return [distribution.low]
    assert distribution.step is not None
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + distribution.step * i for i in range(count)]


def draw_uniform(distribution: BaseDistribution, rng: random.Random) -> Any:
    """Draw a value uniformly, or log-uniformly if the distribution is logarithmic."""
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


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Return True if the distribution can produce `value`. A boolean is not a number here."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
    return distribution.low <= value <= distribution.high and abs(steps - round(steps)) < 1e-8


def describe_distribution(distribution: BaseDistribution) -> str:
    """Describe the allowed values for an error message, for example `10 to 40 in steps of 5`."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(write_value, distribution.choices))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = f" in steps of {distribution.step}" if distribution.step not in (None, 1) else ""
    return f"{distribution.low} to {distribution.high}{step}"


def write_value(value: Any) -> str:
    """Return a value as a space file writes it: null, true, and quotes around a text that looks like a number."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and (not value or _LOOKS_LIKE_ANOTHER.fullmatch(value)):
        return f"'{value}'"
    return str(value)


def grid_place(distribution: BaseDistribution, value: Any) -> int | None:
    """Return the place of a number on the grid of a distribution with a step. None if there is no such grid."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return None
    place: int = round((value - distribution.low) / distribution.step)
    return place
