"""The replicates of a study's settings: their seeds, and the queue in which they wait to be asked.

Replicates 1, 2, ... of a setting are enqueued when replicate 0 is asked, by the driver that asks it. So no two drivers
enqueue the same training. The leading driver adds what is missing when it opens the study, because the study may have
been given more replicates. In a race, the leading driver enqueues the trainings before the next look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from coldtune.stages.trial import TrialConfig
from coldtune.studies.space.replicates import with_replicate
from coldtune.studies.space.space import Space
from coldtune.studies.storage.record import attributes_of_replicate, replicate_of
from coldtune.studies.storage.settings import Setting


def configure(space: Space, trial: FrozenTrial | Trial) -> TrialConfig:
    """Return the configuration of a trial, with the training seed of its replicate."""
    place = replicate_of(trial)
    return with_replicate(space.resolve(trial.params), 0 if place is None else place[1])


def enqueue_replicates(study: Study, setting: Setting, point: Mapping[str, Any], replicates: Iterable[int]) -> None:
    """Enqueue those of some replicates that a setting does not have yet."""
    for replicate in replicates:
        if replicate not in setting.trials:
            study.enqueue_trial(dict(point), user_attrs=attributes_of_replicate(setting.number, replicate))
