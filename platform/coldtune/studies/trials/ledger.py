"""The ledger of a running study: it asks trials from the search and tells their results to the storage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial, TrialState

from coldtune.stages.trial import TrialConfig
from coldtune.store.location import StoreLocation
from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.search.paired_test import Find
from coldtune.studies.search.pruner import RungJudge
from coldtune.studies.search.sampler import FeasibleSampler
from coldtune.studies.space.space import Space
from coldtune.studies.spec.pruning_checks import rungs_of
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.journal import batch
from coldtune.studies.storage.optuna_private import (
    compute_suggestion,
    create_running_trial,
    resume_trial,
    return_to_queue,
    suggest,
)
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.storage.record import (
    TrialRecord,
    imported,
    is_promoted,
    owned_by,
    promoted_from,
    retry_of,
    write_outcome,
    write_pruned,
    write_reason,
)
from coldtune.studies.trials.reading import StudyReader
from coldtune.studies.trials.setup import Imports, open_study, set_up


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run.

    Attributes:
        point: Its values by short name. The configuration follows from them.
        again: Whether the trial was interrupted before and resumes.
        promoted_from: The number of the pruned trial that it continues, if any.
        retry_of: The number of the failed trial in whose place it is asked, if any.
    """

    number: int
    point: Mapping[str, Any]
    config: TrialConfig
    again: bool
    promoted_from: int | None = None
    retry_of: int | None = None


class Ledger(StudyReader):
    """A running study. Optuna's storage is the only truth about its trials, and the ledger writes nowhere else.

    A trial that was running when its driver died is asked again under its own number. Its stored values return, and
    missing values are drawn to fit.

    Attributes:
        points: How many points there are to ask, if they are variants or a grid. None if a search has no end.
    """

    def __init__(
        self,
        study: Study,
        spec: StudySpec,
        space: Space,
        lease: DriverLease | SoleDriver,
        store: StoreLocation | None,
        judge: RungJudge,
        points: int | None,
    ) -> None:
        """Create the ledger of a study that was set up. Use `open_ledger`, which sets the study up."""
        super().__init__(study, spec, space, lease, store)
        self._judge, self.points = judge, points

    def interrupted(self) -> list[int]:
        """Return the numbers of the trials that will be asked again, before anything new."""
        return [trial.number for trial in self.ownership.interrupted]

    def running(self) -> list[int]:
        """Return the numbers of the trials that this driver has asked and not yet told."""
        return sorted(self.ownership.running)

    def wanted(self, trials: int) -> int:
        """Return how many more trials this driver should ask until `trials` have ended."""
        return trials - self.finished() - len(self.ownership.running) - len(self.ownership.elsewhere())

    def max_trials(self) -> int | None:
        """Return how many trials there can be, including promoted ones. None if a search has no end."""
        promoted = sum(map(is_promoted, self.trials()))
        return None if self.points is None else self.points + promoted

    def ask(self, trials: int | None = None) -> TrialRequest | None:
        """Return the next trial to run, or None if other drivers have asked the last of `trials`.

        An interrupted trial comes before a new trial. Optuna hands out every number once, whichever driver asks. So the
        first `trials` numbers are run, and a later trial waits in the queue until the study is extended. Numbers of
        failed trials that were asked again do not count.
        """
        again = bool(self.ownership.interrupted)
        trial = resume_trial(self.study, self.ownership.interrupted.pop(0)) if again else self._new_trial()
        if not again and trials is not None and trial.number - self._imported - len(self._trials.retried) >= trials:
            return_to_queue(self.study, trial)
            return None
        compute_suggestion(trial)  # before the journal is locked, because this may take seconds
        with batch(self.study):
            point = self.space.walk(partial(suggest, trial))
        self.ownership.running[trial.number] = trial
        config = self.space.resolve(point)
        return TrialRequest(trial.number, point, config, again, promoted_from(trial), retry_of(trial))

    def _new_trial(self) -> Trial:
        if self.states().get(TrialState.WAITING):
            trial = self.study.ask()
            self.ownership.claim(trial)
            return trial
        return create_running_trial(self.study, owned_by(self.lease.token))

    def prunes(self, number: int, rung: Rung) -> bool:
        """Store the values of a running trial at a rung, and return whether it ends there.

        Asking again about the same rung returns the same answer.
        """
        return self._judge.prunes(self.ownership.running[number], rung)

    def prune(self, number: int, rung: Rung) -> None:
        """Tell that a trial ended at a rung. With one objective, Optuna takes the rung's value as the trial's value."""
        trial = self.ownership.running[number]
        with batch(self.study):
            write_pruned(trial, rung)
            self.study.tell(trial, state=TrialState.PRUNED)
        self.ownership.give_up(number)  # last, so that the trial stays interrupted if the storage takes nothing

    def complete(self, number: int, outcome: TrialOutcome) -> str | None:
        """Tell the values of a completed trial.

        Returns:
            None, or the reason why the trial counts as failed, because an objective is not finite.
        """
        metrics = [objective.metric for objective in self.spec.objectives]
        values = {metric: outcome.metrics.get(metric, math.nan) for metric in metrics}
        if bad := [f"{metric} is {value}" for metric, value in values.items() if not math.isfinite(value)]:
            self.fail(number, ", ".join(bad))
            return ", ".join(bad)
        trial = self.ownership.running[number]
        with batch(self.study):
            if TrialRecord.of(trial).reason:
                write_reason(trial, "")  # an earlier driver died while it told a failure
            write_outcome(trial, outcome)
            self.study.tell(trial, list(values.values()))
        self.ownership.give_up(number)
        return None

    def fail(self, number: int, reason: str) -> None:
        """Tell that a trial failed, and why."""
        trial = self.ownership.running[number]
        write_reason(trial, reason)
        self.study.tell(trial, state=TrialState.FAIL)
        self.ownership.give_up(number)


def open_ledger(
    name: str,
    spec: StudySpec,
    space: Space,
    storage: BaseStorage,
    find: Find = lambda key: None,
    *,
    lease: DriverLease | SoleDriver | None = None,
    imports: Imports | None = None,
    fingerprint: str | None = None,
    store: StoreLocation | None = None,
) -> Ledger:
    """Open a study to run it: set it up if this driver leads, and take over the trials of dead drivers.

    Args:
        find: Finds Judgements in the store, for pruning that compares image by image.
        lease: This driver's lease. None means that no other driver runs the study.
        imports: The trials that a new study takes over from others.
        fingerprint: The fingerprint of the study's dataset.
        store: Where the finished work of the trials lies.
    """
    lease = lease or SoleDriver()
    study, rungs = open_study(name, spec, storage), rungs_of(spec)
    sampler = FeasibleSampler(space, spec.search, spec.seed)
    study.sampler = sampler
    study.pruner = spec.pruning.build_pruner(rungs.steps, spec.base["training"]["steps"], len(spec.objectives))
    if lease.leads():
        set_up(study, spec, space, imports or Imports(), fingerprint)
    sampler.leave_out([trial.params for trial in imported(study.get_trials(deepcopy=False))])
    judge = RungJudge(study, spec.pruning, spec.objectives, rungs, find)
    points = None if sampler.listed is None else len(sampler.listed)
    ledger = Ledger(study, spec, space, lease, store, judge, points)
    ledger.ownership.take_over()
    return ledger
