"""What became of a study's trials, read again only where it may have changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from optuna.storages import JournalStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.optuna_private import read_numbered_trial, read_trial, storage_of

_PASSED = (TrialState.COMPLETE, TrialState.PRUNED)


class Trials:
    """The trials of a study in the order they were asked; each is read until it has ended, and then never again.

    So a look costs the same after ten trials and after ten thousand. The storage stays the only truth: what another
    process asked or told is there at the next `refresh`.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._all: list[FrozenTrial] = []
        self._open: set[int] = set()
        self._states: Counter[TrialState] = Counter()

    def refresh(self) -> list[FrozenTrial]:
        """Look at what may have changed; gives the trials that ended since the last look, by number."""
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
        """How many trials ended, whichever way."""
        return len(self._all) - len(self._open)

    def all(self) -> list[FrozenTrial]:
        """Every trial, by number."""
        return self._all.copy()

    def unfinished(self) -> list[FrozenTrial]:
        """The trials that have not ended, by number."""
        return [self._all[number] for number in sorted(self._open)]

    def _replace(self, trial: FrozenTrial) -> None:
        if trial.number == len(self._all):
            self._all.append(trial)
            self._open.add(trial.number)
        else:
            self._states[self._all[trial.number].state] -= 1
            self._all[trial.number] = trial
        self._states[trial.state] += 1
        if trial.state.is_finished():
            self._open.discard(trial.number)

    def _changed(self) -> Iterable[FrozenTrial]:
        """The trials that had not ended, and the new ones."""
        if isinstance(storage_of(self._study), JournalStorage):
            return list(self._one_by_one())
        # A database is asked once for all of them; Optuna keeps those that ended.
        trials = self._study.get_trials(deepcopy=False)
        return [trials[number] for number in sorted(self._open)] + trials[len(self._all) :]

    def _one_by_one(self) -> Iterator[FrozenTrial]:
        """Of a journal, which is in memory: a list of all its trials would cost more than the few that are wanted."""
        for trial in self.unfinished():
            yield read_trial(self._study, trial)
        number = len(self._all)
        while (new := read_numbered_trial(self._study, number)) is not None:
            yield new
            number += 1


class AskedPoints:
    """Which points a study has asked; one that failed may be asked again."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._trials = Trials(study)
        self._ended: dict[str, int] = {}

    def before(self, number: int) -> AskedBefore:
        """The points that trials before `number` asked."""
        for trial in self._trials.refresh():
            if trial.state in _PASSED:
                point = point_name(trial.params)
                self._ended[point] = min(trial.number, self._ended.get(point, trial.number))
        unfinished = self._trials.unfinished()
        running = {point_name(t.params) for t in unfinished if t.state == TrialState.RUNNING and t.number < number}
        return AskedBefore(self._ended, running, number)


class AskedBefore:
    """The points of trials before a number, as a set of names."""

    def __init__(self, ended: Mapping[str, int], running: set[str], number: int) -> None:
        self._ended, self._running, self._number = ended, running, number

    def __contains__(self, point: object) -> bool:
        return point in self._running or self._ended.get(str(point), self._number) < self._number


def point_name(point: Mapping[str, Any]) -> str:
    """The same text for the same values."""
    return repr(sorted(point.items()))
