"""Ray Tune as the executor of a study: it runs what the ledger asks and reports what became of it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldtune.config import plain
from coldtune.studies.cluster import Slots
from coldtune.studies.ledger import Asked, Ledger
from coldtune.studies.patience import StorageGoneError
from coldtune.studies.pruning_rungs import Rung
from coldtune.studies.worker import RUNG, RUNNING, TRAINABLE, TrialJob, coldtune_trial

_RETRIES = 2  # of a trial whose process died; it goes on from its last checkpoint


class Events:
    """What the executor tells while it runs; a study's view and records override what they need."""

    def asked(self, asked: Asked) -> None:
        """A trial was handed to the cluster."""

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        """A running trial reported (see `coldtune_trial`)."""

    def completed(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial has its values, and the ledger knows them."""

    def failed(self, number: int, reason: str) -> None:
        """A trial failed, and the ledger knows why."""

    def pruned(self, number: int, step: int) -> None:
        """A trial ended at a rung, and the ledger knows it."""

    def restarted(self, number: int) -> None:
        """A trial's process died; the cluster starts it again, and it goes on from its last checkpoint."""

    def tick(self) -> None:
        """Called several times a second, whether or not anything happened."""


class _Unsaved:
    """Tune pickles its searcher, reporter and callbacks beside its results; nothing reads them, and ours hold locks."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (dict, ())

    def __deepcopy__(self, memo: object) -> _Unsaved:
        return self


def execute(
    ledger: Ledger,
    events: Events,
    job: Callable[[Asked], TrialJob],
    slots: Slots,
    trials: int,
    scratch: Path,
    trial: Callable[[Mapping[str, Any]], None] = coldtune_trial,
) -> None:
    """Run trials on the connected cluster until `trials` of the study have ended.

    scratch: a folder for Tune's own working files, which nothing is ever read from. trial: what runs one trial in its
    process, and reports as `coldtune_trial` does. Raises KeyboardInterrupt on
    SIGINT, between two events (a second SIGINT: at once), and leaves the running trials to the end of the connection:
    they lose nothing that a checkpoint does not hold, and whoever sent the signal may not wait for long.
    """
    from ray import tune

    stop = threading.Event()
    # Tune starts the processes of a custom searcher's trials one after another; the searcher itself keeps the limit.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots.count)
    search = _searcher(ledger, events, job, slots, trials)
    tuner = tune.Tuner(
        _trainable(trial, slots),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=_scheduler(search),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']:04d}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:04d}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=ledger.study.study_name,
            storage_path=str(scratch),
            verbose=0,
            progress_reporter=_silent_reporter(),
            callbacks=[_ticker(events, stop)],
            failure_config=tune.FailureConfig(max_failures=_RETRIES),
        ),
    )
    with _on_sigint(stop):
        tuner.fit()
    if search.failure:
        raise search.failure


def _tell(ledger: Ledger, events: Events, number: int, state: str, outcome: Mapping[str, Any]) -> None:
    """Tell the ledger, then the listeners, what became of a trial."""
    if state == "complete":
        attributes = {key: value for key, value in outcome.items() if key != "metrics"}
        reason = ledger.complete(number, outcome["metrics"], attributes)
        if reason is None:
            events.completed(number, outcome)
            return
    elif state == "pruned":
        ledger.prune(number, outcome["rung"])
        events.pruned(number, outcome["rung"].step)
        return
    else:
        reason = outcome.get("reason") or f"its process died {_RETRIES + 1} times"
        ledger.fail(number, reason)
    events.failed(number, reason)


def _trainable(trial: Callable[[Mapping[str, Any]], None], slots: Slots) -> Any:
    """The trainable as a class of its own name, under which the dashboard lists its actors.

    Tune would show a function's as `ImplicitFunc`, and those of `tune.with_resources` as `ResourceTrainable`.
    """
    from ray.tune.trainable.function_trainable import wrap_function

    wrapped = wrap_function(trial, name=TRAINABLE)
    wrapped.__name__ = wrapped.__qualname__ = TRAINABLE
    wrapped.default_resource_request = classmethod(lambda cls, config: _resources(slots))
    return wrapped


def _resources(slots: Slots) -> Any:
    from ray import tune

    if slots.workers > 1:
        # The workers have a placement group of their own; the trial itself only waits for them.
        return tune.PlacementGroupFactory([{"memory": 1}])
    return tune.PlacementGroupFactory([{"CPU": slots.cpus} | ({"GPU": slots.gpus} if slots.gpus else {})])


def _searcher(ledger: Ledger, events: Events, job: Callable[[Asked], TrialJob], slots: Slots, trials: int) -> Any:
    from ray.tune.search import Searcher

    class StudySearcher(_Unsaved, Searcher):  # type: ignore[misc]
        """Tune's trials, asked from and told to the ledger."""

        def __init__(self) -> None:
            super().__init__(metric="state", mode="min")
            self.numbers: dict[str, int] = {}
            self.pruned: dict[str, Rung] = {}
            self.failure: Exception | None = None

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            if isinstance(self.failure, StorageGoneError):
                raise self.failure  # what still runs could not be told either
            if self.failure:
                return str(Searcher.FINISHED)
            if len(self.numbers) >= slots.count:
                return None
            if ledger.wanted(trials) <= 0:
                return Searcher.FINISHED if not self.numbers else None
            asked = ledger.ask()
            self.numbers[trial_id] = asked.number
            events.asked(asked)
            # As text: Tune flattens and copies whatever is nested, at every report.
            return {"number": asked.number, "job": json.dumps(plain(job(asked)))}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if trial_id in self.numbers and result["state"] == RUNNING and result.get("stage") != RUNG:
                events.progressed(self.numbers[trial_id], result)

        def prunes(self, trial_id: str, result: dict[str, Any]) -> bool:
            """Whether the trial ends with this report, one from a rung."""
            if trial_id not in self.numbers:
                return False
            try:
                events.progressed(self.numbers[trial_id], result)
                rung = Rung.of(result)
                if ledger.prunes(self.numbers[trial_id], rung):
                    self.pruned[trial_id] = rung
            except Exception as failure:  # Tune would count the trial as failed and go on
                self.failure = self.failure or failure
            return trial_id in self.pruned

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            state, rung = (result or {}).get("state", RUNNING), self.pruned.pop(trial_id, None)
            if trial_id not in self.numbers or (state == RUNNING and not error and rung is None):
                return  # stopped from outside: it stays running in the study and is taken up on resume
            number = self.numbers.pop(trial_id)
            try:
                outcome = json.loads(result["outcome"]) if result and state != RUNNING else {}
                _tell(ledger, events, number, "pruned" if rung else state, {"rung": rung} if rung else outcome)
            except Exception as failure:  # Tune would log it and go on
                self.failure = self.failure or failure

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).touch()

        def restore(self, checkpoint_path: str) -> None:
            raise AssertionError("a study resumes from its own storage, never from Tune's")

    return StudySearcher()


