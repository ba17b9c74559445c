"""Ends of MLflow runs that are missing because a driver died after it told the study and before it told the run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.tracking import Status, Tracker
from coldtune.tracking.spool import STUDY, Spool, run_file, sizes

_ENDS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "interrupted",  # no driver runs the trial, so it waits until a driver takes it over
}
"""The status with which a trial's run ends, by the state of a trial that no driver is running."""


def reconcile_trials(trials: Iterable[FrozenTrial], study: str, spool: Path) -> list[int]:
    """Record the end of each trial's run, if the study knows the end and the journal in `spool` does not.

    A trial without a journal never began a run, so it is left alone. Only a failed trial gets a run, which says why.

    Args:
        trials: Trials that no driver is running. While drivers run, these are the trials that ended.

    Returns:
        The numbers of the trials whose runs were ended.
    """
    return [trial.number for trial in trials if trial.state in _ENDS and _reconcile(trial, study, spool)]


def reconcile_study(study: str, spool: Path) -> bool:
    """Record that the study's own run was interrupted, if its journal says that it is running.

    Call this only if no driver runs the study.

    Returns:
        True if the run was ended.
    """
    if Spool(spool, STUDY).status() != "running":
        return False
    with Tracker(spool, study, running=False) as tracker:
        tracker.end("interrupted")
    return True


def is_wrapped_up(spool: Path) -> bool:
    """Return True if a driver measured the best trial on test and finished the study's run.

    A study without a journal counts as wrapped up, because someone removed its records on purpose.
    """
    return Spool(spool, STUDY).status() in ("finished", None)


def end_torn_lines(spool: Path) -> int:
    """End the lines that killed processes left incomplete, and return how many. Nobody may write to the spool now."""
    return sum(Spool(spool, name).mend() for name in sizes(spool))


def _reconcile(trial: FrozenTrial, study: str, spool: Path) -> bool:
    recorded, status = Spool(spool, run_file(trial.number)).status(), _ENDS[trial.state]
    has_no_run = recorded is None and (trial.state != TrialState.FAIL or is_imported(trial))
    if recorded == status or has_no_run:
        return False
    reason = None if trial.state == TrialState.COMPLETE else TrialRecord.of(trial).reason or None
    with Tracker(spool, study, trial.number, running=False) as tracker:
        tracker.end(status, reason)
    return True
