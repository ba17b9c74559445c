"""Wilcoxon's test at a rung: is a trial worse than the best trial was, on the same images and draws?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import optuna
from optuna.pruners import WilcoxonPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from coldtune.metrics import Judgement
from coldtune.store.store import Store

Find = Callable[[str], Judgement | None]
"""Returns the Judgement with a key of the store. None if the store does not contain it."""


def judgements_of(store: Store) -> Find:
    """Return a function that loads Judgements from `store`."""

    def find(key: str) -> Judgement | None:
        entry = store.find("measure", key)
        return Judgement.load(entry.path) if entry else None

    return find


def worse_image_by_image(trial: Judgement, best: Judgement, metric: str, p_value: float) -> bool:
    """Return True if Optuna's `WilcoxonPruner` would end a trial, given the best trial at the same rung.

    The test pairs the pseudo-values of the rung metric, KID or MIND. The pseudo-value of an image is the metric plus
    the influence of that image, so their mean is the metric itself. Image i of one trial is paired with image i of the
    other, which has the same original and the same draw.

    The test asks whether the differences are symmetric about 0. The one-sided alternative is that the trial's values
    are larger. A few images on which one trial fails badly therefore do not decide. Optuna never prunes a trial whose
    mean, the metric, is better.

    Optuna expects instance ids as "steps". Here they are the numbers of the images at this rung, and only the pruner
    sees them. They are never stored as intermediate values, because TPE ranks pruned trials by these and needs a
    single value for each rung. The pseudo-values come from the two Judgements in the store, so a rung takes as much
    space in the study's storage as with any other pruner, for every number of images.

    Args:
        trial: The Judgement of the trial at the rung.
        best: The Judgement of the best finished trial at the same rung.
        metric: The rung metric.
        p_value: The significance level.

    Returns:
        False also if the two have different protocols, or the metric has no influences.
    """
    if trial.protocol.key != best.protocol.key or any(metric not in each.influences for each in (trial, best)):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = WilcoxonPruner(p_threshold=p_value)
    study = cast(Study, _BestTrialOnly(_pseudo_values(best, metric)))
    return bool(pruner.prune(study, _pseudo_values(trial, metric)))


class _BestTrialOnly:
    """The two attributes of a study that `WilcoxonPruner` reads."""

    direction = StudyDirection.MINIMIZE

    def __init__(self, best: FrozenTrial) -> None:
        self.best_trial = best


def _pseudo_values(judgement: Judgement, metric: str) -> FrozenTrial:
    values: Any = judgement.influences[metric] + judgement.values[metric].value
    return create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(values.tolist())))
