"""The settings of a study: its trials, grouped by everything but their training seed.

Every training is an Optuna trial of its own, because a finished Optuna trial cannot be changed. A trial is replicate 0
of a setting, or it carries the number of its setting and its replicate from the moment at which it is created. The
number of a setting counts the trials before its first trial that are no further replicates. So in a study of one
replicate, the number of a setting is the number of its trial.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.record import (
    TrialRecord,
    is_imported,
    promoted_from,
    replicate_of,
    retry_of,
)


@dataclass(frozen=True)
class Spread:
    """The values of a metric over the trainings of a setting.

    Attributes:
        mean: Their mean.
        sd: Their standard deviation, with n - 1. None for a single training.
        n: The number of trainings.
    """

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    @property
    def error(self) -> float | None:
        """The standard error of the mean. None for a single training."""
        return None if self.sd is None else self.sd / self.n**0.5


def spreads_of(metrics: Sequence[Mapping[str, float | None]]) -> dict[str, Spread]:
    """Return the spread of every metric that all trainings have. The interval of a network is none of a setting.

    Of a single training, the ends of its intervals stay, because it is a single network.
    """
    shared = [name for name in metrics[0] if all(each.get(name) is not None for each in metrics)] if metrics else []
    kept = [name for name in shared if len(metrics) == 1 or is_measured_alone(name)]
    return {name: Spread.of([value for each in metrics if (value := each[name]) is not None]) for name in kept}


def is_measured_alone(metric: str) -> bool:
    """Return True for the name of a metric, and False for that of an end of its interval."""
    return not metric.endswith(("_low", "_high"))


@dataclass(frozen=True)
class Setting:
    """A setting and its trainings.

    Attributes:
        number: The number of the setting, which users know.
        first: The trial with which the setting began.
        trials: By replicate, the trial that counts: the last that was asked in the place of failed trials.
    """

    number: int
    first: FrozenTrial
    trials: Mapping[int, FrozenTrial]

    @property
    def imported(self) -> bool:
        """True if the setting was copied from another study."""
        return is_imported(self.first)

    @property
    def promoted_from(self) -> int | None:
        """The number of the pruned trial that this setting continues, as Optuna counts trials."""
        return promoted_from(self.first)

    @property
    def point(self) -> Mapping[str, Any]:
        """The values of the setting by short name. They are empty until its first trial is asked."""
        return next((trial.params for trial in self.trials.values() if trial.params), self.first.params)

    def in_state(self, *states: TrialState) -> dict[int, FrozenTrial]:
        """Return the trials that are in one of these states, by replicate."""
        return {replicate: trial for replicate, trial in sorted(self.trials.items()) if trial.state in states}

    @property
    def finished(self) -> dict[int, FrozenTrial]:
        """The finished trainings by replicate."""
        return self.in_state(TrialState.COMPLETE)

    @property
    def asked(self) -> bool:
        """True if a trial of the setting was asked, so that the setting counts toward `--trials`."""
        return any(trial.state != TrialState.WAITING for trial in self.trials.values())

    @property
    def failed(self) -> bool:
        """True if a training failed and was not asked again."""
        return any(trial.state == TrialState.FAIL for trial in self.trials.values())

    @property
    def pruned(self) -> bool:
        """True if a training was pruned. The setting then has no mean, and the study trains it no further."""
        return any(trial.state == TrialState.PRUNED for trial in self.trials.values())

    @property
    def given_up(self) -> bool:
        """True if the study begins no further training: one was pruned, or the first failed and none has finished."""
        failed = 0 in self.trials and self.trials[0].state == TrialState.FAIL and not self.finished
        return self.pruned or failed

    def open(self, replicates: int) -> list[int]:
        """Return the replicates that are still to be asked, if each setting has so many."""
        if self.given_up:
            return []
        waiting = self.in_state(TrialState.WAITING)
        return [replicate for replicate in range(replicates) if replicate not in self.trials or replicate in waiting]

    def open_in_race(self, count: int, most: int) -> list[int]:
        """Return the replicates that are still to be asked, so that `count` trainings finish.

        A failed training is passed over, and the next seed takes its place.

        Args:
            most: The setting gets only replicates below this number.
        """
        if self.given_up:
            return []
        failed, waiting = self.in_state(TrialState.FAIL), self.in_state(TrialState.WAITING)
        taken = [replicate for replicate in range(most) if replicate not in failed][:count]
        return [replicate for replicate in taken if replicate not in self.trials or replicate in waiting]

    def running(self) -> list[FrozenTrial]:
        """Return the trials that run, or ran when their driver died."""
        return list(self.in_state(TrialState.RUNNING).values())

    def values(self, objective: int = 0) -> list[float]:
        """Return the values of an objective in the finished trainings, by replicate."""
        return [trial.values[objective] for trial in self.finished.values()]

    def spread(self, metric: str) -> Spread | None:
        """Return the spread of a metric over the finished trainings. None if none has it, or one was pruned."""
        known = (TrialRecord.of(trial).metrics.get(metric) for trial in self.finished.values())
        values = [value for value in known if value is not None]
        return Spread.of(values) if values and not self.pruned else None

    def as_trial(self) -> FrozenTrial:
        """Return the setting as one trial, for a sampler.

        Its values are the means over the finished trainings. A pruned setting has the means at the rungs that all its
        pruned trainings reached.
        """
        made, states = copy.copy(self.first), {trial.state for trial in self.trials.values()}
        if self.pruned:
            made.state = TrialState.PRUNED
            pruned = list(self.in_state(TrialState.PRUNED).values())
            steps = set.intersection(*(set(trial.intermediate_values) for trial in pruned))
            made.intermediate_values = {step: self._mean_at(step) for step in sorted(steps)}
            # Optuna takes the last rung's value as the value of a pruned trial.
            one = all(trial.values is not None for trial in pruned) and len(steps) > 0
            made.values = [made.intermediate_values[max(steps)]] if one else None
        elif finished := self.finished:
            made.state = TrialState.COMPLETE
            count = len(next(iter(finished.values())).values)
            made.values = [statistics.fmean(self.values(objective)) for objective in range(count)]
            steps = set.intersection(*(set(trial.intermediate_values) for trial in finished.values()))
            made.intermediate_values = {step: self._mean_at(step) for step in sorted(steps)}
        elif TrialState.RUNNING in states:
            made.state, made.values = TrialState.RUNNING, None
        else:
            made.state, made.values = self.trials[min(self.trials)].state, None
        made.params, made.distributions = dict(self.point), self._distributions()
        return made

    def _distributions(self) -> dict[str, Any]:
        return next((trial.distributions for trial in self.trials.values() if trial.params), self.first.distributions)

    def _mean_at(self, step: int) -> float:
        return statistics.fmean(
            trial.intermediate_values[step] for trial in self.trials.values() if step in trial.intermediate_values
        )


class SettingIndex:
    """The settings to which the trials of a study belong, which is known from the moment a trial is created.

    Attributes:
        firsts: By number of a setting, the number of its first trial.
        repeated: How many settings were imported, or only take the place of a setting that failed.
    """

    def __init__(self) -> None:
        self.firsts: dict[int, int] = {}
        self.repeated = 0
        self._places: list[tuple[int, int]] = []  # by trial number: the setting and the replicate
        # A study of one training each has neither of these two, which would take most of the memory of the index.
        self._labels: dict[int, str] = {}  # by trial number: a name that is another than the number of the setting
        self._groups: dict[int, dict[int, int]] = {}  # by setting with several trials: by replicate the trial number
        self._further = 0

    def add(self, trial: FrozenTrial) -> None:
        """Add the trial with the next number."""
        assert trial.number == len(self._places), f"trial {trial.number} after {len(self._places)} trials"
        place, failed = replicate_of(trial), retry_of(trial)
        if place is not None:
            setting, replicate = place
            self._further += 1
            self._labels[trial.number] = f"{setting}.{replicate}"
        else:
            number, replicate = trial.number - self._further, 0
            setting = number if failed is None else self._places[failed][0]
            self.repeated += failed is not None or is_imported(trial)
            if number != setting:
                self._labels[trial.number] = str(number)
        alone = place is None and setting not in self.firsts and setting not in self._groups
        if place is None:
            self.firsts.setdefault(setting, trial.number)
        if not alone:
            self._groups[setting] = {**self._group(setting), replicate: trial.number}
        self._places.append((setting, replicate))

    def _group(self, setting: int) -> dict[int, int]:
        """Return by replicate the trial number of a setting's trials."""
        first = self.firsts.get(setting)
        return self._groups.get(setting, {} if first is None else {0: first})

    @property
    def replicated(self) -> bool:
        """True if a setting has more than one replicate."""
        return self._further > 0

    @property
    def next_number(self) -> int:
        """The number of the next setting."""
        return len(self._places) - self._further

    def label(self, number: int) -> str:
        """Return the name of a trial for users: `2` for replicate 0 of setting 2, `2.1` for the next."""
        return self._labels.get(number) or str(self._places[number][0])

    def place(self, number: int) -> tuple[int, int]:
        """Return the number of a trial's setting, and its replicate."""
        return self._places[number]

    def settings(self, trials: Sequence[FrozenTrial]) -> list[Setting]:
        """Return the settings by number. `trials` are all trials of the study by number."""
        return [self.setting(number, trials) for number in sorted(self.firsts)]

    def setting(self, number: int, trials: Sequence[FrozenTrial]) -> Setting:
        """Return the setting of a number. `trials` are all trials of the study by number."""
        return Setting(number, trials[self.firsts[number]], {r: trials[n] for r, n in self._group(number).items()})


def index_of(trials: Iterable[FrozenTrial]) -> SettingIndex:
    """Return the index of all trials of a study, which come by number."""
    index = SettingIndex()
    for trial in trials:
        index.add(trial)
    return index


def comparable(settings: Sequence[Setting]) -> list[Setting]:
    """Return the settings that may be called the best.

    A setting needs a mean, and at least half as many finished trainings as any other. A setting with a single training
    is therefore not the best of settings with five, only because that training was lucky.
    """
    counts = {setting.number: len(setting.finished) for setting in settings if not setting.pruned}
    most = max(counts.values(), default=0)
    return [setting for setting in settings if most and 2 * counts.get(setting.number, 0) >= most]
