"""The settings of a study as a sample: points, and the values of their trainings. Importance is estimated from it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import create_trial

Array = NDArray[np.float64]
Values = tuple[tuple[float, ...], ...]
"""The values of a setting: for each training, a value for each objective."""


@dataclass(frozen=True)
class Sample:
    """Settings with their values. The training seed is no key of a point, because it is not chosen but drawn.

    Attributes:
        distributions: By short name, the distribution of each key that takes at least two values in the sample.
        points: The point of each setting. A key whose `when` is not met is missing.
        values: The values of each setting.
        directions: `minimize` or `maximize`, for each objective.
    """

    distributions: Mapping[str, BaseDistribution]
    points: tuple[Mapping[str, Any], ...]
    values: tuple[Values, ...]
    directions: tuple[str, ...]

    @property
    def conditional(self) -> bool:
        """True if some setting lacks a key."""
        return any(name not in point for point in self.points for name in self.distributions)

    def means(self) -> Array:
        """Return the mean of each setting over its trainings, shape (settings, objectives)."""
        return np.array([np.mean(each, axis=0) for each in self.values], dtype=np.float64)

    def resampled_means(self, rng: np.random.Generator) -> Array:
        """Return the mean of each setting over trainings that are drawn with replacement."""
        return np.array(
            [np.mean([each[i] for i in rng.integers(len(each), size=len(each))], axis=0) for each in self.values],
            dtype=np.float64,
        )


def varied(distributions: Mapping[str, BaseDistribution], points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the distributions of the keys that take at least two values, or are present in some points only."""
    return {
        name: distribution
        for name, distribution in distributions.items()
        if len({repr(point.get(name)) for point in points}) > 1
    }


def in_logarithm(sample: Sample) -> Sample:
    """Return the sample with the logarithm of each key that is searched in its logarithm.

    fANOVA weighs the range of a key uniformly. Without this, nine tenths of the weight would be on the largest decade.
    """
    logs = {name for name, each in sample.distributions.items() if _is_log(each)}
    if not logs:
        return sample
    distributions = {
        name: FloatDistribution(math.log(each.low), math.log(each.high)) if name in logs else each  # type: ignore[attr-defined]
        for name, each in sample.distributions.items()
    }
    points = [
        {name: math.log(value) if name in logs else value for name, value in point.items()} for point in sample.points
    ]
    return Sample(distributions, tuple(points), sample.values, sample.directions)


def _is_log(distribution: BaseDistribution) -> bool:
    return isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log


def encode(sample: Sample) -> Array:
    """Return the points as numbers, shape (settings, columns). Each choice becomes a column of zeros and ones."""
    columns: list[list[float]] = []
    for name, distribution in sample.distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            columns += [[float(point[name] == choice) for point in sample.points] for choice in distribution.choices]
        else:
            columns.append([float(point[name]) for point in sample.points])
    return np.array(columns, dtype=np.float64).T


def as_study(
    points: Sequence[Mapping[str, Any]],
    distributions: Mapping[str, BaseDistribution],
    values: Array,
    directions: Sequence[str],
) -> optuna.Study:
    """Return an Optuna study in memory with a finished trial for each point.

    Args:
        values: Shape (points, objectives).
    """
    study = optuna.create_study(directions=[StudyDirection[direction.upper()] for direction in directions])
    study.add_trials(
        [
            create_trial(
                params=dict(point),
                distributions={name: distributions[name] for name in point},
                values=[float(value) for value in row],
            )
            for point, row in zip(points, values, strict=True)
        ]
    )
    return study


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from warnings about experimental interfaces, small samples and new studies."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)
