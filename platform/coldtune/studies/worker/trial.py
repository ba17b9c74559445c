"""What runs on the cluster: one trial after another in the same process, each from its configuration alone."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldtune.config import parse
from coldtune.studies.worker.job import LATE, TrialJob
from coldtune.studies.worker.timeout import LateError, TrialTimeout

if TYPE_CHECKING:
    from coldtune.stages.chain import Chain
    from coldtune.stages.trial import TrialConfig
    from coldtune.studies.storage.outcome import TrialOutcome

TRAINABLE = "coldtune_trial"
"""The trainable's name, under which its actors appear in Ray's dashboard."""


def coldtune_trial(config: Mapping[str, Any]) -> None:
    """Run one trial and report to Tune: while it trains, how far it is; last, `state` and its outcome or reason.

    From each rung it reports what it is worth there; where it is pruned, that report does not return but raises
    SystemExit in the trial's thread, which the process outlives. An exception of the trial is its result (a failed
    trial), not the actor's death; what kills the process is left to Tune, which starts the trial again, and it goes on
    from its last checkpoint.
    """
    from ray import tune

    job = parse(TrialJob, json.loads(config["job"]))
    print(f"=== study {job.study}, trial {job.number}{' (goes on)' if job.again else ''}", flush=True)
    deadline = TrialTimeout(job.timeout, partial(_force, tune.report))

    def report(result: dict[str, Any]) -> None:
        deadline.check()
        tune.report(result)

    try:
        if "late" in config:
            raise LateError(config["late"])
        with deadline:
            last = {"state": "complete", "outcome": _run(job, report, deadline).to_json()}
    except SystemExit:  # raised by the report after which Tune stops the trial
        print(f"=== study {job.study}, trial {job.number}: stopped", flush=True)
        raise
    except LateError as error:
        last = {"state": "failed", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        last = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
    print(f"=== study {job.study}, trial {job.number}: {last['state']}", flush=True)
    tune.report(last)


def _force(report: Callable[[dict[str, Any]], object], reason: str) -> None:
    """End this process, whatever hangs in it; the driver hears why."""
    print(f"{reason}, and does not end by itself: its process ends", flush=True)
    threading.Timer(10.0, os._exit, [1]).start()  # where even the report hangs
    report({"state": LATE, "reason": reason})
    os._exit(1)


def _run(
    job: TrialJob, report: Callable[[dict[str, Any]], object], deadline: TrialTimeout | None = None
) -> TrialOutcome:
    """Bring the trial's stages about; gives what the study keeps of it."""
    import torch

    from coldtune.metrics.values import check_same
    from coldtune.studies.worker.reporting import Reporting, every
    from coldtune.tracking import Tracker

    deadline = deadline or TrialTimeout(None, lambda _: None)
    torch.set_num_threads(job.cpus)
    started = time.time()
    with Tracker(Path(job.spool), job.study, job.number, tags=job.tags) as tracker:
        told = Reporting(job, report, deadline, tracker, started)
        device = _device(job)
        chain = _chain(job, job.trial, device, partial(told.waits, "another trial's work"), deadline)
        check_same([job.protocol or chain.protocol, chain.protocol])
        told.begins(chain)
        train = _trainer(job, device, told.look)
        outcome = chain.run(train, told.trained, every(1.0, told.sampled), told.replayed, partial(told.on_rung, chain))
        return told.completed(chain, outcome)


def _device(job: TrialJob) -> str:
    import torch

    return "cuda" if job.gpus and torch.cuda.is_available() else "cpu"


def _chain(
    job: TrialJob,
    trial: TrialConfig,
    device: str,
    waits: Callable[[], None] = lambda: None,
    deadline: TrialTimeout | None = None,
) -> Chain:
    from coldtune.data import Dataset
    from coldtune.stages.chain import Chain
    from coldtune.store.location import StoreLocation
    from coldtune.store.store import Store

    source = Dataset.open(job.source_path) if job.source_path else None

    def waiting(text: str) -> None:
        print(f"store: {text}", flush=True)
        waits()

    working = deadline.resume if deadline else lambda: None
    place = StoreLocation.in_home(Path(job.home), job.store)
    store = Store(place, by=f"{job.study}/{job.number}", on_wait=waiting, on_resume=working)
    return Chain(trial, Dataset.open(job.dataset_path), store, device, source)


def _trainer(job: TrialJob, device: str, look: Callable[[bool], None] = lambda _: None) -> Any:
    """How this trial trains: in this process, or by several workers of Ray Train."""
    from coldtune.training.loop import train

    if job.workers == 1:
        return partial(train, device=device)
    from coldtune.training.distributed import train_distributed

    return partial(
        train_distributed,
        workers=job.workers,
        name=f"{job.study}-trial-{job.number}",
        storage_path=Path(job.home) / "ray" / "train",
        cpus_per_worker=job.cpus,
        gpus_per_worker=job.gpus,
        look=look,
    )


def measure_on_test(config: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The values of a finished trial on the test split, and the protocol they hold under; its restorer is found."""
    import torch

    from coldtune.config import plain
    from coldtune.stages.trial import RungConfig

    job = parse(TrialJob, config)
    torch.set_num_threads(job.cpus)
    protocol = job.trial.protocol.model_copy(update={"split": "test"})
    tested = job.trial.model_copy(update={"protocol": protocol, "rungs": RungConfig()})
    device = _device(job)
    chain = _chain(job, tested, device)
    outcome = chain.run(_trainer(job, device), lambda *_: None)
    return dict(outcome.metrics), plain(outcome.protocol)
