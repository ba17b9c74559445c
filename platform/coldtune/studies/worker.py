"""What runs on the cluster: one trial after another in the same process, each from its configuration alone."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldtune.config import Config, parse
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import check_same
from coldtune.stages.trial import VARIANT, TrialConfig, flat
from coldtune.studies.deadline import Deadline, LateError

if TYPE_CHECKING:
    from coldtune.metrics import Judgement
    from coldtune.stages.chain import Chain, StageRecord
    from coldtune.stages.shares import Share

TRAINABLE = "coldtune_trial"
"""The trainable's name, under which its actors appear in Ray's dashboard."""


RUNNING = "running"  # the `state` of every report but a trial's last
RUNG = "rung"  # the `stage` of a report from a rung, at which the trial may end
LATE = "late"  # of a trial whose process is about to be ended by force, with the reason


class TrialJob(Config):
    """Everything a worker process needs to run one trial; all paths absolute."""

    study: str
    number: int
    again: bool
    trial: TrialConfig
    protocol: Protocol | None = None  # under which the study judges; None: whatever the trial resolves to here
    leftover: float | None
    home: str
    store: str | None = None  # None: the home's own
    dataset_path: str
    source_path: str | None
    spool: str
    tags: dict[str, str]
    workers: int
    cpus: int
    gpus: float
    timeout: float | None = None  # seconds that it may run


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
    deadline = Deadline(job.timeout, partial(_force, tune.report))

    def report(result: dict[str, Any]) -> None:
        deadline.check()
        tune.report(result)

    try:
        if "late" in config:
            raise LateError(config["late"])
        with deadline:
            state, outcome = "complete", _run(job, report, deadline)
    except SystemExit:  # raised by the report after which Tune stops the trial
        print(f"=== study {job.study}, trial {job.number}: stopped", flush=True)
        raise
    except LateError as error:
        state, outcome = "failed", {"reason": str(error)}
    except Exception as error:
        traceback.print_exc()
        state, outcome = "failed", {"reason": f"{type(error).__name__}: {error}"}
    print(f"=== study {job.study}, trial {job.number}: {state}", flush=True)
    tune.report({"state": state, "outcome": json.dumps(outcome)})


def _force(report: Callable[[dict[str, Any]], object], reason: str) -> None:
    """End this process, whatever hangs in it; the driver hears why."""
    print(f"{reason}, and does not end by itself: its process ends", flush=True)
    threading.Timer(10.0, os._exit, [1]).start()  # where even the report hangs
    report({"state": LATE, "outcome": json.dumps({"reason": reason})})
    os._exit(1)


def _run(job: TrialJob, report: Any, deadline: Deadline | None = None) -> dict[str, Any]:
    import torch

    from coldtune.config import plain
    from coldtune.tracking import NOTE, Tracker
    from coldtune.tracking.prometheus import TrialMetrics

    deadline = deadline or Deadline(None, lambda _: None)
    torch.set_num_threads(job.cpus)
    started = time.time()
    gauges = TrialMetrics(job.study, job.number)
    with Tracker(Path(job.spool), job.study, job.number, tags=job.tags) as tracker:
        device = "cuda" if job.gpus and torch.cuda.is_available() else "cpu"

        def waits(what: str) -> None:
            deadline.pause()
            report({"state": RUNNING, "stage": "waiting", "step": 0, "steps": job.trial.training.steps, "for": what})

        chain = _chain(job, job.trial, device, partial(waits, "another trial's work"), deadline)
        check_same([chain.protocol if job.protocol is None else job.protocol, chain.protocol])
        extra: dict[str, object] = {VARIANT: job.tags[VARIANT]} if VARIANT in job.tags else {}
        extra |= {} if job.leftover is None else {"leftover": float(f"{job.leftover:.4g}")}
        tracker.params({**flat(job.trial), "N": chain.protocol.num_images, **extra})
        steps = job.trial.training.steps

        def trained(step: int, metrics: Mapping[str, float]) -> None:
            tracker.metrics(metrics, step)
            if "loss" in metrics:  # a validation may be due without it
                gauges.training(step, metrics["loss"], metrics["images_per_s"])
            if "micro_batch" in metrics:
                tracker.tags({"micro_batch": int(metrics["micro_batch"])})
            report({"state": RUNNING, "stage": "train", "step": step, "steps": steps, **metrics})

        def sampled(stage: str, share: float) -> None:
            step = int(stage.partition("_")[2] or steps)
            report({"state": RUNNING, "stage": stage, "step": step, "steps": steps, "share": share})

        def on_rung(step: int, judgement: Judgement) -> None:
            values, parts = _worth(job, judgement, chain.nfe), _parts(job, chain, chain.records)
            tracker.metrics({f"rung_{metric}": value for metric, value in values.items() if metric != "nfe"}, step)
            so_far = {
                "metric": job.trial.rungs.metric,
                "stages": _stages(chain.records),
                "attributes": _attributes(parts, time.time() - started),
                "training_seconds": sum(r.earlier + r.seconds for r in chain.records if r.stage.startswith("train")),
            }
            at = {"state": RUNNING, "stage": RUNG, "step": step, "steps": steps}
            deadline.pause()  # a trial that ends here stays in this report until its process takes another
            report({**at, "rung": values, "so_far": json.dumps(so_far)})
            deadline.resume()

        def replay(step: int, past: Mapping[str, float]) -> None:
            tracker.metrics(past, step)

        waits_for_room = _every(5.0, partial(waits, "room on the cluster"))

        def look(waiting: bool) -> None:
            if waiting:
                waits_for_room()
            else:
                deadline.resume()
                deadline.check()

        outcome = chain.run(_trainer(job, device, look), trained, _every(1.0, sampled), replay, on_rung)
        parts = _parts(job, chain, outcome.stages)
        attributes = _attributes(parts, time.time() - started)
        by_stage = {f"seconds_{record.stage}": record.seconds for record in outcome.stages if not record.found}
        tracker.metrics(
            {**outcome.metrics, **by_stage, "seconds": attributes["seconds"], "seconds_saved": parts.saved}, steps
        )
        tracker.tags(
            {
                "protocol": outcome.protocol.key,
                "protocol_text": outcome.protocol.describe(),
                **{f"stage_{record.stage}": record.key for record in outcome.stages},
                **{f"found_{record.stage}": record.found for record in outcome.stages},
                NOTE: parts.describe(),
            }
        )
        _artifacts(tracker, job, chain, outcome)
        address = chain.store.files.address
        return {
            "metrics": dict(outcome.metrics),
            "protocol": plain(outcome.protocol),
            "stages": _stages(outcome.stages),
            "images": {name: address(path) for name, path in outcome.images.items()},
            "measured": {name: address(path) for name, path in outcome.measured.items()},
            "checkpoint": address(outcome.checkpoint),
            "rungs": {str(step): _worth(job, judged, outcome.nfe) for step, judged in outcome.rungs.items()},
            **attributes,
        }


def _chain(
    job: TrialJob,
    trial: TrialConfig,
    device: str,
    waits: Callable[[], None] = lambda: None,
    deadline: Deadline | None = None,
) -> Chain:
    from coldtune.data import Dataset
    from coldtune.stages.chain import Chain
    from coldtune.stages.store import Store
    from coldtune.stages.store_at import StoreAt

    source = Dataset.open(job.source_path) if job.source_path else None

    def waiting(text: str) -> None:
        print(f"store: {text}", flush=True)
        waits()

    working = deadline.resume if deadline else lambda: None
    place = StoreAt.in_home(Path(job.home), job.store)
    store = Store(place, by=f"{job.study}/{job.number}", waiting=waiting, working=working)
    return Chain(trial, Dataset.open(job.dataset_path), store, device, source)


def _parts(job: TrialJob, chain: Chain, records: Iterable[StageRecord]) -> Share:
    from coldtune.stages.shares import share

    return share(records, me=chain.store.by if job.again else None)


def _attributes(parts: Share, elapsed: float) -> dict[str, Any]:
    """What the table shows of a trial's work; elapsed: seconds since it began, or goes on."""
    own = {"trained": parts.own.get("train"), "saved": parts.saved, "seconds": elapsed + parts.before}
    return {"found": dict(parts.found), **own}


