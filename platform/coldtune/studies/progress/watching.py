"""The live view of a study that another process runs. Everything is read from its home and its storage."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from coldtune.studies.designs.confirm import build_confirmation
from coldtune.studies.drivers.election import Driver
from coldtune.studies.progress.terminal import View, find_best
from coldtune.studies.progress.text import STATE_NAMES
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import StudyRecord, TrialRecord, is_imported
from coldtune.studies.trials.ledger import TrialRequest
from coldtune.studies.trials.reading import StudyReader, read_study
from coldtune.tracking.spool import Record, Spool, run_file


def watch_study(reader: StudyReader, folder: StudyFolder, console: Console, every: float) -> bool:
    """Show the progress of a study until no driver runs it any more. Nothing is written.

    In a terminal, the view is that of the study's own driver. Otherwise every change is a line.

    Args:
        every: The seconds between two looks.

    Returns:
        True if all trials of the study have ended.
    """
    watched = WatchedStudy(reader, folder, console)
    if not watched.drivers:
        return watched.is_done()
    with watched.view:
        watched.describe()
        while watched.look():
            watched.view.tick()
            time.sleep(every)
    return watched.is_done()


def find_confirmation(reader: StudyReader, folder: StudyFolder) -> str | None:
    """Return the name of the study that confirms a finished search after it. None if that has ended, or is not planned.

    The confirmation may not exist yet, because its driver begins it after the search.
    """
    confirm = int(folder.start().get("confirm") or 0)
    try:
        spec = build_confirmation(reader, confirm) if confirm else None
    except ValueError:  # the search leaves no training seeds for it
        return None
    if spec is None:
        return None
    later = StudyFolder(folder.home, spec.name)
    try:
        ended = later.exists and WatchedStudy(read_study(later), later, Console(quiet=True)).is_done()
    except ValueError:  # it is being set up, or cannot be read
        ended = False
    return None if ended else spec.name


class WatchedStudy:
    """A study that another process runs, and the view on which its changes are shown.

    Attributes:
        drivers: The living drivers at the last look.
        view: The view, which the caller has to enter.
    """

    def __init__(self, reader: StudyReader, folder: StudyFolder, console: Console) -> None:
        self.reader, self.folder = reader, folder
        self.drivers: list[Driver] = reader.lease.others()
        self._spools: dict[int, _TrialSpool] = {}
        self._follow_plan()
        objective = reader.spec.objective
        self.view = View(
            console=console,
            name=folder.name,
            total=self._total(),
            ended=reader.ended(),
            metric=objective.metric,
            minimize=objective.direction == "minimize",
            best=find_best(reader),
            find_best=partial(find_best, reader),
            what="trials" if not reader.replicated else "trainings" if reader.race is None else "trainings at most",
            begun=self._began(),
        )
        # The trials that had ended before are counted, and are no change.
        self._ended = {trial.number for trial in reader.trials() if trial.state.is_finished()}
        self._interrupted: set[int] = set()
        self._first = True

    def describe(self) -> None:
        """Say which drivers run the study, and how far it is."""
        drivers = ", ".join(map(str, self.drivers))
        text = f"{self.folder.name}: {self.view.progress.ended} of {self.view.total} {self.view.what} ended"
        self.view.console.print(Text(f"{text}; run by {drivers}"), soft_wrap=True)

    def look(self) -> bool:
        """Show what has changed since the last look. Return False if no driver runs the study any more."""
        self.drivers = self.reader.lease.others()  # before the trials, which are then final if no driver is left
        self._follow_plan()
        interrupted = set(self.reader.interrupted())
        for trial in self.reader.trials():
            if trial.number in self._ended or trial.state == TrialState.WAITING:
                continue
            if trial.number in interrupted:
                self._interrupted.add(trial.number)
                if trial.number in self.view.running:
                    self.view.interrupted(trial.number)
                continue
            if trial.number not in self.view.running and not is_imported(trial):
                self._begin(trial)
            if trial.state == TrialState.RUNNING:
                self._follow(trial)
            else:
                self._end(trial)
        self.view.total = self.view.progress.total = self._total()
        self.view.elsewhere(self.reader.ended(), 0, find_best(self.reader))
        self._first = False
        return bool(self.drivers)

    def _began(self) -> float:
        """Return when the first of the living drivers began to run the study, by this process's `time.monotonic`."""
        ago = time.time() - min((driver.started for driver in self.drivers), default=math.inf)
        return time.monotonic() - max(ago, 0.0)

    def is_done(self) -> bool:
        """Return True if all trials of the study have ended."""
        if self.reader.race is not None:  # it may end before its last training
            return self.reader.finished() >= self._trials() and not self.reader.race_goes_on()
        return self.reader.ended() >= self._total() or self.reader.settled()

    def _follow_plan(self) -> None:
        """Read the number of replicates again, because a driver may have started with a larger number."""
        planned = StudyRecord.of(self.reader.study).replicates
        self.reader.replicates = planned[-1] if planned else self.reader.replicates

    def _total(self) -> int:
        return self.reader.trainings(self._trials())

    def _trials(self) -> int:
        planned = StudyRecord.of(self.reader.study).trials
        return int(self.folder.start()["trials"]) if planned is None else planned

    def _begin(self, trial: FrozenTrial) -> None:
        """Show a trial that runs. A trial that ran before the first look was begun earlier."""
        config = self.reader.config(trial)
        label = self.reader.label(trial.number)
        again = self._first or trial.number in self._interrupted
        self.view.asked(TrialRequest(trial.number, trial.params, config, again, name=label))
        self.view.waits(trial.number, STATE_NAMES[TrialState.RUNNING])
        spool = Spool(self.folder.spool, run_file(trial.number))
        self._spools[trial.number] = _TrialSpool(spool, config.training.steps)
        if (report := self._spools[trial.number].report()) is None:
            report = {"stage": "train", "step": 0, "steps": config.training.steps}
        self.view.progressed(trial.number, report)

    def _follow(self, trial: FrozenTrial) -> None:
        if (report := self._spools[trial.number].report()) is not None:
            self.view.progressed(trial.number, report)

    def _end(self, trial: FrozenTrial) -> None:
        self._ended.add(trial.number)
        self._spools.pop(trial.number, None)
        if trial.number not in self.view.running:
            return  # imported
        if trial.state == TrialState.COMPLETE:
            self.view.completed(trial.number, TrialOutcome({self.view.metric: trial.values[0]}))
            return
        record = TrialRecord.of(trial)
        if trial.state == TrialState.PRUNED:
            self.view.waits(trial.number, record.reason)
            self.view.pruned(trial.number, 0 if record.training is None else record.training.step)
        else:
            self.view.failed(trial.number, record.reason or "no reason known")


