"""The trials of a study, read from the storage only as far as they may have changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.optuna_private import (
    read_numbered_trial,
    read_trial,
    share_distributions,
    storage_of,
)
from coldtune.studies.storage.record import retry_of
from coldtune.studies.storage.settings import Setting, SettingIndex

_WITH_VALUES = (TrialState.COMPLETE, TrialState.PRUNED)


class TrialCache:
    """The trials of a study in the order in which they were asked.

    Each trial is read until it has ended, and then never again. So a `refresh` costs the same after ten trials and
    after ten thousand. The storage stays the only truth: `refresh` sees the changes of other processes.

    Attributes:
        retried: By the number of a failed trial, the number of the trial that was asked in its place.
        index: The settings to which the trials belong.
    """

    def __init__(self, study: Study) -> None:
        """Create an empty cache. The first `refresh` reads all trials."""
        self._study = study
        self._all: list[FrozenTrial] = []
        self._unfinished: set[int] = set()
        self._states: Counter[TrialState] = Counter()
        self._distributions: dict[str, BaseDistribution] = {}  # by parameter: that of the last trial
        self._settings: dict[int, Setting] = {}  # by number, as they were when they were last asked for
        self.retried: dict[int, int] = {}
        self.index = SettingIndex()

    def refresh(self) -> list[FrozenTrial]:
        """Read the trials that may have changed, and return by number those that have ended since the last call."""
        ended = []
        for trial in self._changed():
            self._replace(trial)
            if trial.state.is_finished():
                ended.append(trial)
        return sorted(ended, key=lambda trial: trial.number)

    @property
    def states(self) -> Mapping[TrialState, int]:
        """How many trials are in each state."""
        return self._states

    @property
    def ended(self) -> int:
        """How many trials have ended, in any state."""
        return len(self._all) - len(self._unfinished)

    def all(self) -> list[FrozenTrial]:
        """Return every trial, by number."""
        return self._all.copy()

    def unfinished(self) -> list[FrozenTrial]:
        """Return the trials that have not ended, by number."""
        return [self._all[number] for number in sorted(self._unfinished)]

    def settings(self) -> list[Setting]:
        """Return the settings of the study by number. A setting whose trials have not changed is the same object."""
        for number in self.index.firsts.keys() - self._settings.keys():
            self._settings[number] = self.index.setting(number, self._all)
        return [self._settings[number] for number in sorted(self._settings)]

    def _replace(self, trial: FrozenTrial) -> None:
        if trial.number == len(self._all):
            if (failed := retry_of(trial)) is not None:
                self.retried[failed] = trial.number
            self.index.add(trial)
            self._all.append(trial)
            self._unfinished.add(trial.number)
        else:
            self._states[self._all[trial.number].state] -= 1
            self._all[trial.number] = trial
        self._settings.pop(self.index.place(trial.number)[0], None)
        self._states[trial.state] += 1
        if trial.state.is_finished():
            self._unfinished.discard(trial.number)
            share_distributions(trial, self._distributions)

    def _changed(self) -> Iterable[FrozenTrial]:
        """Return the trials that had not ended, and the new trials."""
        if isinstance(storage_of(self._study), JournalStorage):
            return list(self._from_journal())
        # A database answers a single query for all trials. Optuna keeps those that have ended in memory.
        trials = self._study.get_trials(deepcopy=False)
        return [trials[number] for number in sorted(self._unfinished)] + trials[len(self._all) :]

    def _from_journal(self) -> Iterator[FrozenTrial]:
        """Read trial by trial. A journal is in memory, and a list of all its trials costs more than a few trials."""
        for trial in self.unfinished():
            yield read_trial(self._study, trial)
        number = len(self._all)
        while (new := read_numbered_trial(self._study, number)) is not None:
            yield new
            number += 1


class AskedPoints:
    """The points that a study has asked. The point of a failed trial does not count, and may be asked again."""

    def __init__(self, study: Study) -> None:
        """Create a view of the points of `study`, which is empty before the first `refresh`."""
        self.study = study
        self.trials = TrialCache(study)
        self._first_number: dict[bytes, int] = {}  # by the digest of a point's name, which is shorter

    def refresh(self) -> None:
        """Read the trials that may have changed."""
        for trial in self.trials.refresh():
            if trial.state in _WITH_VALUES:
                point = _digest(point_name(trial.params))
                self._first_number[point] = min(trial.number, self._first_number.get(point, trial.number))

    def before(self, number: int) -> PointsBefore:
        """Return the points that were asked by trials before `number`."""
        self.refresh()
        unfinished = self.trials.unfinished()
        running = {point_name(t.params) for t in unfinished if t.state == TrialState.RUNNING and t.number < number}
        return PointsBefore(self._first_number, running, number)


class PointsBefore:
    """The names of the points that were asked before a trial (see `point_name`)."""

    def __init__(self, first_number: Mapping[bytes, int], running: set[str], number: int) -> None:
        self._first_number, self._running, self._number = first_number, running, number

    def __contains__(self, point: object) -> bool:
        return point in self._running or self._first_number.get(_digest(str(point)), self._number) < self._number


def point_name(point: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal values."""
    return repr(sorted(point.items()))


def _digest(name: str) -> bytes:
    """Return 16 bytes that stand for a name. That two names of a study share them is out of the question."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
