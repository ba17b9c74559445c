"""Ray Tune's view of a study: a searcher that asks and tells the ledger, and a scheduler that stops pruned trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from coldtune.config import plain
from coldtune.faults import MachineFaultError, machine_fault
from coldtune.studies.preflight.capacity import Capacity
from coldtune.studies.progress.events import Events
from coldtune.studies.storage.errors import StorageGoneError
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.studies.worker.job import FAULT, LATE, RUNG, RUNNING, TrialJob


class NotPickled:
    """An object of which Tune pickles and copies nothing.

    Tune pickles its searcher, reporter and callbacks beside its results. Nobody reads them, and ours hold locks.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, ())

    def __deepcopy__(self, memo: object) -> NotPickled:
        return self


class StudySearcher(NotPickled, Searcher):  # type: ignore[misc]
    """A searcher that asks the ledger for Tune's trials and tells it how they ended. It limits how many run at once.

    Attributes:
        numbers: By Tune's id, the numbers of the trials that run.
        pruned: By Tune's id, the rungs of the trials that Tune is about to stop.
        deaths: By number, how often the process of a trial has died.
        late: By number, the reasons of the trials whose processes are about to be ended by force.
        lost_process: While Tune handles the end of a process, the error with which Ray reported it.
        failure: The error that ended the study before its last trial. Tune itself would only log it.
    """

    def __init__(
        self, ledger: Ledger, events: Events, job: Callable[[TrialRequest], TrialJob], capacity: Capacity, trials: int
    ) -> None:
        """Create the searcher of a study. `trials` is the number of its trials."""
        super().__init__(metric="state", mode="min")
        self._ledger, self._events, self._job, self._capacity, self._trials = ledger, events, job, capacity, trials
        self.numbers: dict[str, int] = {}
        self.pruned: dict[str, Rung] = {}
        self.deaths: Counter[int] = Counter()
        self.late: dict[int, str] = {}
        self.lost_process: Exception | None = None
        self.failure: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration. None: not now. FINISHED: the study ends."""
        if isinstance(self.failure, StorageGoneError):
            raise self.failure  # running trials could not be told either
        if self.failure:
            return str(Searcher.FINISHED)
        # If nothing ran, Tune would ask without end and handle no event. So at least one trial is asked, and Ray makes
        # it wait.
        if len(self.numbers) >= max(1, self._capacity.count()):
            return None
        try:
            if self._ledger.wanted(self._trials) <= 0:
                return Searcher.FINISHED if not self.numbers else None
            if (asked := self._ledger.ask(self._trials)) is None:
                return None
            self.numbers[trial_id] = asked.number
            self._events.asked(asked)
            # The job is text, because Tune flattens and copies everything nested at every report.
            return {"number": asked.number, "name": asked.label, "job": json.dumps(plain(self._job(asked)))}
        except StorageGoneError:
            raise
        except Exception as failure:  # Tune would end with a traceback of its own
            self.failure = failure
            return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a report on to the listeners. Reports from rungs go through `prunes`."""
        if trial_id not in self.numbers:
            return
        if result["state"] == RUNNING and result.get("stage") != RUNG:
            with self.kept_failure():
                self._events.progressed(self.numbers[trial_id], result)
        elif result["state"] == LATE:
            self.late[self.numbers[trial_id]] = result["reason"]

    def prunes(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether the trial ends with this report from a rung."""
        if trial_id not in self.numbers:
            return False
        with self.kept_failure():
            self._events.progressed(self.numbers[trial_id], result)
            rung = Rung.from_json(result["rung"])
            if self._ledger.prunes(self.numbers[trial_id], rung):
                self.pruned[trial_id] = rung
        return trial_id in self.pruned

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell how a trial ended."""
        state, rung = (result or {}).get("state", RUNNING), self.pruned.pop(trial_id, None)
        if trial_id not in self.numbers or (state in (RUNNING, LATE) and not error and rung is None):
            return  # stopped from outside: it stays running in the study, and is asked again on resume
        number = self.numbers.pop(trial_id)
        with self.kept_failure():
            times = self.deaths[number] + 1
            died = self.late.get(number, f"its process died {times} time{'s' * (times != 1)}")
            if (fault := self._machine_fault(number, result, error)) is not None:
                raise MachineFaultError(
                    f"trial {self._ledger.label(number)}: {fault}"
                )  # the trial stays running in the study
            if self._ledger.ownership.lost(number):
                self._ledger.ownership.give_up(number)
                self._events.lost(number)
            elif rung is not None:
                self._ledger.prune(number, rung)
                self._events.pruned(number, rung.step)
            elif result and state == "complete":
                self._complete(number, TrialOutcome.from_json(result["outcome"]))
            else:
                self._fail(number, result["reason"] if result and state != RUNNING else died)

    def _machine_fault(self, number: int, result: Mapping[str, Any] | None, error: bool) -> str | None:
        """Return the fault of the machine that ended a trial, or None."""
        if result and result["state"] == FAULT:
            return str(result["reason"])
        if not error or number in self.late or self.lost_process is None:
            return None
        fault, times = machine_fault(self.lost_process), self.deaths[number] + 1
        return fault if fault is None or times == 1 else f"{fault} ({times} times)"

    def _complete(self, number: int, outcome: TrialOutcome) -> None:
        if (reason := self._ledger.complete(number, outcome)) is None:
            self._events.completed(number, outcome)
        else:
            self._events.failed(number, reason)

    def _fail(self, number: int, reason: str) -> None:
        self._ledger.fail(number, reason)
        self._events.failed(number, reason)

    def note_lost_process(self, error: Exception | None) -> None:
        """Remember the error with which Ray reports the end of a process, while Tune handles it."""
        self.lost_process = error

    @contextmanager
    def kept_failure(self) -> Iterator[None]:
        """Keep an error of the block as the failure of the study. Tune would log the error and continue, or break."""
        try:
            yield
        except Exception as failure:
            self.failure = self.failure or failure

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file, because Tune expects a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Raise, because Tune resumes nothing here."""
        raise AssertionError("a study resumes from its own storage, never from Tune's")


class RungScheduler(NotPickled, FIFOScheduler):  # type: ignore[misc]
    """A scheduler that stops trials at the rungs at which the ledger prunes them. Otherwise it is first in, first out.

    Tune's own scheduler of that kind looks at all trials of the study at every step.
    """

    def __init__(self, search: StudySearcher) -> None:
        super().__init__()
        self._search = search
        self._open: list[Any] = []  # trials that may not have ended, in the order in which they came

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Remember a new trial."""
        self._open.append(trial)

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Return the oldest trial that waits, or that is paused if none waits. None if there is neither."""
        self._open = [trial for trial in self._open if not trial.is_finished()]
        for status in (Trial.PENDING, Trial.PAUSED):
            for trial in self._open:
                if trial.status == status:
                    return trial
        return None

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return STOP if the trial ends with its report, otherwise CONTINUE."""
        at_rung = result["state"] == RUNNING and result.get("stage") == RUNG
        ends = at_rung and self._search.prunes(trial.trial_id, result)
        return str(self.STOP if ends else self.CONTINUE)
