"""Ray Tune as the executor of a study: it runs what the ledger asks and reports what became of it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldtune.config import plain
from coldtune.studies.events import Events, StoppedError
from coldtune.studies.ledger import Asked, Ledger
from coldtune.studies.patience import StorageGoneError
from coldtune.studies.pruning_rungs import Rung
from coldtune.studies.slots import Room, Slots
from coldtune.studies.worker import LATE, RUNG, RUNNING, TRAINABLE, TrialJob, coldtune_trial


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
    room: Room,
    trials: int,
    scratch: Path,
    trial: Callable[[Mapping[str, Any]], None] = coldtune_trial,
    retries: int = 2,
) -> None:
    """Run trials on the connected cluster until `trials` of the study have ended.

    room: how many run at once; a trial whose place is taken (by another study, say) waits for it. scratch: a folder
    for Tune's own working files, which nothing is ever read from. trial: what runs one trial in its process, and
    reports as `coldtune_trial` does. retries: how often a trial whose process died is started again. Raises
    KeyboardInterrupt on SIGINT, between two events (a second SIGINT: at once), and StoppedError as `events` do, and
    leaves the running trials to the end of the connection: they lose nothing that a checkpoint does not hold, and
    whoever sent the signal may not wait for long.
    """
    from ray import tune

    stop = threading.Event()
    # Tune starts the processes of a custom searcher's trials one after another; the searcher itself keeps the limit.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(trials)
    search = _searcher(ledger, events, job, room, trials)
    tuner = tune.Tuner(
        _trainable(trial, room.slots),
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
            callbacks=[_ticker(events, search, stop)],
            failure_config=tune.FailureConfig(max_failures=retries),
        ),
    )
    with _on_sigint(stop):
        try:
            tuner.fit()
        except KeyboardInterrupt:
            if not search.failure:
                raise
    if search.failure:
        raise search.failure


def _tell(ledger: Ledger, events: Events, number: int, state: str, outcome: Mapping[str, Any]) -> None:
    """Tell the ledger, then the listeners, what became of a trial."""
    if ledger.lost(number):
        ledger.drop(number)
        events.lost(number)
        return
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
        reason = outcome["reason"]
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


def _searcher(ledger: Ledger, events: Events, job: Callable[[Asked], TrialJob], room: Room, trials: int) -> Any:
    from ray.tune.search import Searcher

    class StudySearcher(_Unsaved, Searcher):  # type: ignore[misc]
        """Tune's trials, asked from and told to the ledger."""

        def __init__(self) -> None:
            super().__init__(metric="state", mode="min")
            self.numbers: dict[str, int] = {}
            self.pruned: dict[str, Rung] = {}
            self.deaths: Counter[int] = Counter()
            self.late: dict[int, str] = {}  # reasons of trials whose processes are about to be ended by force
            self.failure: Exception | None = None

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
            if isinstance(self.failure, StorageGoneError):
                raise self.failure  # what still runs could not be told either
            if self.failure:
                return str(Searcher.FINISHED)
            # With nothing running, Tune would ask without end, and hear nothing else: Ray itself keeps a trial waiting.
            if len(self.numbers) >= max(1, room.count()):
                return None
            if ledger.wanted(trials) <= 0:
                return Searcher.FINISHED if not self.numbers else None
            if (asked := ledger.ask(trials)) is None:
                return None
            self.numbers[trial_id] = asked.number
            events.asked(asked)
            # As text: Tune flattens and copies whatever is nested, at every report.
            return {"number": asked.number, "job": json.dumps(plain(job(asked)))}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            if trial_id not in self.numbers:
                return
            if result["state"] == RUNNING and result.get("stage") != RUNG:
                events.progressed(self.numbers[trial_id], result)
            elif result["state"] == LATE:
                self.late[self.numbers[trial_id]] = json.loads(result["outcome"])["reason"]

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
            if trial_id not in self.numbers or (state in (RUNNING, LATE) and not error and rung is None):
                return  # stopped from outside: it stays running in the study and is taken up on resume
            number = self.numbers.pop(trial_id)
            try:
                times = self.deaths[number] + 1
                died = {"reason": self.late.get(number, f"its process died {times} time{'s' * (times != 1)}")}
                outcome = json.loads(result["outcome"]) if result and state != RUNNING else died
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


def _ticker(events: Events, search: Any, stop: threading.Event) -> Any:
    from ray import tune

    ended: list[Any] = []  # to be forgotten when Tune's other callbacks have seen them

    class Ticker(_Unsaved, tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            events.started(trial.config["number"])

        def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            number = trial.config["number"]
            search.deaths[number] += 1
            if number in search.late:  # its next process shall only say so
                trial.set_config({**trial.config, "late": search.late[number]})
            else:
                events.restarted(number)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended.append(trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended.append(trial)

        def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
            while ended:
                _forget(ended.pop())
            try:
                events.tick()
            except StoppedError as stopped:
                search.failure = search.failure or stopped
            if stop.is_set() or search.failure:
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
