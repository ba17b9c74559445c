"""Several drivers that run the same study: they follow and wait for each other, and end the study once."""

from __future__ import annotations

import time

from optuna.study import Study

from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.progress.events import Events
from coldtune.studies.progress.terminal import View, find_best
from coldtune.studies.storage.record import StudyRecord
from coldtune.studies.trials.ledger import Ledger

_LOOK_S = 2.0  # between two looks at the other drivers


class JoinedDrivers(Events):
    """Takes over the trials of dead drivers if this driver leads, and shows the progress of the other drivers."""

    def __init__(self, ledger: Ledger, view: View) -> None:
        self.ledger, self.view, self._looked = ledger, view, 0.0

    def tick(self) -> None:
        """Look at the other drivers every few seconds."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            self.ledger.ownership.take_over()
            best = find_best(self.ledger)
            self.view.elsewhere(self.ledger.ended(), len(self.ledger.ownership.elsewhere()), best)


def set_up_by_others(study: Study, lease: DriverLease) -> bool:
    """Wait until the leading driver has set the study up.

    Returns:
        False if this driver leads, so that it must set the study up itself.
    """
    while not lease.leads():
        record = StudyRecord.of(study)
        if record.ready and record.trials is not None:
            return True
        time.sleep(_LOOK_S / 10)
    return False


def wait_for_others(ledger: Ledger, drivers: Events, trials: int) -> bool:
    """Wait until the other drivers have no running trials, if this driver leads. Another driver waits only in a race.

    Args:
        drivers: Its `tick` takes over the trials of dead drivers.
        trials: The number of trials of the study.

    Returns:
        True as soon as this driver can ask a trial again. False if it has nothing left to do.
    """
    while ledger.lease.leads() or ledger.goes_on(trials):
        drivers.tick()
        if ledger.wanted(trials) > 0:
            return True
        if ledger.lease.leads() and not ledger.ownership.elsewhere():
            return False
        time.sleep(_LOOK_S / 10)
    return False
