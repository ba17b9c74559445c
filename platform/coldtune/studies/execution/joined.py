"""Several drivers on one study: keeping up with the others, waiting for them, and ending it once."""

from __future__ import annotations

import time

from optuna.study import Study

from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.progress.events import Events
from coldtune.studies.progress.terminal import View
from coldtune.studies.storage.record import StudyRecord
from coldtune.studies.trials.ledger import Ledger

_LOOK_S = 2.0  # between two looks at the other drivers


class JoinedDrivers(Events):
    """Takes up what dead drivers were running, where this one leads, and shows what the others do."""

    def __init__(self, ledger: Ledger, view: View) -> None:
        self.ledger, self.view, self._looked = ledger, view, 0.0

    def tick(self) -> None:
        """Look at the others now and then."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            self.ledger.take_up()
            best = self.ledger.best()
            value = None if best is None else (best.values[0], best.number)
            self.view.elsewhere(self.ledger.finished(), len(self.ledger.elsewhere()), value)


def set_up_by_others(study: Study, hold: DriverLease) -> bool:
    """Wait until whoever leads has set the study up; False where this driver leads, and has to do it itself."""
    while not hold.leads():
        record = StudyRecord.of(study)
        if record.ready and record.trials is not None:
            return True
        time.sleep(_LOOK_S / 10)
    return False


def wait_for_others(ledger: Ledger, together: Events, trials: int) -> bool:
    """Where this driver leads: wait until the others' trials ended; True as soon as there is something to ask again.

    One that does not lead has nothing to wait for: whoever leads takes care of the rest.
    """
    assert ledger.hold is not None
    while ledger.hold.leads():
        together.tick()
        if ledger.wanted(trials) > 0:
            return True
        if not ledger.elsewhere():
            return False
        time.sleep(_LOOK_S / 10)
    return False
