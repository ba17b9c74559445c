"""The trials with which a trial is compared at a rung, and the luck of training that is known there."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from coldtune.studies.storage.optuna_private import read_trial, renumber, show_trials
from coldtune.studies.storage.record import TrialRecord, promoted_from
from coldtune.studies.storage.settings import Setting, index_of


@dataclass(frozen=True)
class Field:
    """A trial at a rung, and the trials with which it is compared.

    In a study with replicates, a training is compared with the same replicate of other settings. Replicate r of two
    settings has the same seed, and about as many of them have been judged.

    Attributes:
        trial: The running trial, as it is stored.
        seen: The study with the trials that Optuna's pruner may compare, the trial itself included. In a study with
            replicates, all trials have the numbers of their settings' first trials. Hyperband chooses the bracket by
            the number, so all replicates of a setting are in one bracket.
        compared: The other trials of `seen`.
        setting: The setting of the trial.
        settings: All settings of the study.
        replicated: True if the study has a setting with several replicates.
    """

    trial: FrozenTrial
    seen: Study
    compared: Sequence[FrozenTrial]
    setting: Setting
    settings: Sequence[Setting]
    replicated: bool

    @classmethod
    def around(cls, study: Study, trial: Trial) -> Field:
        """Return the field of a running trial."""
        trials = study.get_trials(deepcopy=False)
        index, stored = index_of(trials), read_trial(study, trial)
        own, replicate = index.place(trial.number)
        settings = index.settings(trials)
        setting = next(each for each in settings if each.number == own)
        if not index.replicated:
            others = [other for other in trials if other.number != trial.number]
            return cls(stored, study, others, setting, settings, replicated=False)
        same = [
            renumber(each.trials[replicate], each.first.number)
            for each in settings
            if replicate in each.trials and each.number != own
        ]
        numbered = renumber(stored, setting.first.number)
        return cls(numbered, show_trials(study, [*same, numbered]), same, setting, settings, replicated=True)

    @property
    def promoted(self) -> bool:
        """True if the setting continues a pruned trial, so that none of its trainings is pruned."""
        return self.setting.promoted_from is not None

    @property
    def given_up(self) -> bool:
        """True if another training of the setting was pruned."""
        return self.replicated and self.setting.pruned

    def others(self, step: int) -> list[FrozenTrial]:
        """Return the compared trials that were judged at a rung, without promoted trials.

        The pruned trial from which a promoted trial continues is in the list, so neither counts twice.
        """
        return [
            other for other in self.compared if step in TrialRecord.of(other).rungs and promoted_from(other) is None
        ]

    def means(self, step: int) -> dict[str, float]:
        """Return the means at a rung over the trainings of the setting that were judged there."""
        judged = self._judged(self.setting, step)
        return {metric: statistics.fmean(each[metric] for each in judged) for metric in _shared_names(judged)}

    def mean_of(self, trial: FrozenTrial, step: int, metric: str) -> float | None:
        """Return the mean of a metric at a rung over the trainings of the setting of a compared trial."""
        setting = next(each for each in self.settings if each.first.number == trial.number)
        known = [values[metric] for values in self._judged(setting, step) if metric in values]
        return statistics.fmean(known) if known else None

    def training_sd(self, step: int) -> dict[str, float]:
        """Return the standard deviation between trainings of one setting at a rung, pooled over all settings.

        It is infinite if no setting has two trainings that were judged there. Then nothing is known about luck.
        """
        squares, degrees = dict[str, float](), dict[str, int]()
        for setting in self.settings:
            judged = self._judged(setting, step)
            for metric in _shared_names(judged):
                values = [each[metric] for each in judged]
                if len(values) > 1:
                    squares[metric] = squares.get(metric, 0.0) + statistics.variance(values) * (len(values) - 1)
                    degrees[metric] = degrees.get(metric, 0) + len(values) - 1
        names = {metric for values in self._judged(self.setting, step) for metric in values}
        return {name: math.sqrt(squares[name] / degrees[name]) if name in degrees else math.inf for name in names}

    def _judged(self, setting: Setting, step: int) -> list[Mapping[str, float]]:
        records = (TrialRecord.of(trial).rungs for trial in setting.trials.values())
        return [rungs[step] for rungs in records if step in rungs]


def with_values(trial: FrozenTrial, values: Mapping[int, float]) -> FrozenTrial:
    """Return a copy of a trial with other values at its rungs, by step."""
    made = copy.copy(trial)
    made.intermediate_values = dict(values)
    return made


def _shared_names(judged: Sequence[Mapping[str, float]]) -> list[str]:
    return [name for name in judged[0] if all(name in each for each in judged)] if judged else []
