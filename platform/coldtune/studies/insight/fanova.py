"""fANOVA (Hutter et al. 2014): the share of the variance between settings that each key decides alone.

Optuna fits a random forest, and computes for each tree the variance that a key causes alone when all others are drawn
uniformly, divided by the whole variance. It is Sobol's first-order index of the forest. Every tree sees settings that
were drawn with replacement, so the trees are the resamples of the interval. Before that, the trainings of each setting
are drawn with replacement too.

A key without any effect gets a share as well. A permutation test (`chance.py`) says which keys may have no effect.
"""

from __future__ import annotations

import numpy as np
from optuna.importance import FanovaImportanceEvaluator
from sklearn.ensemble import RandomForestRegressor

from coldtune.studies.insight.chance import find_chance
from coldtune.studies.insight.estimate import Array, Estimate
from coldtune.studies.insight.sample import Sample, as_study, encode, in_logarithm, quiet

_DRAWS = 20  # of trainings
_TREES = 10  # of each draw
_FOREST = 200  # trees of the model whose R2 is stated


def evaluate_fanova(sample: Sample, seed: int = 0) -> Estimate:
    """Estimate the shares of an unconditional sample with one objective, whose values are not all equal."""
    assert len(sample.directions) == 1
    assert not sample.conditional
    logarithmic = in_logarithm(sample)
    rng = np.random.default_rng(seed)
    trees: list[dict[str, float]] = []
    with quiet():
        for draw in range(_DRAWS):
            values = sample.resampled_means(rng) if draw else sample.means()
            if np.ptp(values) == 0:
                continue
            study = as_study(logarithmic.points, logarithmic.distributions, values, sample.directions)
            trees += [_evaluate_tree(study, seed + draw * _TREES + tree) for tree in range(_TREES)]
    resamples = {name: np.array([shares[name] for shares in trees if shares]) for name in sample.distributions}
    means = {name: float(each.mean()) for name, each in resamples.items()}
    r2 = out_of_bag_r2(encode(logarithmic), sample.means()[:, 0], seed)
    return Estimate(means, find_chance(logarithmic, seed), resamples, r2)


def _evaluate_tree(study: object, seed: int) -> dict[str, float]:
    """Return the shares of a forest of a single tree. Empty if the tree's settings have equal values."""
    try:
        return FanovaImportanceEvaluator(n_trees=1, seed=seed).evaluate(study)  # type: ignore[arg-type]
    except RuntimeError:  # zero variance
        return {}


def out_of_bag_r2(points: Array, values: Array, seed: int = 0) -> float:
    """Return the R2 of a forest like that of fANOVA, each setting predicted by the trees that have not seen it."""
    forest = RandomForestRegressor(n_estimators=_FOREST, max_depth=64, oob_score=True, random_state=seed)
    return float(forest.fit(points, values).oob_score_)
