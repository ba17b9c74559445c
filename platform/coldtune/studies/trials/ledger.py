"""The ledger of a running study: it asks trials from the search and tells their results to the storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from coldtune.stages.trial import TrialConfig
from coldtune.store.location import StoreLocation
from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.search.paired_test import Find
from coldtune.studies.search.pruner import RungJudge
from coldtune.studies.search.sampler import FeasibleSampler
from coldtune.studies.space.replicates import with_replicate
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
    take_from_queue,
)
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.storage.record import (
    TrialRecord,
    imported,
    is_promoted,
    owned_by,
    promoted_from,
    replicate_of,
    retry_of,
    write_outcome,
    write_pruned,
    write_reason,
    write_setting,
)
from coldtune.studies.trials.reading import StudyReader
from coldtune.studies.trials.replication import enqueue_replicates
from coldtune.studies.trials.setup import Imports, open_study, set_up


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run.

    Attributes:
        point: Its values by short name. The configuration follows from them.
        again: Whether the trial was interrupted before and resumes.
        promoted_from: The number of the pruned trial that it continues, if any.
        retry_of: The number of the failed trial in whose place it is asked, if any.
        setting, replicate: The number of its setting, and which of the setting's trainings it is.
        name: The name of the trial for users, such as `2` or `2.1`. "" stands for its number.
    """

    number: int
    point: Mapping[str, Any]
    config: TrialConfig
    again: bool
    promoted_from: int | None = None
    retry_of: int | None = None
    setting: int = 0
    replicate: int = 0
    name: str = ""

    @property
    def label(self) -> str:
        """The name of the trial for users."""
        return self.name or str(self.number)


