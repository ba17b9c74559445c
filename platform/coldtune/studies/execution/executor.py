"""Ray Tune as the executor of a study: it runs the trials that the ledger asks, and reports how they end."""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldtune.labels import as_label
from coldtune.studies.preflight.capacity import Capacity, TrialResources
from coldtune.studies.progress.events import Events
from coldtune.studies.trials.ledger import Ledger, TrialRequest
from coldtune.studies.worker.job import TrialJob
from coldtune.studies.worker.trial import TRAINABLE, coldtune_trial


def execute(
    ledger: Ledger,
    events: Events,
    job: Callable[[TrialRequest], TrialJob],
    capacity: Capacity,
    trials: int,
    scratch: Path,
    trial: Callable[[Mapping[str, Any]], None] = coldtune_trial,
    retries: int = 2,
) -> None:
    """Run trials on the connected cluster until `trials` of the study have ended.

    After an interruption this does not wait for the running trials, because the sender of a signal may not wait for
    long. They end with the connection. A resumed trial repeats the work after its last checkpoint.

    Args:
        job: Makes the job of a requested trial.
        capacity: How many trials run at the same time. A trial waits if another study uses its resources.
        scratch: A folder for Tune's working files. Nothing is ever read from it.
        trial: Runs a trial in the trial's process, and reports as `coldtune_trial` does.
        retries: How often a trial is started again after its process died.

    Raises:
        KeyboardInterrupt: On SIGINT, between two events. A second SIGINT raises at once.
        MachineFaultError: If a fault of the machine ended a trial. The trial stays running in the study.
        StoppedError: If a listener of `events` raises it.
    """
    from ray import tune

    from coldtune.studies.execution.callbacks import EventCallback, NoReporter
    from coldtune.studies.execution.lost_workers import report_lost_workers
    from coldtune.studies.execution.ray_private import drop_tasks_of_removed_actors
    from coldtune.studies.execution.searcher import RungScheduler, StudySearcher

    stop = threading.Event()
    # By default Tune starts the processes of a custom searcher's trials one after another. Our searcher limits how
    # many trials run, so Tune need not.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(1, ledger.trainings(trials)))
    search = StudySearcher(ledger, events, job, capacity, trials)
    tuner = tune.Tuner(
        _trainable(trial, capacity.resources),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=RungScheduler(search),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']:04d}{_suffix(trial.config)}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:04d}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=as_label(ledger.study.study_name),
            storage_path=str(scratch),
            verbose=0,
            progress_reporter=NoReporter(),
            callbacks=[EventCallback(events, search, stop)],
            failure_config=tune.FailureConfig(max_failures=retries),
        ),
    )
    with _on_sigint(stop), report_lost_workers(search.note_lost_process), drop_tasks_of_removed_actors():
        try:
            tuner.fit()
        except (Exception, KeyboardInterrupt):  # after a failure, Tune may also fail to write its own state
            if not search.failure:
                raise
    if search.failure:
        raise search.failure


def _suffix(config: Mapping[str, Any]) -> str:
    """Return the name of a trial for Ray's dashboard, if it is another than its number."""
    number, name = str(config["number"]), config.get("name")
    return "" if name in (None, number) else f"-is-{name}"


def _trainable(trial: Callable[[Mapping[str, Any]], None], resources: TrialResources) -> Any:
    """Wrap `trial` in a class with our own name, because the dashboard lists the actors under the class's name.

    Tune would call the class of a function `ImplicitFunc`, and that of a function with resources `ResourceTrainable`.
    """
    from ray.tune.trainable.function_trainable import wrap_function

    wrapped = wrap_function(trial, name=TRAINABLE)
    wrapped.__name__ = wrapped.__qualname__ = TRAINABLE
    wrapped.default_resource_request = classmethod(lambda cls, config: _placement(resources))
    return wrapped


@functools.cache  # Tune unpickles the trainable for every trial, and keeps the placement of every trial
def _placement(resources: TrialResources) -> Any:
    from ray import tune

    if resources.workers > 1:
        # The workers have a placement group of their own, and the trial itself only waits for them.
        return tune.PlacementGroupFactory([{"memory": 1}])
    gpus = {"GPU": resources.gpus} if resources.gpus else {}
    return tune.PlacementGroupFactory([{"CPU": resources.cpus, **gpus}])


@contextmanager
def _on_sigint(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on the first SIGINT. A second SIGINT raises KeyboardInterrupt. Tune's own handler must be off."""

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
