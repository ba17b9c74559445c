"""Ray Tune as the executor of a study: it runs the trials that the ledger asks, and reports their ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

    After an interruption the running trials are left to the end of the connection, because the sender of a signal may
    not wait for long. They resume from their last checkpoint. Work after it is repeated.

    Args:
        job: Makes the job of each trial that is asked.
        capacity: How many trials run at the same time. A trial waits if another study uses its resources.
        scratch: A folder for Tune's working files, from which nothing is ever read.
        trial: Runs one trial in its process, and reports as `coldtune_trial` does.
        retries: How often a trial whose process died is started again.

    Raises:
        KeyboardInterrupt: On SIGINT, between two events. A second SIGINT raises at once.
        StoppedError: If a listener of `events` raises it.
    """
    from ray import tune

    from coldtune.studies.execution.callbacks import Silent, Ticker
    from coldtune.studies.execution.searcher import RungScheduler, StudySearcher

    stop = threading.Event()
    # By default Tune starts the processes of a custom searcher's trials one after another. The searcher has a limit.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(trials)
    search = StudySearcher(ledger, events, job, capacity, trials)
    tuner = tune.Tuner(
        _trainable(trial, capacity.resources),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=RungScheduler(search),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']:04d}",
            trial_dirname_creator=lambda trial: f"trial-{trial.config['number']:04d}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=ledger.study.study_name,
            storage_path=str(scratch),
            verbose=0,
            progress_reporter=Silent(),
            callbacks=[Ticker(events, search, stop)],
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


def _trainable(trial: Callable[[Mapping[str, Any]], None], slots: TrialResources) -> Any:
    """Wrap `trial` in a class with our own name, under which the dashboard lists the actors.

    Tune would list a function as `ImplicitFunc`, and a function with resources as `ResourceTrainable`.
    """
    from ray.tune.trainable.function_trainable import wrap_function

    wrapped = wrap_function(trial, name=TRAINABLE)
    wrapped.__name__ = wrapped.__qualname__ = TRAINABLE
    wrapped.default_resource_request = classmethod(lambda cls, config: _resources(slots))
    return wrapped


def _resources(slots: TrialResources) -> Any:
    from ray import tune

    if slots.workers > 1:
        # The workers have a placement group of their own, and the trial itself only waits for them.
        return tune.PlacementGroupFactory([{"memory": 1}])
    return tune.PlacementGroupFactory([{"CPU": slots.cpus} | ({"GPU": slots.gpus} if slots.gpus else {})])


@contextmanager
def _on_sigint(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on the first SIGINT. Later ones raise KeyboardInterrupt as usual. Tune's own handler must be off."""

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