def _scheduler(search: Any) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    class RungScheduler(_Unsaved, FIFOScheduler):  # type: ignore[misc]
        """Tune's trials, stopped at the rungs at which the ledger prunes them."""

        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            at_rung = result["state"] == RUNNING and result.get("stage") == RUNG
            ends = at_rung and search.prunes(trial.trial_id, result)
            return str(self.STOP if ends else self.CONTINUE)

    return RungScheduler()


def _silent_reporter() -> Any:
    from ray.tune import ProgressReporter

    class Silent(_Unsaved, ProgressReporter):  # type: ignore[misc]
        def should_report(self, trials: list[Any], done: bool = False) -> bool:
            return False

        def report(self, trials: list[Any], done: bool, *sys_info: dict[str, Any]) -> None:
            pass

    return Silent()


def _ticker(events: Events, stop: threading.Event) -> Any:
    from ray import tune

    class Ticker(_Unsaved, tune.Callback):  # type: ignore[misc]
        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            events.restarted(trial.config["number"])

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _forget(trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            _forget(trial)

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            events.tick()
            if stop.is_set():
                raise KeyboardInterrupt

    return Ticker()


def _forget(trial: Any) -> None:
    """Drop what Tune would keep of a trial that ended, and nothing reads: statistics of every number it reported."""
    kept = trial.run_metadata
    kept.metric_analysis, kept.metric_n_steps, kept.last_result = {}, {}, {}
    trial.config.clear()  # Tune has another name for the same
    trial.evaluated_params.clear()
    trial.invalidate_json_state()


@contextmanager
def _on_sigint(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGINT, from then on raise KeyboardInterrupt as usual. Tune's own handler must be off."""

    def handle(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
