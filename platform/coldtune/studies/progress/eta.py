"""The progress of a run as numbers: shares of trials, the rate of training, and the time that is left."""

from __future__ import annotations

import time
from dataclasses import dataclass

TRAINING_SHARE = 0.9
"""The part of a trial's progress that is training. The rest is sampling and measuring."""

_LEAST_DONE = 0.02  # of a trial: a rate from less would be noise


@dataclass
class TrialProgress:
    """How far a running trial is.

    Attributes:
        resumed: True if an earlier run of the study began this trial.
        share: The part of the trial that is done, 0..1.
        start: The share at the trial's first report, or None before that report.
        images_per_s: The rate of its training. 0 while it does not train.
    """

    resumed: bool = False
    share: float = 0.0
    start: float | None = None
    images_per_s: float = 0.0

    @property
    def done_here(self) -> float:
        """The share that this run of the study did."""
        return self.share - (self.start or 0.0)


class StudyProgress:
    """The progress of all trials of a run. The share that is done and the time that is left follow from it.

    Args:
        total: The number of trials that the study asks in all.
        ended: The number of trials that ended before this run.
    """

    def __init__(self, total: int, ended: int) -> None:
        self.total, self.ended = total, ended
        self.trials: dict[int, TrialProgress] = {}
        self._done_here = 0.0
        self._first_report: float | None = None

    def begin(self, number: int, resumed: bool) -> None:
        """Count a trial that was asked."""
        self.trials[number] = TrialProgress(resumed)

    def trained(self, number: int, share: float, images_per_s: float | None = None, sampling: bool = False) -> None:
        """Record how far a trial's training is.

        Args:
            share: The part of the training that is done, 0..1.
            images_per_s: The rate, if the report has one.
            sampling: True if the report comes from sampling at a rung of the training.
        """
        trial = self.trials[number]
        trial.share = TRAINING_SHARE * share
        if images_per_s is not None:
            trial.images_per_s = images_per_s
        self._note_first_report(trial, sampling)

    def sampled(self, number: int, share: float) -> None:
        """Record that a trial has done this share, 0..1, of its last sampling and its measuring."""
        trial = self.trials[number]
        trial.share = TRAINING_SHARE + (1 - TRAINING_SHARE) * share
        trial.images_per_s = 0.0
        self._note_first_report(trial, sampling=True)

    def end(self, number: int) -> None:
        """Count a trial that ended."""
        trial = self.trials.pop(number)
        self.ended += 1
        self._done_here += 1.0 - (trial.start or 0.0)

    def forget(self, number: int) -> None:
        """Forget a trial that another driver took over."""
        del self.trials[number]

    def set_ended(self, ended: int) -> None:
        """Set how many trials of the study have ended, those of other drivers included."""
        self._done_here += max(0, ended - self.ended)
        self.ended = ended

    def images_per_s(self) -> float:
        """Return the rate of all trials that train now."""
        return sum(trial.images_per_s for trial in self.trials.values())

    def share(self) -> float:
        """Return the part of the study that is done, 0..1."""
        return (self.ended + sum(trial.share for trial in self.trials.values())) / max(self.total, 1)

    def seconds_left(self) -> float | None:
        """Return the time left at the rate of this run, or None before there is a rate.

        Only the work of this run counts, from its first report on. Otherwise a resumed study would seem too fast.
        """
        if self._first_report is None:
            return None
        done = self._done_here + sum(trial.done_here for trial in self.trials.values())
        left = (self.total - self.ended) - sum(trial.share for trial in self.trials.values())
        return (time.monotonic() - self._first_report) * left / done if done > _LEAST_DONE else None

    def _note_first_report(self, trial: TrialProgress, sampling: bool) -> None:
        if trial.start is None:
            # A trial whose first report is from sampling found its training in the store. That is not work of an
            # earlier run, because the trials to come may find theirs too.
            trial.start = 0.0 if sampling and not trial.resumed else trial.share
            self._first_report = self._first_report or time.monotonic()
