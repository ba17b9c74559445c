"""Runs whose end was never recorded, because the driver died between telling the study and telling its records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.tracking import Status, Tracker
from coldtune.tracking.spool import STUDY, Spool, run_file, sizes

ENDS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "interrupted",  # nobody runs it: it waits to be taken up again
}
"""How the run of a trial ends that is in this state and not being worked on."""


def settle(trials: Iterable[FrozenTrial], study: str, spool: Path) -> list[int]:
    """Record the end of every trial's run that the study knows and the journal in `spool` does not; gives the numbers.

    For trials that nobody works on: all of them while no driver runs, those that ended while one does. A trial
    without a journal never got as far as a run; one that failed gets its run all the same.
    """
    return [trial.number for trial in trials if trial.state in ENDS and _settled(trial, study, spool)]


def settle_study(study: str, spool: Path) -> bool:
    """Record that the study's own run was interrupted, where the journal says that it goes on and no driver runs."""
    if Spool(spool, STUDY).status() != "running":
        return False
    with Tracker(spool, study, running=False) as tracker:
        tracker.end("interrupted")
    return True


def wrapped_up(spool: Path) -> bool:
    """Whether a driver saw the study to its end: the best trial measured on test, the study's run finished."""
    return Spool(spool, STUDY).status() in ("finished", None)  # None: what was recorded was removed, on purpose


def mend(spool: Path) -> int:
    """Close the lines that killed processes left torn, while nobody writes; gives how many."""
    return sum(Spool(spool, name).mend() for name in sizes(spool))


def _settled(trial: FrozenTrial, study: str, spool: Path) -> bool:
    status, wanted = Spool(spool, run_file(trial.number)).status(), ENDS[trial.state]
    unheard = trial.state != TrialState.FAIL or is_imported(trial)
    if status == wanted or (status is None and unheard):
        return False
    with Tracker(spool, study, trial.number, running=False) as tracker:
        tracker.end(wanted, (TrialRecord.of(trial).reason or None) if trial.state != TrialState.COMPLETE else None)
    return True
