"""Tune's callbacks: they pass events on, end Tune's loop, and keep Tune silent."""

from __future__ import annotations

import threading
from typing import Any

from ray import tune

from coldtune.studies.execution.searcher import NotPickled, StudySearcher
from coldtune.studies.progress.events import Events


class EventCallback(NotPickled, tune.Callback):  # type: ignore[misc]
    """A callback that passes Tune's events on to our listeners, and ends Tune's loop.

    The loop ends if `stop` is set, if a listener raises, or if the searcher has failed.
    """

    def __init__(self, events: Events, search: StudySearcher, stop: threading.Event) -> None:
        self._events, self._search, self._stop = events, search, stop
        self._ended: list[Any] = []  # trials whose statistics are dropped after Tune's other callbacks have seen them

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that a trial has its resources."""
        with self._search.kept_failure():
            self._events.started(trial.config["number"])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Report that a trial's process died and is started again."""
        number = trial.config["number"]
        self._search.deaths[number] += 1
        if number in self._search.late:  # the next process only reports that the trial ran too long
            trial.set_config({**trial.config, "late": self._search.late[number]})
        else:
            with self._search.kept_failure():
                self._events.restarted(number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remember the trial, so that its statistics are dropped at the end of this step."""
        self._ended.append(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Remember a trial whose process died too often, so that its statistics are dropped at the end of this step."""
        self._ended.append(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Run the periodic work, and raise KeyboardInterrupt if the study ends. Tune's loop has no other way out."""
        while self._ended:
            _drop_statistics(self._ended.pop())
        with self._search.kept_failure():
            self._events.tick()
        if self._stop.is_set() or self._search.failure:
            raise KeyboardInterrupt


def _drop_statistics(trial: Any) -> None:
    """Drop the statistics that Tune keeps of every number that an ended trial reported. Nothing reads them."""
    metadata = trial.run_metadata
    metadata.metric_analysis = metadata.metric_n_steps = metadata.last_result = {}  # one object for the three
    trial.config.clear()  # Tune has a second reference to this mapping
    trial.evaluated_params.clear()
    trial.experiment_tag = ""  # it has the text of the job
    trial.invalidate_json_state()


class NoReporter(NotPickled, tune.ProgressReporter):  # type: ignore[misc]
    """A progress reporter that reports nothing, because our own view shows the progress."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Return False, so that Tune never reports."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: dict[str, Any]) -> None:
        """Do nothing. Tune requires this method."""
