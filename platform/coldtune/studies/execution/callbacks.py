"""What Tune's loop tells a driver between its trials, and what it may not print or keep."""

from __future__ import annotations

import threading
from typing import Any

from ray import tune

from coldtune.studies.execution.searcher import NotPickled, StudySearcher
from coldtune.studies.progress.events import Events, StoppedError


class Ticker(NotPickled, tune.Callback):  # type: ignore[misc]
    """Hands Tune's loop on as events, and ends it: when `stop` is set, or something has failed."""

    def __init__(self, events: Events, search: StudySearcher, stop: threading.Event) -> None:
        self._events, self._search, self._stop = events, search, stop
        self._ended: list[Any] = []  # to be forgotten when Tune's other callbacks have seen them

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial has its place."""
        self._events.started(trial.config["number"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died, and is started again."""
        number = trial.config["number"]
        self._search.deaths[number] += 1
        if number in self._search.late:  # its next process shall only say so
            trial.set_config({**trial.config, "late": self._search.late[number]})
        else:
            self._events.restarted(number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended."""
        self._ended.append(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended as its process died once too often."""
        self._ended.append(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Tick. KeyboardInterrupt, the only way out of Tune's loop, where the study ends."""
        while self._ended:
            _forget(self._ended.pop())
        try:
            self._events.tick()
        except StoppedError as stopped:
            self._search.failure = self._search.failure or stopped
        if self._stop.is_set() or self._search.failure:
            raise KeyboardInterrupt


def _forget(trial: Any) -> None:
    """Drop what Tune would keep of a trial that ended, and nothing reads: statistics of every number it reported."""
    kept = trial.run_metadata
    kept.metric_analysis, kept.metric_n_steps, kept.last_result = {}, {}, {}
    trial.config.clear()  # Tune has another name for the same
    trial.evaluated_params.clear()
    trial.invalidate_json_state()


class Silent(NotPickled, tune.ProgressReporter):  # type: ignore[misc]
    """A progress reporter that reports nothing: the view does."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Never."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: dict[str, Any]) -> None:
        """Nothing."""
