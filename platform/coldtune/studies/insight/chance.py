"""A permutation test of each key: may a key without any effect explain the values as well?

A forest predicts the value of each setting from the other keys, with the trees that have not seen the setting. If the
key has no effect, then its values say nothing about the errors of these predictions. So the association between the
key and the errors is compared with the association after the errors were exchanged between settings at random.

A search chooses later points by earlier values. Late settings have better values, and their keys lie close together,
even those without any effect. So errors are exchanged only within blocks of consecutive settings.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from optuna.distributions import CategoricalDistribution
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor

from coldtune.studies.insight.sample import Array, Sample, encode

LEVEL = 0.03
"""A key is called more than chance if its share of as large permuted scores is at most this.

The aim is 5 %. It is smaller, because blocks do not remove all effects of a search. In searches by TPE for an additive
function, the level 0.05 called 7 % of the keys without effect more than chance (benchmarks/2026-11-28-importance.md).
"""

_BLOCK = 10  # consecutive settings, within which values are exchanged
_PERMUTATIONS = 199
_TREES = 100
_WIDTH = 0.25  # of the kernel, as a share of the settings


def find_chance(sample: Sample, seed: int = 0) -> dict[str, bool]:
    """Return for each key whether it may have no effect at all.

    A key that acts only together with others may be among them.

    Args:
        sample: An unconditional sample with one objective and at least two keys, in the order in which it was asked.
    """
    rng = np.random.default_rng(seed)
    orders = orders_within_blocks(len(sample.points), _PERMUTATIONS, rng)
    values = sample.means()[:, 0]
    found = {}
    for name in sample.distributions:
        errors = _errors_without(sample, name, values, seed)
        similar = _similarity(sample, name)
        found[name] = is_chance(_association(errors[None], similar)[0], _association(errors[orders], similar))
    return found


def orders_within_blocks(settings: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return random orders of the settings that exchange settings within blocks only, shape (count, settings)."""
    block = np.arange(settings) // _BLOCK
    return np.argsort(block + rng.random((count, settings)), axis=1)


def is_chance(observed: float, exchanged: Array, level: float = LEVEL) -> bool:
    """Return True if the share of scores that are as large is more than a level, the observed score counted too."""
    as_large = np.sum(exchanged >= observed * (1 - 1e-9))  # equal scores differ by rounding
    return bool((1 + as_large) / (1 + len(exchanged)) > level)


def _errors_without(sample: Sample, name: str, values: Array, seed: int) -> Array:
    """Return the errors of a forest of the other keys, each setting predicted by the trees that have not seen it."""
    others = {other: each for other, each in sample.distributions.items() if other != name}
    forest = RandomForestRegressor(n_estimators=_TREES, oob_score=True, random_state=seed)
    forest.fit(encode(dataclasses.replace(sample, distributions=others)), values)
    errors: Array = values - forest.oob_prediction_
    return errors - float(errors.mean())


def _similarity(sample: Sample, name: str) -> Array:
    """Return how similar two settings are in a key, 0..1, shape (settings, settings)."""
    chosen = [point[name] for point in sample.points]
    distribution = sample.distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        index = np.array([distribution.choices.index(each) for each in chosen])
        same: Array = (index[:, None] == index).astype(np.float64)
        return same
    rank: Array = rankdata(chosen) / len(chosen)
    similar: Array = np.exp(-(((rank[:, None] - rank) / _WIDTH) ** 2) / 2)
    return similar


def _association(errors: Array, similar: Array) -> Array:
    """Return for each row of errors how much settings with a similar key have similar errors."""
    associations: Array = ((errors @ similar) * errors).sum(axis=1)
    return associations