def _worth(job: TrialJob, judgement: Judgement, nfe: int) -> dict[str, float]:
    from coldtune.stages.rungs import worth

    return worth(judgement, job.trial.rungs.metric, nfe)


def _stages(records: Iterable[StageRecord]) -> list[list[Any]]:
    return [[record.stage, record.key, record.found, record.seconds] for record in records]


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


def _artifacts(tracker: Any, job: TrialJob, chain: Any, outcome: Any) -> None:
    """The trial's configuration, pictures and weights, onto its run."""
    import tempfile

    import yaml
    from safetensors.torch import load_file

    from coldtune.config import plain
    from coldtune.reports.pictures import four_columns, strip

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = {name: load_file(path / "images.safetensors")["images"] for name, path in outcome.images.items()}
        rows = slice(0, 8)
        clean = chain.clean()
        grid = four_columns(
            images["degraded"][rows],
            images["direct"][rows],
            images["sampled"][rows],
            clean if clean is None else clean[rows],
        )
        grid.save(folder / "grid.png")
        iterates = load_file(outcome.images["sampled"] / "strip.safetensors")
        strip([(int(s), x) for s, x in sorted(iterates.items(), reverse=True)]).save(folder / "strip.png")
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(job.trial), sort_keys=False))
        for name in ("config.yaml", "grid.png", "strip.png"):
            tracker.artifact(folder / name)
    for name, path in outcome.measured.items():
        tracker.artifact(path / "metrics.json", f"judged/{name}")
    tracker.artifact(outcome.checkpoint / "ema.safetensors", "weights")


def _every(seconds: float, call: Any) -> Any:
    """`call`, at most once in so many seconds."""
    last = 0.0

    def limited(*args: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            call(*args)

    return limited


def measure_on_test(config: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """The values of a finished trial on the test split, and the protocol they hold under; its restorer is found."""
    import torch

    from coldtune.config import plain
    from coldtune.stages.rungs import RungConfig

    job = parse(TrialJob, config)
    torch.set_num_threads(job.cpus)
    protocol = job.trial.protocol.model_copy(update={"split": "test"})
    tested = job.trial.model_copy(update={"protocol": protocol, "rungs": RungConfig()})
    device = "cuda" if job.gpus and torch.cuda.is_available() else "cpu"
    chain = _chain(job, tested, device)
    outcome = chain.run(_trainer(job, device), lambda *_: None)
    return dict(outcome.metrics), plain(outcome.protocol)