class Ledger(StudyReader):
    """A running study. Optuna's storage is the only truth about its trials, and the ledger writes nowhere else.

    A trial that was running when its driver died is asked again under its own number. Its stored values return, and
    missing values are drawn to fit.

    Settings that are a list without pruning are asked replicate by replicate: first a training of every setting, then a
    second of every setting, and so on. A study that is stopped half way can then compare all settings by equally many
    trainings. A search, and a study with pruning, asks setting by setting. Then the search learns from means, and the
    pruner knows the luck of training before it gives a setting up.

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
        replicates: int = 1,
    ) -> None:
        """Create the ledger of a study that was set up. Use `open_ledger`, which sets the study up."""
        super().__init__(study, spec, space, lease, store, replicates)
        self._judge, self.points = judge, points
        self._by_replicate = points is not None and spec.pruning.kind == "none"
        self._why_settled: Callable[[], str | None] | None = None

    def interrupted(self) -> list[int]:
        """Return the numbers of the trials that will be asked again, before anything new."""
        return [trial.number for trial in self.ownership.interrupted]

    def running(self) -> list[int]:
        """Return the numbers of the trials that this driver has asked and not yet told."""
        return sorted(self.ownership.running)

    def stop_when(self, why_settled: Callable[[], str | None]) -> None:
        """Ask no new setting while `why_settled` returns a reason.

        Settings that were asked get all their trainings. If one of them improves the best value, the reason may be
        gone, and the search goes on.
        """
        self._why_settled = why_settled

    def settled_early(self, trials: int) -> str | None:
        """Return why the study has fewer than `trials` settings, because its search has settled. None if it has not."""
        return None if self._why_settled is None or self.begun() >= trials else self._why_settled()

    def _limited(self, trials: int) -> int:
        """Return `trials`, or the number of settings that the study has if its search has settled."""
        return trials if self.settled_early(trials) is None else self.begun()

    def wanted(self, trials: int) -> int:
        """Return how many more trials this driver should ask until `trials` have ended.

        With replicates, `trials` counts settings, and every setting that was asked gets all its trainings. A replicate
        that another driver is about to enqueue does not count, because nobody can ask it yet. A race wants the
        trainings before its next look.
        """
        trials = self._limited(trials)
        if not self.replicated:
            return trials - self.finished() - len(self.ownership.running) - len(self.ownership.elsewhere())
        self._refresh()
        self._check_race()
        asked = self._own_settings()
        enqueues = self.race is not None and self.lease.leads()
        waiting = sum(
            enqueues or number in setting.trials for setting in asked for number in self.open_replicates(setting)
        )
        new = max(0, trials - len(asked)) * self._first_replicates
        return new + waiting + len(self.ownership.interrupted)

    def is_done(self, trials: int) -> bool:
        """Return True if `trials` settings have all their trainings, and no training is missing or running.

        If the search has settled, these are the settings that were asked.
        """
        trials = self._limited(trials)
        if not self.replicated:
            return self.finished() >= trials
        running = len(self.ownership.running) + len(self.ownership.elsewhere())
        return self.finished() >= trials and self.wanted(trials) <= 0 and not running

    @property
    def _first_replicates(self) -> int:
        """How many trainings of a setting are enqueued when it is asked."""
        return self.replicates if self.race is None else self.race.ends.first

    def _check_race(self) -> None:
        """Raise ValueError if a training has no judgement in the store, because a race cannot go on without it."""
        if self.race is None:
            return
        try:
            self.race.standing(self._trials.settings())
        except ValueError as error:
            raise ValueError(
                f"study {self.study.study_name}: its race cannot be judged: {error}. Restore the store, or run the "
                "study under another name (--study NAME)."
            ) from error

    def goes_on(self, trials: int) -> bool:
        """Return True if a race may still ask trainings, perhaps after those that other drivers run now."""
        return self.race is not None and not self.is_done(trials)

    def max_trials(self) -> int | None:
        """Return how many trials there can be, including promoted ones. None if a search has no end."""
        promoted = sum(map(is_promoted, self.trials()))
        return None if self.points is None else self.points + promoted

    def ask(self, trials: int | None = None) -> TrialRequest | None:
        """Return the next trial to run, or None if other drivers have asked the last of `trials`.

        An interrupted trial comes before a new trial. Optuna hands out every number once, whichever driver asks. So the
        first `trials` settings are run, and a later setting waits in the queue until the study is extended. Numbers of
        failed trials that were asked again do not count.
        """
        trials = None if trials is None else self._limited(trials)
        again = bool(self.ownership.interrupted)
        trial = resume_trial(self.study, self.ownership.interrupted.pop(0)) if again else self._new_trial(trials)
        if trial is None:
            return None
        compute_suggestion(trial)  # before the journal is locked, because this may take seconds
        self._refresh()
        setting, replicate = self._trials.index.place(trial.number)
        with batch(self.study):
            point = self.space.walk(partial(suggest, trial))
            if self.replicates > 1 and not replicate:
                write_setting(trial, setting)
                known = next(each for each in self._trials.settings() if each.number == setting)
                enqueue_replicates(self.study, known, point, range(1, self._first_replicates))
        self.ownership.running[trial.number] = trial
        config = with_replicate(self.space.resolve(point), replicate)
        continued, failed = promoted_from(trial), retry_of(trial)
        name = self.label(trial.number)
        return TrialRequest(trial.number, point, config, again, continued, failed, setting, replicate, name)

    def _new_trial(self, trials: int | None) -> Trial | None:
        """Return a waiting trial or a new one, or None if all of `trials` were asked."""
        self._refresh()
        self._check_race()
        if self.race is not None and self.lease.leads():
            self._enqueue_missing()
        waiting = self._waiting(trials)
        first = [trial for trial in waiting if replicate_of(trial) is None]
        further = [trial for trial in waiting if replicate_of(trial) is not None]
        for trial in first if self._by_replicate else [*further, *first]:
            if (taken := self._take(trial)) is not None:
                return taken
        most = self.points if trials is None else trials
        if not self.replicated or most is None or self._place_of_next() < most:
            new = create_running_trial(self.study, owned_by(self.lease.token))
            self._refresh()
            if trials is None or self._place(new.number) < trials:
                return new
            return_to_queue(self.study, new)
        return next((taken for trial in further if (taken := self._take(trial)) is not None), None)

    def _waiting(self, trials: int | None) -> list[FrozenTrial]:
        """Return the waiting trials that may be asked: replicate by replicate, and within these by setting."""
        index, by_number = self._trials.index, {}
        waiting = [trial for trial in self._trials.unfinished() if trial.state == TrialState.WAITING]
        if any(replicate_of(trial) is not None for trial in waiting):
            by_number = {setting.number: setting for setting in self._trials.settings()}

        def is_wanted(trial: FrozenTrial) -> bool:
            setting, replicate = index.place(trial.number)
            if replicate_of(trial) is None:
                return trials is None or self._place(trial.number) < trials
            return replicate in self.open_replicates(by_number[setting])

        def order(trial: FrozenTrial) -> tuple[int, int]:
            place = replicate_of(trial)
            return (0, trial.number) if place is None else (place[1], place[0])

        return sorted(filter(is_wanted, waiting), key=order)

    def _take(self, trial: FrozenTrial) -> Trial | None:
        taken = take_from_queue(self.study, trial)
        if taken is not None:
            self.ownership.claim(taken)
        return taken

    def _place(self, number: int) -> int:
        """Return the place of a trial's setting among those that this study asks, from 0 on."""
        return int(self.label(number).partition(".")[0]) - self._trials.index.repeated

    def _place_of_next(self) -> int:
        """Return the place of the next new setting among those that this study asks, from 0 on."""
        return self._trials.index.next_number - self._trials.index.repeated

    def add_replicates(self) -> None:
        """Enqueue the trainings that settings of an earlier run still lack. Call this only in the driver that leads.

        A race enqueues them when it asks the next trial.
        """
        if self.replicates > 1 and self.race is None:
            self._enqueue_missing()

    def _enqueue_missing(self) -> None:
        for setting in [each for each in self.settings() if each.asked and not each.imported and each.point]:
            if missing := [number for number in self.open_replicates(setting) if number not in setting.trials]:
                with batch(self.study):
                    enqueue_replicates(self.study, setting, setting.point, missing)
        self._refresh()

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
    replicates: int = 1,
) -> Ledger:
    """Open a study to run it: set it up if this driver leads, and take over the trials of dead drivers.

    Args:
        find: Finds Judgements in the store, for pruning that compares image by image.
        lease: This driver's lease. None means that no other driver runs the study.
        imports: The trials that a new study takes over from others.
        fingerprint: The fingerprint of the study's dataset.
        store: Where the finished work of the trials lies.
        replicates: The trainings of each setting.
    """
    lease = lease or SoleDriver()
    study, rungs = open_study(name, spec, storage), rungs_of(spec)
    sampler = FeasibleSampler(space, spec.search, spec.seed)
    study.sampler = sampler
    study.pruner = spec.pruning.build_pruner(rungs.steps, spec.base["training"]["steps"], len(spec.objectives))
    if lease.leads():
        set_up(study, spec, space, imports or Imports(), fingerprint)
    copied = imported(study.get_trials(deepcopy=False))
    sampler.leave_out([trial.params for trial in copied if replicate_of(trial) is None])
    judge = RungJudge(study, spec.pruning, spec.objectives, rungs, find)
    points = None if sampler.listed is None else len(sampler.listed)
    ledger = Ledger(study, spec, space, lease, store, judge, points, replicates)
    ledger.ownership.take_over()
    if lease.leads():
        ledger.add_replicates()
    return ledger
