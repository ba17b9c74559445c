"""What a study leaves behind while it runs: its runs in MLflow and its numbers in Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.progress.events import Events
from coldtune.studies.progress.reconcile import settle
from coldtune.studies.progress.savings import saved_by
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import TrialRecord, imported, is_imported
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.tracking import NOTE, Drainer, Target, Tracker
from coldtune.tracking.prometheus import StudyMetrics

_LOOK_S = 2.0  # between two looks at what other drivers did

_STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class MlflowRuns(Events):
    """The driver's side of tracking: it delivers what trials spool, and it alone ends their runs.

    Several drivers of one study share the spool of their home: each trial's file is written by who runs the trial, the
    study's own by the driver that leads, and any of them delivers (one at a time).
    """

    def __init__(self, ledger: Ledger, study: str, spool: Path, target: Target, tags: Mapping[str, object]) -> None:
        self.ledger, self.study, self.spool, self.target = ledger, study, spool, target
        self.parent = Tracker(spool, study, tags={**tags, "coldtune.kind": "study"}, running=self.leads())
        self._noted, self._looked = ledger.finished(), time.monotonic()
        self._drainer = Drainer(spool, target)
        self._gauges = StudyMetrics(study)
        self._saved = self._saved_so_far()

    def settle(self) -> None:
        """Make up for what a driver that was killed had told the study, but not its records; once, at the start."""
        self._settle()
        trials = self.ledger.trials()
        known = [trial for trial in imported(trials) if trial.state == TrialState.COMPLETE]
        best: FrozenTrial | None = min(known, key=self.ledger.rank, default=None)
        spared = 0.0
        ended = [trial for trial in self._own() if trial.datetime_complete]
        for count, trial in enumerate(sorted(ended, key=lambda t: (t.datetime_complete, t.number)), 1):
            if trial.state == TrialState.COMPLETE:
                best = trial if best is None else min(best, trial, key=self.ledger.rank)
            spared += TrialRecord.of(trial).effort.saved or 0.0
            if best is not None:
                self._note_best(best, count, spared)

    def _settle(self) -> None:
        waiting = set(self.ledger.interrupted())
        trials = (t for t in self.ledger.trials() if t.state.is_finished() or t.number in waiting)
        settle(trials, self.study, self.spool)

    def asked(self, asked: TrialRequest) -> None:
        """Count it as running."""
        self._count()

    def completed(self, number: int, outcome: TrialOutcome) -> None:
        """End its run, and note the best so far on the study's run: one step for each trial that ended, however."""
        self._saved += outcome.effort.saved or 0.0
        self._ended(number, "finished")

    def tick(self) -> None:
        """Note what other drivers ended."""
        if time.monotonic() - self._looked >= _LOOK_S:
            self._looked = time.monotonic()
            if self.ledger.finished() > self._noted:
                self._saved = self._saved_so_far()
                self._note()

    def leads(self) -> bool:
        """Whether the study's own run is this driver's to write."""
        return self.ledger.lease.leads()

    def _note(self) -> None:
        self._noted = self.ledger.finished()
        best = self.ledger.best()
        if best is None or not self.leads():
            return
        self._note_best(best, self._noted, self._saved)
        if self.ledger.spec.objective.metric == "fid":
            self._gauges.best_fid(best.values[0])

    def failed(self, number: int, reason: str) -> None:
        """End its run with the reason."""
        self._ended(number, "failed", reason)

    def pruned(self, number: int, step: int) -> None:
        """End its run as pruned, with the rung at which it was."""
        record = TrialRecord.of(self.ledger.trials()[number])
        self._saved += record.effort.saved or 0.0
        self._ended(number, "pruned", record.reason)

    def interrupted(self, numbers: Iterable[int]) -> None:
        """Mark the runs of trials that did not end as interrupted: they may be taken up again.

        So is the study's own, unless other drivers go on with it.
        """
        for number in numbers:
            self._end(number, "interrupted")
        if not self.ledger.lease.others():
            self.parent.end("interrupted")

    def finished(self) -> None:
        """End the study's run, and whichever of its trials' still goes on; say what its trials found in the store."""
        self._settle()
        if found := saved_by(self.ledger.trials()):
            self.parent.tags({NOTE: found})
        self.parent.end("finished")

    def close(self, timeout: float = 20.0) -> int:
        """Deliver the rest; gives the bytes that could not be delivered and wait in the spool."""
        with ExitStack() as stack:
            stack.callback(self.parent.close)
            stack.callback(self._gauges.close)
            self._drainer.flush(timeout)
            self._drainer.close()
        return self._drainer.pending()

    def _own(self) -> list[FrozenTrial]:
        """The trials that this study asked."""
        return [trial for trial in self.ledger.trials() if not is_imported(trial)]

    def _saved_so_far(self) -> float:
        return sum(TrialRecord.of(trial).effort.saved or 0.0 for trial in self._own())

    def _note_best(self, best: FrozenTrial, ended: int, spared: float) -> None:
        """The best after `ended` trials, and the seconds saved so far; what an earlier driver noted stays."""
        first = f"best_{self.ledger.spec.objective.metric}"
        self.parent.metrics({first: best.values[0], "trials_ended": ended, "seconds_saved": spared}, ended)

    def _ended(self, number: int, status: Any, reason: str | None = None) -> None:
        self._end(number, status, reason)
        self._note()
        self._count()

    def _end(self, number: int, status: Any, reason: str | None = None) -> None:
        with Tracker(self.spool, self.study, number, running=False) as tracker:
            tracker.end(status, reason)

    def _count(self) -> None:
        counts = self.ledger.states()
        self._gauges.trials({name: count for state, name in _STATES.items() if (count := counts.get(state))})
