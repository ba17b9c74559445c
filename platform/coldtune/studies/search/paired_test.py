"""Wilcoxon's test at a rung: is a trial worse than the best one was there, on the same images and draws?"""

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
"""A Judgement by its key in the store; None where it is not there."""


def judgements_of(store: Store) -> Find:
    """How the Judgements in a store are found."""

    def find(key: str) -> Judgement | None:
        entry = store.find("measure", key)
        return Judgement.load(entry.path) if entry else None

    return find


def worse_image_by_image(mine: Judgement, best: Judgement, metric: str, p_value: float) -> bool:
    """Whether Optuna's `WilcoxonPruner` ends a trial judged `mine` at a rung where the best trial was judged `best`.

    What is paired are the images' pseudo-values of the rung metric (KID or MIND, value + influence of each image; their
    mean is the metric itself), image i of one with image i of the other: the same original and the same draw. The test
    asks whether their differences are symmetric about 0 (one-sided: about something larger), so a few images on which
    one trial fails badly do not decide; and Optuna never prunes a trial whose mean, the metric itself, is the better.

    The instance ids that Optuna wants as "steps" are the numbers of the images at this one rung. They are handed to the
    pruner alone and never stored as intermediate values: those stay one a rung, which is what TPE ranks pruned trials
    by, and the pseudo-values are read from the two Judgements in the store. So a rung costs the study no more than
    with any other pruner, whatever N is.
    False where the two were judged under different protocols, or the metric has no influences.
    """
    if mine.protocol.key != best.protocol.key or any(metric not in each.influences for each in (mine, best)):
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = WilcoxonPruner(p_threshold=p_value)
    return bool(pruner.prune(cast(Study, _AtRung(_by_image(best, metric))), _by_image(mine, metric)))


class _AtRung:
    """What the pruner asks of a study, as it was at one rung."""

    direction = StudyDirection.MINIMIZE

    def __init__(self, best: FrozenTrial) -> None:
        self.best_trial = best


def _by_image(judgement: Judgement, metric: str) -> FrozenTrial:
    values: Any = judgement.influences[metric] + judgement.values[metric].value
    return create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(values.tolist())))
