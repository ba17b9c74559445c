"""PED-ANOVA (Watanabe et al. 2023): how much the best settings differ from all settings in each key.

Optuna compares the density of a key among the best tenth of the settings with its density among all of them. So a score
is about reaching the top, and not a share of variance. Scores are divided by their sum. Conditional keys have scores
too. With several objectives, the best settings are those near the Pareto front.

A key without any effect gets a score as well. Exchanging the values between settings at random shows how large such a
score is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator

from coldtune.studies.insight.estimate import Array, Estimate
from coldtune.studies.insight.sample import Sample, as_study, quiet

TOP = 0.1
"""The share of settings that count as the best."""

_LEAST_TOP = 5  # settings, below which the density of the best is a guess
_RESAMPLES = 100
_PERMUTATIONS = 100


def evaluate_ped_anova(sample: Sample, seed: int = 0) -> Estimate:
    """Estimate the scores of a sample of at least 10 settings."""
    rng, means, count = np.random.default_rng(seed), sample.means(), len(sample.points)
    everything = np.arange(count)
    with quiet():
        raw = _scores(sample, everything, means)
        exchanged = [_scores(sample, everything, means[rng.permutation(count)]) for _ in range(_PERMUTATIONS)]
        drawn = [
            _scores(sample, rng.integers(count, size=count), sample.resampled_means(rng)) for _ in range(_RESAMPLES)
        ]
    by_chance = {name: score <= np.quantile([each[name] for each in exchanged], 0.95) for name, score in raw.items()}
    shares = [_normalized(scores) for scores in drawn]
    resamples = {name: np.array([each[name] for each in shares]) for name in sample.distributions}
    return Estimate(_normalized(raw), resamples, {name: bool(each) for name, each in by_chance.items()})


def top_share(settings: int) -> float:
    """Return the share of settings that count as the best: a tenth, or more if a tenth is fewer than five."""
    return min(max(TOP, _LEAST_TOP / settings), 0.5)


def _scores(sample: Sample, chosen: NDArray[np.int64], values: Array) -> dict[str, float]:
    points = [sample.points[i] for i in chosen]
    study = as_study(points, sample.distributions, values[chosen], sample.directions)
    found = PedAnovaImportanceEvaluator(target_quantile=top_share(len(points))).evaluate(study)
    return {name: float(found.get(name, 0.0)) for name in sample.distributions}


def _normalized(scores: dict[str, float]) -> dict[str, float]:
    total = sum(scores.values())
    return {name: score / total if total else 0.0 for name, score in scores.items()}
