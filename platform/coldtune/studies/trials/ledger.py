"""The study's Optuna storage: the only truth about what was asked and what became of it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from coldtune.stages.trial import TrialConfig
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.drivers.election import DriverLease
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
    read_trial,
    resume_trial,
    return_to_queue,
    suggest,
    write_trial_attribute,
)
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.storage.record import (
    TrialRecord,
    attributes_of_promoted,
    imported,
    owned_by,
    owner_of,
    promoted_from,
    write_outcome,
    write_pruned,
    write_reason,
)
from coldtune.studies.storage.trial_cache import Trials
from coldtune.studies.trials.setup import Imports, set_up


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run: its number in the study, its point and what that point resolves to."""

    number: int
    point: Mapping[str, Any]
    config: TrialConfig
    again: bool  # it was interrupted before, and goes on
    promoted_from: int | None = None  # the pruned trial of the same point that it takes further


class Ledger:
    """One study: asks trials, tells what became of them, and counts.

    A trial that was running when its driver died is asked again first, under its own number, by running the space on
    its own Optuna trial: stored values return, missing ones are drawn to fit.

    hold: this driver's place among those that run the study; None: it is alone, and whatever is running was
    interrupted. imports: what a new study takes over from others; such trials are known to the search, but are none
    that this study asked, and none that it counts. reading: only to look, nothing is written.
    """

    def __init__(
        self,
        name: str,
        spec: StudySpec,
        space: Space,
        storage: BaseStorage,
        find: Find = lambda key: None,
        *,
        hold: DriverLease | None = None,
        imports: Imports | None = None,
        fingerprint: str | None = None,
        reading: bool = False,
        store: StoreLocation | None = None,
    ) -> None:
        """find: the Judgements in the store, which pruning image by image looks at. store: where finished work lies."""
        self.spec, self.space, self.store = spec, space, store
        sampler = FeasibleSampler(space, spec.search, spec.seed)
        self.study = open_study(name, spec, storage)
        self.study.sampler = sampler
        rungs, steps = rungs_of(spec).steps, spec.base["training"]["steps"]
        self.study.pruner = spec.pruning.build_pruner(rungs, steps, len(spec.objectives))
        if not reading and (hold is None or hold.leads()):
            set_up(self.study, spec, space, imports or Imports(), fingerprint)
        self._judge = RungJudge(self.study, spec.pruning, spec.objectives, rungs_of(spec), find)
        self.hold, self.reading = hold, reading
        self._running: dict[int, Trial] = {}
        self._trials = Trials(self.study)
        self._best: FrozenTrial | None = None
        self._again: list[FrozenTrial] = []
        self._unowned: dict[int, float] = {}  # running trials that nobody says are theirs, and since when seen so
        taken = imported(self.trials())
        self._imported = len(taken)
        sampler.leave_out([trial.params for trial in taken])
        self.points = len(sampler.listed) if sampler.listed is not None else None
        """How many points there are to ask, where they are variants or a grid; None where a search may go on."""
        self.take_up()

    def finished(self) -> int:
        """Trials of this study that ended, whichever way; imported ones do not count."""
        self._refresh()
        return self._trials.ended - self._imported

    def imported(self) -> int:
        """Trials that came from other studies."""
        return self._imported

    def recorded(self, address: str) -> Path:
        """The local folder of what a trial recorded; OSError or ValueError where it is gone, or no store is known."""
        if "://" not in address:
            return Path(address)
        if self.store is None:
            raise ValueError(f"{address}: the study does not know its store")
        return Store(self.store).at_address(address)

    def states(self) -> dict[TrialState, int]:
        """How many trials are in each state."""
        self._refresh()
        return dict(self._trials.states)

    def interrupted(self) -> list[int]:
        """Numbers of the trials that will be taken up again."""
        return [trial.number for trial in self._again]

    def live(self) -> list[int]:
        """Numbers of the trials asked and not yet told."""
        return sorted(self._running)

    def elsewhere(self) -> list[int]:
        """Numbers of the trials that other drivers run, or ran when they died."""
        self._refresh()
        here = {*self._running, *self.interrupted()}
        return [trial.number for trial in self._trials.unfinished() if _runs(trial) and trial.number not in here]

    def wanted(self, trials: int) -> int:
        """How many more trials are to be asked here until `trials` have ended."""
        return trials - self.finished() - len(self._running) - len(self.elsewhere())

    def ask(self, trials: int | None = None) -> TrialRequest | None:
        """The next trial: an interrupted one, or a new one. None where other drivers asked the last of `trials`.

        A trial's number is what it claims: Optuna gives each out once, whoever asks, so of this study's trials the
        first `trials` are run and a later one goes back to wait for a larger number.
        """
        again = bool(self._again)
        trial = resume_trial(self.study, self._again.pop(0)) if again else self._new()
        if not again and trials is not None and trial.number - self._imported >= trials:
            return_to_queue(self.study, trial)
            return None
        compute_suggestion(trial)  # before the journal is locked, because this may take seconds
        with batch(self.study):
            point = self.space.walk(partial(suggest, trial))
        self._running[trial.number] = trial
        return TrialRequest(trial.number, point, self.space.resolve(point), again, promoted_from(trial))

    def prunes(self, number: int, rung: Rung) -> bool:
        """Note what a running trial is worth at a rung; gives whether it ends there (the same when asked again)."""
        return self._judge.prunes(self._running[number], rung)

    def prune(self, number: int, rung: Rung) -> None:
        """Tell that a trial ended at a rung; of one objective, Optuna takes the rung's value for its value."""
        trial = self._running.pop(number)
        with batch(self.study):
            write_pruned(trial, rung)
            self.study.tell(trial, state=TrialState.PRUNED)

    def promote(self, number: int) -> int:
        """Enqueue a new trial at a pruned one's point, which is not pruned again; gives its number.

        It is the next that is asked, and finds the training of the pruned one in the store. ValueError for a trial that
        was not pruned, or is promoted already.
        """
        trials = {trial.number: trial for trial in self.trials()}
        if number not in trials or trials[number].state != TrialState.PRUNED:
            pruned = ", ".join(str(n) for n, trial in trials.items() if trial.state == TrialState.PRUNED) or "none"
            state = trials[number].state.name.lower() if number in trials else "not there"
            raise ValueError(f"trial {number}: is {state}; only a pruned trial is promoted (there are: {pruned})")
        if again := [n for n, trial in trials.items() if promoted_from(trial) == number]:
            raise ValueError(f"trial {number}: is promoted already, as trial {again[0]}")
        self.study.enqueue_trial(trials[number].params, user_attrs=attributes_of_promoted(number))
        return next(t.number for t in reversed(self.trials()) if promoted_from(t) == number)

    def most(self) -> int | None:
        """How many trials there can be, promoted ones included; None where a search may go on."""
        promoted = sum(promoted_from(trial) is not None for trial in self.trials())
        return None if self.points is None else self.points + promoted

    def promoted_ahead(self) -> int:
        """How many promoted trials wait to be asked."""
        return sum(t.state == TrialState.WAITING and promoted_from(t) is not None for t in self.trials())

    def _new(self) -> Trial:
        """What `Study.ask` gives, which goes through all trials each time to look for one that was enqueued."""
        if self.states().get(TrialState.WAITING):
            trial = self.study.ask()
            self._own(trial)
            return trial
        mine = owned_by(self.hold.token) if self.hold is not None else {}
        return create_running_trial(self.study, mine)

    def take_up(self) -> None:
        """Take over what dead drivers were running, where this one leads: it is asked again, before anything new."""
        if self.hold is not None and not self.hold.leads():
            return
        self._refresh()
        here = {*self._running, *self.interrupted()}
        running = [trial for trial in self._trials.unfinished() if _runs(trial) and trial.number not in here]
        for trial in running:
            if self._abandoned(trial):
                self._again.append(trial)
                self._own(trial)
        self._again.sort(key=lambda trial: trial.number)

    def lost(self, number: int) -> bool:
        """Whether another driver took this trial over, because this process had been stopped for so long."""
        trial = read_trial(self.study, self._running[number])
        return self.hold is not None and (trial.state.is_finished() or owner_of(trial) != self.hold.token)

    def drop(self, number: int) -> None:
        """Leave a trial to the driver that took it over."""
        del self._running[number]

    def _own(self, trial: Trial | FrozenTrial) -> None:
        if self.hold is not None and not self.reading:
            for key, value in owned_by(self.hold.token).items():
                write_trial_attribute(self.study, trial, key, value)

    def _abandoned(self, trial: FrozenTrial) -> bool:
        """Whether nobody runs this trial. One without an owner may have been asked this very moment."""
        if self.hold is None:
            return True
        if (owner := owner_of(trial)) is not None:
            return owner == self.hold.token or not self.hold.alive(owner)
        since = self._unowned.setdefault(trial.number, time.monotonic())
        return not self.hold.others() or time.monotonic() - since > self.hold.seconds

    def complete(self, number: int, outcome: TrialOutcome) -> str | None:
        """Tell a trial's values; gives the reason where it must count as failed (an objective that is not finite)."""
        told = {objective.metric: outcome.metrics.get(objective.metric, math.nan) for objective in self.spec.objectives}
        if bad := [f"{metric} is {value}" for metric, value in told.items() if not math.isfinite(value)]:
            self.fail(number, ", ".join(bad))
            return ", ".join(bad)
        trial = self._running.pop(number)
        with batch(self.study):
            if TrialRecord.of(trial).reason:
                write_reason(trial, "")  # of a failure that an earlier driver died telling
            write_outcome(trial, outcome)
            self.study.tell(trial, list(told.values()))
        return None

    def fail(self, number: int, reason: str) -> None:
        """Tell that a trial failed, and why."""
        trial = self._running.pop(number)
        write_reason(trial, reason)
        self.study.tell(trial, state=TrialState.FAIL)

    def trials(self) -> list[FrozenTrial]:
        """All trials in the order they were asked."""
        self._refresh()
        return self._trials.all()

    def best(self, but: int | None = None) -> FrozenTrial | None:
        """The finished trial of the best (first) objective, or None where none completed; `but` is left out."""
        self._refresh()
        if but is None:
            return self._best
        complete = [t for t in self._trials.all() if t.state == TrialState.COMPLETE and t.number != but]
        return min(complete, key=self.rank, default=None)

    def _refresh(self) -> None:
        """Take in what this process and others told since the last look."""
        complete = [trial for trial in self._trials.refresh() if trial.state == TrialState.COMPLETE]
        self._best = min([*complete, *([self._best] if self._best else [])], key=self.rank, default=None)

    def rank(self, trial: FrozenTrial) -> tuple[float, int]:
        """What a finished trial is ordered by, the best first; of equal ones, the earlier."""
        sign = 1 if self.spec.objective.direction == "minimize" else -1
        return sign * trial.values[0], trial.number

    def front(self) -> list[FrozenTrial]:
        """Of several objectives, the finished trials that no other beats in all of them; of one, the best trial."""
        if len(self.spec.objectives) > 1:
            return sorted(self.study.best_trials, key=lambda trial: trial.values[0])
        best = self.best()
        return [best] if best else []


def open_study(name: str, spec: StudySpec, storage: BaseStorage) -> optuna.Study:
    """The Optuna study of that name, made where there is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        directions = [objective.direction for objective in spec.objectives]
        study = optuna.create_study(study_name=name, storage=storage, directions=directions, load_if_exists=True)
        _name_objectives(study, spec)
        return study


def _runs(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.RUNNING


def _name_objectives(study: optuna.Study, spec: StudySpec) -> None:
    """Under these names optuna-dashboard and Optuna's own plots show the objectives, instead of as a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.metric.replace("_", " ").upper() for objective in spec.objectives])
