"""Running trials on the cluster, one after another in the same process, each from its configuration alone."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldtune.config import parse
from coldtune.faults import machine_fault
from coldtune.studies.worker.job import FAULT, LATE, TrialJob
from coldtune.studies.worker.timeout import LateError, TrialTimeout

if TYPE_CHECKING:
    from coldtune.stages.chain import Chain
    from coldtune.stages.trial import TrialConfig
    from coldtune.studies.storage.outcome import TrialOutcome

TRAINABLE = "coldtune_trial"
"""The name of the trainable. Ray's dashboard lists its actors under this name."""


def coldtune_trial(config: Mapping[str, Any]) -> None:
    """Run a trial and report to Tune: its progress, its values at each rung, and last its outcome or why it failed.

    If the trial is pruned at a rung, that report raises SystemExit in the trial's thread, and the process lives on. An
    exception of the trial makes it a failed trial and does not end the process. If a fault of the machine caused the
    exception (`coldtune.faults`), the trial is reported as interrupted instead. If the process dies, Tune starts the
    trial again, and the trial resumes from its last checkpoint.
    """
    from ray import tune

    job = parse(TrialJob, json.loads(config["job"]))
    print(f"=== study {job.study}, trial {job.label}{' (goes on)' if job.again else ''}", flush=True)
    timeout = TrialTimeout(job.timeout, partial(_end_process, tune.report))

    def report(result: dict[str, Any]) -> None:
        timeout.check()
        tune.report(result)

    try:
        if "late" in config:
            raise LateError(config["late"])
        with timeout:
            last = {"state": "complete", "outcome": _run(job, report, timeout).to_json()}
    except SystemExit:  # raised by the report after which Tune stops the trial
        print(f"=== study {job.study}, trial {job.label}: stopped", flush=True)
        raise
    except LateError as error:
        last = {"state": "failed", "reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        fault = machine_fault(error)
        last = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        if fault is not None:
            last = {"state": FAULT, "reason": fault}
    print(f"=== study {job.study}, trial {job.label}: {last['state']}", flush=True)
    tune.report(last)


def _end_process(report: Callable[[dict[str, Any]], object], reason: str) -> None:
    """Report the reason to the driver and end this process, because the trial hangs."""
    print(f"{reason}, and does not end by itself: its process ends", flush=True)
    threading.Timer(10.0, os._exit, [1]).start()  # in case the report hangs too
    report({"state": LATE, "reason": reason})
    os._exit(1)


def _run(
    job: TrialJob, report: Callable[[dict[str, Any]], object], timeout: TrialTimeout | None = None
) -> TrialOutcome:
    """Run the stages of a trial, and return its outcome."""
    from coldtune.metrics.values import check_same
    from coldtune.studies.worker.reporting import TrialReporter, throttled
    from coldtune.studies.worker.system_metrics import SystemMetrics
    from coldtune.tracking import Tracker

    timeout = timeout or TrialTimeout(None, lambda _: None)
    started = time.time()
    name, tags = job.title or f"trial {job.label}", {**job.tags, **_environment_tags(job)}
    with Tracker(Path(job.spool), job.study, job.number, name=name, tags=tags) as tracker, ExitStack() as stack:
        reporter = TrialReporter(job, report, timeout, tracker, started)
        device = _device(job)
        chain = _chain(job, job.trial, device, partial(reporter.waits, "another trial's work"), reporter.resumes)
        check_same([job.protocol or chain.protocol, chain.protocol])
        reporter.begins(chain)
        if job.system_metrics:
            stack.enter_context(SystemMetrics(tracker, device == "cuda", lambda: timeout.paused))
        sampled = throttled(1.0, reporter.sampled)
        outcome = chain.run(
            _trainer(job, device, reporter.check_in),
            reporter.trained,
            sampled,
            reporter.replayed,
            partial(reporter.reached_rung, chain),
        )
        return reporter.completed(chain, chain.judge_draws(outcome, sampled))


def _environment_tags(job: TrialJob) -> dict[str, str]:
    from coldtune.store.provenance import keep_environment

    environment = keep_environment(Path(job.environments))
    return {name: environment[name] for name in ("host", "device", "python", "torch")}


def _device(job: TrialJob) -> str:
    import torch

    return "cuda" if job.gpus and torch.cuda.is_available() else "cpu"


def _chain(
    job: TrialJob,
    trial: TrialConfig,
    device: str,
    waits: Callable[[], None] = lambda: None,
    resumes: Callable[[], None] = lambda: None,
) -> Chain:
    from coldtune.data import Dataset
    from coldtune.stages.chain import Chain
    from coldtune.store.location import StoreLocation
    from coldtune.store.store import Store
    from coldtune.training.device import use_threads

    source = Dataset.open(job.source_path) if job.source_path else None

    def waiting(text: str) -> None:
        print(f"store: {text}", flush=True)
        waits()

    place = StoreLocation.in_home(Path(job.home), job.store)
    store = Store(place, by=f"{job.study}/{job.number}", on_wait=waiting, on_resume=resumes)
    if device == "cpu":
        use_threads(job.threads)
    found = (None,) if job.unknown_threads else ()
    return Chain(trial, Dataset.open(job.dataset_path), store, device, source, found, job.workers)


def _trainer(job: TrialJob, device: str, check_in: Callable[[bool], None] = lambda _: None) -> Any:
    """Return the function that trains: in this process, or by several workers of Ray Train."""
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
        threads=job.threads,
        check_in=check_in,
    )


def measure_on_test(config: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the metrics of a finished trial on the test split, and their protocol. The restorer is in the store."""
    from coldtune.config import plain
    from coldtune.stages.trial import RungConfig

    job = parse(TrialJob, config)
    protocol = job.trial.protocol.model_copy(update={"split": "test"})
    tested = job.trial.model_copy(update={"protocol": protocol, "rungs": RungConfig()})
    device = _device(job)
    chain = _chain(job, tested, device)
    outcome = chain.run(_trainer(job, device), lambda *_: None)
    return dict(outcome.metrics), plain(outcome.protocol)
