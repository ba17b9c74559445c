"""Tune's trials are a study's: asked from the ledger and told to it, and stopped at the rungs at which it says so."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from coldtune.config import plain
from coldtune.studies.preflight.capacity import Capacity
from coldtune.studies.progress.events import Events
from coldtune.studies.storage.errors import StorageGoneError
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.studies.worker.job import LATE, RUNG, RUNNING, TrialJob


class NotPickled:
    """Tune pickles its searcher, reporter and callbacks beside its results; nothing reads them, and ours hold locks."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, ())

    def __deepcopy__(self, memo: object) -> NotPickled:
        return self


class StudySearcher(NotPickled, Searcher):  # type: ignore[misc]
    """Tune's trials, asked from and told to the ledger; it says itself how many run at once.

    failure: what ended the study before its last trial; Tune itself would only log it.
    """

    def __init__(
        self, ledger: Ledger, events: Events, job: Callable[[TrialRequest], TrialJob], room: Capacity, trials: int
    ) -> None:
        super().__init__(metric="state", mode="min")
        self._ledger, self._events, self._job, self._room, self._trials = ledger, events, job, room, trials
        self.numbers: dict[str, int] = {}
        self.pruned: dict[str, Rung] = {}
        self.deaths: Counter[int] = Counter()
        self.late: dict[int, str] = {}  # reasons of trials whose processes are about to be ended by force
        self.failure: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial; None: not now; FINISHED: none is left, or the study ends."""
        if isinstance(self.failure, StorageGoneError):
            raise self.failure  # what still runs could not be told either
        if self.failure:
            return str(Searcher.FINISHED)
        # With nothing running, Tune would ask without end, and hear nothing else: Ray itself keeps a trial waiting.
        if len(self.numbers) >= max(1, self._room.count()):
            return None
        if self._ledger.wanted(self._trials) <= 0:
            return Searcher.FINISHED if not self.numbers else None
        if (asked := self._ledger.ask(self._trials)) is None:
            return None
        self.numbers[trial_id] = asked.number
        self._events.asked(asked)
        # As text: Tune flattens and copies whatever is nested, at every report.
        return {"number": asked.number, "job": json.dumps(plain(self._job(asked)))}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand a report on; those from rungs go through `prunes`."""
        if trial_id not in self.numbers:
            return
        if result["state"] == RUNNING and result.get("stage") != RUNG:
            self._events.progressed(self.numbers[trial_id], result)
        elif result["state"] == LATE:
            self.late[self.numbers[trial_id]] = result["reason"]

    def prunes(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether the trial ends with this report, one from a rung."""
        if trial_id not in self.numbers:
            return False
        try:
            self._events.progressed(self.numbers[trial_id], result)
            rung = Rung.from_json(result["rung"])
            if self._ledger.prunes(self.numbers[trial_id], rung):
                self.pruned[trial_id] = rung
        except Exception as failure:  # Tune would count the trial as failed and go on
            self.failure = self.failure or failure
        return trial_id in self.pruned

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell what became of a trial."""
        state, rung = (result or {}).get("state", RUNNING), self.pruned.pop(trial_id, None)
        if trial_id not in self.numbers or (state in (RUNNING, LATE) and not error and rung is None):
            return  # stopped from outside: it stays running in the study and is taken up on resume
        number = self.numbers.pop(trial_id)
        try:
            times = self.deaths[number] + 1
            died = self.late.get(number, f"its process died {times} time{'s' * (times != 1)}")
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
        except Exception as failure:  # Tune would log it and go on
            self.failure = self.failure or failure

    def _complete(self, number: int, outcome: TrialOutcome) -> None:
        if (reason := self._ledger.complete(number, outcome)) is None:
            self._events.completed(number, outcome)
        else:
            self._events.failed(number, reason)

    def _fail(self, number: int, reason: str) -> None:
        self._ledger.fail(number, reason)
        self._events.failed(number, reason)

    def save(self, checkpoint_path: str) -> None:
        """Leave nothing, where Tune expects a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Not called: Tune resumes nothing here."""
        raise AssertionError("a study resumes from its own storage, never from Tune's")


class RungScheduler(NotPickled, FIFOScheduler):  # type: ignore[misc]
    """Tune's trials, stopped at the rungs at which the ledger prunes them."""

    def __init__(self, search: StudySearcher) -> None:
        super().__init__()
        self._search = search

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on after its report."""
        at_rung = result["state"] == RUNNING and result.get("stage") == RUNG
        ends = at_rung and self._search.prunes(trial.trial_id, result)
        return str(self.STOP if ends else self.CONTINUE)
