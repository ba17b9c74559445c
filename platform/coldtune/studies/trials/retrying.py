"""Asking failed trials again.

Optuna never changes a trial that has ended. So a failed trial keeps its number, its state and its reason, and a new
trial at the same point is asked in its place. The failed trial then no longer counts toward the number of trials of
its study, and the new trial takes its place in a grid or a list of variants.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial

from coldtune.faults import is_machine_fault
from coldtune.studies.storage.record import TrialRecord, attributes_of_retry
from coldtune.studies.trials.reading import StudyReader


def retry_failed(reader: StudyReader, whatever_failed: bool) -> list[FrozenTrial]:
    """Enqueue a new trial for each failed trial, and return the failed trials. The new trials are asked next.

    Call this only in the driver that leads, because two drivers would both enqueue a trial.

    Args:
        whatever_failed: False leaves out the trials that their settings made fail. They would fail again.
    """
    failed = [trial for trial in reader.failed() if whatever_failed or failed_by_machine(trial)]
    for trial in failed:
        reader.study.enqueue_trial(trial.params, user_attrs=attributes_of_retry(trial))
    return failed


def failed_by_machine(trial: FrozenTrial) -> bool:
    """Return True if a fault of the machine made a trial fail. Only older versions of coldtune told such a trial."""
    return is_machine_fault(TrialRecord.of(trial).reason)
