"""The reports of a running trial: to its driver, to its run in MLflow, and to Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldtune.config import plain
from coldtune.stages.reuse import Reuse, StageRecord
from coldtune.stages.rungs import rung_values
from coldtune.stages.trial import VARIANT, flat
from coldtune.store.provenance import keep_environment
from coldtune.studies.storage.outcome import Effort, Rung, StoredStage, TrialOutcome
from coldtune.studies.worker.datasets import link_datasets
from coldtune.studies.worker.job import RUNG, RUNNING, TrialJob
from coldtune.studies.worker.timeout import TrialTimeout
from coldtune.tracking import NOTE, Tracker, trial_metrics
from coldtune.tracking.prometheus import TrialMetrics

if TYPE_CHECKING:
    from coldtune.metrics import Judgement
    from coldtune.stages.chain import Chain, Outcome


class TrialReporter:
    """The callbacks that a trial's `Chain` and its training call while they run."""

    def __init__(
        self,
        job: TrialJob,
        report: Callable[[dict[str, Any]], object],
        timeout: TrialTimeout,
        tracker: Tracker,
        started: float,
    ) -> None:
        """Create the callbacks of a trial.

        Args:
            report: Sends a report to the driver. If it raises, the trial ends.
            timeout: The clock of the trial. It stands still while the trial waits.
            started: When the trial began or resumed, in seconds since the epoch.
        """
        self._job, self._report, self._timeout, self._tracker = job, report, timeout, tracker
        self._started, self._steps, self._waiting = started, job.trial.training.steps, False
        self._gauges = TrialMetrics(job.study, job.label)
        self._waits_for_cluster = throttled(5.0, partial(self.waits, "room on the cluster"))

    def begins(self, chain: Chain) -> None:
        """Log the parameters of the trial."""
        job = self._job
        extra: dict[str, object] = {VARIANT: job.tags[VARIANT]} if VARIANT in job.tags else {}
        extra |= {} if job.leftover is None else {"leftover": float(f"{job.leftover:.4g}")}
        self._tracker.params({**flat(job.trial), "N": chain.protocol.num_images, **extra})
        link_datasets(self._tracker, chain)
        if chain.compute.threads:
            self._tracker.tags({"threads": chain.compute.threads})

    def waits(self, reason: str) -> None:
        """Stop the trial's clock, and report the reason for which the trial waits."""
        self._timeout.pause()
        self._waiting = True
        self._report({"state": RUNNING, "stage": "waiting", "step": 0, "steps": self._steps, "for": reason})

    def resumes(self) -> None:
        """Start the trial's clock again, and report the end of a wait if there was one."""
        self._timeout.resume()
        if self._waiting:
            self._waiting = False
            self._report({"state": RUNNING, "stage": "resumed", "step": 0, "steps": self._steps})

    def check_in(self, waiting: bool) -> None:
        """Handle the regular call of a training by several workers, which may be waiting for room on the cluster."""
        if waiting:
            self._waits_for_cluster()
        else:
            self.resumes()
            self._timeout.check()

    def trained(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report the metrics of a training step."""
        self._log_training(step, metrics)
        if "loss" in metrics:  # a validation may report without it
            self._gauges.training(step, metrics["loss"], metrics["images_per_s"])
        if "micro_batch" in metrics:
            self._tracker.tags({"micro_batch": int(metrics["micro_batch"])})
        self._report({"state": RUNNING, "stage": "train", "step": step, "steps": self._steps, **metrics})

    def replayed(self, step: int, past: Mapping[str, float]) -> None:
        """Log the metrics of a training step that was made before this trial came."""
        self._log_training(step, past)

    def sampled(self, stage: str, done: float) -> None:
        """Report the share of a sampling that is done, 0..1."""
        step = int(stage.partition("_")[2] or self._steps)
        self._report({"state": RUNNING, "stage": stage, "step": step, "steps": self._steps, "share": done})

    def reached_rung(self, chain: Chain, step: int, judgement: Judgement) -> None:
        """Report the values at a rung, and everything that the trial's record needs if the trial ends there."""
        values, reuse = self._rung_values(judgement, chain.nfe), self._reuse(chain, chain.records)
        self._log_training(step, {f"rung_{metric}": value for metric, value in values.items() if metric != "nfe"})
        rung = Rung(
            step=step,
            steps=self._steps,
            metric=self._job.trial.rungs.metric,
            values=values,
            stages=_stored_stages(chain.records),
            effort=self._effort(reuse),
            training_seconds=sum(r.earlier + r.seconds for r in chain.records if r.stage.startswith("train")),
        )
        at = {"state": RUNNING, "stage": RUNG, "step": step, "steps": self._steps}
        self._timeout.pause()  # a trial that ends here stays in this report until its process takes another trial
        self._report({**at, "rung": rung.to_json()})
        self._timeout.resume()

    def completed(self, chain: Chain, outcome: Outcome) -> TrialOutcome:
        """Log the trial's values and artifacts on its run, and return the outcome for the driver."""
        reuse = self._reuse(chain, outcome.stages)
        effort = self._effort(reuse)
        self._log_outcome(chain, outcome, reuse, effort)
        address = chain.store.files.address
        return TrialOutcome(
            metrics=outcome.metrics,
            protocol=plain(outcome.protocol),
            stages=_stored_stages(outcome.stages),
            images={name: address(path) for name, path in outcome.images.items()},
            measured={name: address(path) for name, path in outcome.measured.items()},
            checkpoint=address(outcome.checkpoint),
            rungs={step: self._rung_values(judged, outcome.nfe) for step, judged in outcome.rungs.items()},
            draws={
                seed: {name: value.value for name, value in judged.values.items()}
                for seed, judged in outcome.draws.items()
            },
            effort=effort,
            computed=plain(chain.compute),
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, Any]:
        """Return the machine and the software, and how many GPUs or CPU processes the trial occupied."""
        job = self._job
        return {**keep_environment(Path(job.environments)), "devices": (job.gpus or 1) * job.workers}

    def _log_training(self, step: int, metrics: Mapping[str, float]) -> None:
        self._tracker.metrics({f"train/{name}": value for name, value in metrics.items()}, step)

    def _log_outcome(self, chain: Chain, outcome: Outcome, reuse: Reuse, effort: Effort) -> None:
        """Log the values of the finished trial.

        They are logged at step 0, because MLflow draws bars of all runs only for metrics without steps. At any other
        step, each run would be a dot in a line chart.
        """
        from coldtune.studies.worker.artifacts import log_artifacts

        self._tracker.metrics(trial_metrics(outcome.metrics, self._job.objectives))
        seconds = {"total": effort.seconds or 0.0, **_seconds_of_work(outcome.stages), "saved": reuse.saved}
        self._tracker.metrics({f"seconds/{name}": value for name, value in seconds.items()})
        # The driver puts its verdict before this text.
        self._tracker.tags({NOTE: f"{reuse.describe()}\n\nJudged by {outcome.protocol.describe()}."})
        log_artifacts(self._tracker, self._job.trial, chain, outcome, self._environment())

    def _rung_values(self, judgement: Judgement, nfe: int) -> dict[str, float]:
        return rung_values(judgement, self._job.trial.rungs.metric, nfe)

    def _reuse(self, chain: Chain, records: Iterable[StageRecord]) -> Reuse:
        return Reuse.of(records, me=chain.store.by if self._job.again else None)

    def _effort(self, reuse: Reuse) -> Effort:
        """Return the trial's work up to now."""
        seconds = time.time() - self._started + reuse.before
        return Effort(found=reuse.found, trained=reuse.own.get("train"), saved=reuse.saved, seconds=seconds)


def throttled(seconds: float, call: Callable[..., object]) -> Callable[..., None]:
    """Return a function that calls `call` at most once in so many seconds, and otherwise does nothing."""
    last = 0.0

    def limited(*args: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            call(*args)

    return limited


def _stored_stages(records: Iterable[StageRecord]) -> tuple[StoredStage, ...]:
    return tuple(StoredStage(record.stage, record.key, record.found, record.seconds) for record in records)


def _seconds_of_work(records: Iterable[StageRecord]) -> dict[str, float]:
    """Return the seconds that a trial worked on each of `train`, `sample` and `measure`. Found work counts as 0."""
    seconds: dict[str, float] = {}
    for record in records:
        stage = record.stage.partition("_")[0]
        seconds[stage] = seconds.get(stage, 0.0) + record.seconds * (not record.found)
    return seconds