class _TrialSpool:
    """The records of a running trial, which its process writes for MLflow, as reports for the view."""

    def __init__(self, spool: Spool, steps: int) -> None:
        self._spool, self._steps, self._offset = spool, steps, 0

    def report(self) -> dict[str, Any] | None:
        """Return how far the trial is by its latest record. None if there is no new record."""
        latest: dict[str, Any] = {}
        while (records := self._read()) is not None:
            for record in filter(_is_training, records):
                latest |= {"step": int(record["step"]), **_values(record["values"])}
        if not latest:
            return None
        stage = "train" if latest["step"] < self._steps else "sample"
        return {"stage": stage, "steps": self._steps, **latest}

    def _read(self) -> list[Record] | None:
        """Return the next records. None if there are no more."""
        read, offset = self._spool.read(self._offset)
        if offset == self._offset:
            return None
        self._offset = offset
        return [record for record, _ in read]


def _is_training(record: Record) -> bool:
    return record["op"] == "metrics" and "images_per_s" in _values(record.get("values", {}))


def _values(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the values that the view shows. The name of a metric may begin with a group, as in `train/loss`."""
    by_name = {name.rpartition("/")[2]: value for name, value in values.items()}
    return {name: float(by_name[name]) for name in ("loss", "images_per_s") if name in by_name}
