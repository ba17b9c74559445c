"""PED-ANOVA (Watanabe et al. 2023): how much the best settings differ from all settings in each key.

Optuna compares the density of a key among the best tenth of the settings with its density among all of them. So a score
is about reaching the top, and not a share of variance. Scores are divided by their sum. Conditional keys have scores
too. With several objectives, the best settings are those near the Pareto front.

A key without any effect gets a score as well. Exchanging the values between settings at random, within blocks of
consecutive settings (`chance.py`), shows how large such a score is. There is no interval, because nothing is known that
it could cover.
"""

from __future__ import annotations

import numpy as np
from optuna.importance import PedAnovaImportanceEvaluator

from coldtune.studies.insight.chance import is_chance, orders_within_blocks
from coldtune.studies.insight.estimate import Array, Estimate
from coldtune.studies.insight.sample import Sample, as_study, quiet

TOP = 0.1
"""The share of settings that count as the best."""

_LEAST_TOP = 5  # settings, below which the density of the best is a guess
_PERMUTATIONS = 99
_LEVEL = 0.05  # of `is_chance`: simulated searches by TPE call at most 5 % of the keys without effect important


def evaluate_ped_anova(sample: Sample, seed: int = 0) -> Estimate:
    """Estimate the scores of a sample of at least 10 settings."""
    rng, means = np.random.default_rng(seed), sample.means()
    with quiet():
        raw = _scores(sample, means)
        orders = orders_within_blocks(len(means), _PERMUTATIONS, rng)
        exchanged = [_scores(sample, means[order]) for order in orders]
    by_chance = {
        name: is_chance(score, np.array([each[name] for each in exchanged]), _LEVEL) for name, score in raw.items()
    }
    return Estimate(_normalized(raw), by_chance)


def top_share(settings: int) -> float:
    """Return the share of settings that count as the best: a tenth, or more if a tenth is fewer than five."""
    return min(max(TOP, _LEAST_TOP / settings), 0.5)


def _scores(sample: Sample, values: Array) -> dict[str, float]:
    study = as_study(sample.points, sample.distributions, values, sample.directions)
    found = PedAnovaImportanceEvaluator(target_quantile=top_share(len(sample.points))).evaluate(study)
    return {name: float(found.get(name, 0.0)) for name in sample.distributions}


def _normalized(scores: dict[str, float]) -> dict[str, float]:
    total = sum(scores.values())
    return {name: score / total if total else 0.0 for name, score in scores.items()}
