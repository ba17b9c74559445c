"""Which driver runs which trial of a study, and who takes over the trials of a dead driver."""

from __future__ import annotations

import time
from collections.abc import Callable

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.storage.optuna_private import read_trial, write_trial_attribute
from coldtune.studies.storage.record import owned_by, owner_of


class TrialOwnership:
    """The running trials of a study, as seen by one driver.

    Every running trial names its driver in the storage. If that driver dies, the leading driver takes the trial over
    and asks it again before anything new. A driver that was only stopped for a while finds out by `lost`.

    Attributes:
        running: By number, the trials that this driver has asked and not yet told.
        interrupted: The trials that this driver has taken over and not yet asked again, by number.
    """

    def __init__(
        self, study: Study, unfinished: Callable[[], list[FrozenTrial]], lease: DriverLease | SoleDriver
    ) -> None:
        """Create the view of one driver. `unfinished` returns the study's trials that have not ended, by number."""
        self._study, self._unfinished, self._lease = study, unfinished, lease
        self._unowned_since: dict[int, float] = {}
        self.running: dict[int, Trial] = {}
        self.interrupted: list[FrozenTrial] = []

    def claim(self, trial: Trial | FrozenTrial) -> None:
        """Name this driver as the trial's driver."""
        for key, value in owned_by(self._lease.token).items():
            write_trial_attribute(self._study, trial, key, value)

    def elsewhere(self) -> list[FrozenTrial]:
        """Return the trials that other drivers run, or ran when they died."""
        here = {*self.running, *(trial.number for trial in self.interrupted)}
        return [t for t in self._unfinished() if t.state == TrialState.RUNNING and t.number not in here]

    def abandoned(self) -> list[FrozenTrial]:
        """Return the running trials whose driver is dead."""
        return [trial for trial in self.elsewhere() if self._is_abandoned(trial)]

    def take_over(self) -> None:
        """Take over the trials of dead drivers, if this driver leads."""
        if not self._lease.leads():
            return
        for trial in self.abandoned():
            self.interrupted.append(trial)
            self.claim(trial)
        self.interrupted.sort(key=lambda trial: trial.number)

    def lost(self, number: int) -> bool:
        """Return whether another driver has taken a running trial over, because this process was stopped for long."""
        trial = read_trial(self._study, self.running[number])
        return trial.state.is_finished() or owner_of(trial) != self._lease.token

    def give_up(self, number: int) -> None:
        """Leave a running trial to the driver that has taken it over."""
        del self.running[number]

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        if (owner := owner_of(trial)) is not None:
            return owner == self._lease.token or not self._lease.alive(owner)
        # Another driver may have taken the trial from the queue this very moment, and name itself in the next.
        since = self._unowned_since.setdefault(trial.number, time.monotonic())
        return not self._lease.others() or time.monotonic() - since > self._lease.seconds
