"""What a trial tells while it runs: its driver by reports, MLflow by its run, Prometheus by gauges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from coldtune.config import plain
from coldtune.stages.reuse import Reuse, StageRecord
from coldtune.stages.rungs import rung_values
from coldtune.stages.trial import VARIANT, flat
from coldtune.studies.storage.outcome import Effort, Rung, StoredStage, TrialOutcome
from coldtune.studies.worker.job import RUNG, RUNNING, TrialJob
from coldtune.studies.worker.timeout import TrialTimeout
from coldtune.tracking import NOTE, Tracker
from coldtune.tracking.prometheus import TrialMetrics

if TYPE_CHECKING:
    from coldtune.metrics import Judgement
    from coldtune.stages.chain import Chain, Outcome


class Reporting:
    """One trial's: its methods are what a `Chain` and its training call as they go on.

    report: tells the driver; what it raises ends the trial. deadline: stands still while the trial waits, and where it
    may have ended. started: when the trial began or was taken up again, of `time.time`.
    """

    def __init__(
        self,
        job: TrialJob,
        report: Callable[[dict[str, Any]], object],
        deadline: TrialTimeout,
        tracker: Tracker,
        started: float,
    ) -> None:
        self._job, self._report, self._deadline, self._tracker = job, report, deadline, tracker
        self._started, self._steps = started, job.trial.training.steps
        self._gauges = TrialMetrics(job.study, job.number)
        self._waits_for_room = every(5.0, partial(self.waits, "room on the cluster"))

    def begins(self, chain: Chain) -> None:
        """Note what the trial is."""
        job = self._job
        extra: dict[str, object] = {VARIANT: job.tags[VARIANT]} if VARIANT in job.tags else {}
        extra |= {} if job.leftover is None else {"leftover": float(f"{job.leftover:.4g}")}
        self._tracker.params({**flat(job.trial), "N": chain.protocol.num_images, **extra})

    def waits(self, what: str) -> None:
        """Stop the trial's clock, and say what it waits for."""
        self._deadline.pause()
        self._report({"state": RUNNING, "stage": "waiting", "step": 0, "steps": self._steps, "for": what})

    def look(self, waiting: bool) -> None:
        """What the training by several workers calls now and then; waiting: for room on the cluster."""
        if waiting:
            self._waits_for_room()
        else:
            self._deadline.resume()
            self._deadline.check()

    def trained(self, step: int, metrics: Mapping[str, float]) -> None:
        """A report of the training."""
        self._tracker.metrics(metrics, step)
        if "loss" in metrics:  # a validation may be due without it
            self._gauges.training(step, metrics["loss"], metrics["images_per_s"])
        if "micro_batch" in metrics:
            self._tracker.tags({"micro_batch": int(metrics["micro_batch"])})
        self._report({"state": RUNNING, "stage": "train", "step": step, "steps": self._steps, **metrics})

    def replayed(self, step: int, past: Mapping[str, float]) -> None:
        """A report of a training that was made before."""
        self._tracker.metrics(past, step)

    def sampled(self, stage: str, done: float) -> None:
        """How much of a sampling is done, 0..1."""
        step = int(stage.partition("_")[2] or self._steps)
        self._report({"state": RUNNING, "stage": stage, "step": step, "steps": self._steps, "share": done})

    def on_rung(self, chain: Chain, step: int, judgement: Judgement) -> None:
        """What the trial is worth at a rung, and all that its records need should it end there."""
        values, parts = self._worth(judgement, chain.nfe), self._parts(chain, chain.records)
        self._tracker.metrics({f"rung_{metric}": value for metric, value in values.items() if metric != "nfe"}, step)
        rung = Rung(
            step=step,
            steps=self._steps,
            metric=self._job.trial.rungs.metric,
            values=values,
            stages=_stages(chain.records),
            effort=self._effort(parts),
            training_seconds=sum(r.earlier + r.seconds for r in chain.records if r.stage.startswith("train")),
        )
        at = {"state": RUNNING, "stage": RUNG, "step": step, "steps": self._steps}
        self._deadline.pause()  # a trial that ends here stays in this report until its process takes another
        self._report({**at, "rung": rung.to_json()})
        self._deadline.resume()

    def completed(self, chain: Chain, outcome: Outcome) -> TrialOutcome:
        """Log the trial's values and artifacts on its run, and return what its study stores."""
        parts = self._parts(chain, outcome.stages)
        effort = self._effort(parts)
        self._leave(chain, outcome, parts, effort)
        address = chain.store.files.address
        return TrialOutcome(
            metrics=outcome.metrics,
            protocol=plain(outcome.protocol),
            stages=_stages(outcome.stages),
            images={name: address(path) for name, path in outcome.images.items()},
            measured={name: address(path) for name, path in outcome.measured.items()},
            checkpoint=address(outcome.checkpoint),
            rungs={step: self._worth(judged, outcome.nfe) for step, judged in outcome.rungs.items()},
            effort=effort,
        )

    def _leave(self, chain: Chain, outcome: Outcome, parts: Reuse, effort: Effort) -> None:
        from coldtune.studies.worker.artifacts import leave

        by_stage = {f"seconds_{record.stage}": record.seconds for record in outcome.stages if not record.found}
        took = {**by_stage, "seconds": effort.seconds or 0.0, "seconds_saved": parts.saved}
        self._tracker.metrics({**outcome.metrics, **took}, self._steps)
        self._tracker.tags({**_protocol_and_stages(outcome), NOTE: parts.describe()})
        leave(self._tracker, self._job.trial, chain, outcome)

    def _worth(self, judgement: Judgement, nfe: int) -> dict[str, float]:
        return rung_values(judgement, self._job.trial.rungs.metric, nfe)

    def _parts(self, chain: Chain, records: Iterable[StageRecord]) -> Reuse:
        return Reuse.of(records, me=chain.store.by if self._job.again else None)

    def _effort(self, parts: Reuse) -> Effort:
        """Return the trial's work up to now."""
        seconds = time.time() - self._started + parts.before
        return Effort(found=parts.found, trained=parts.own.get("train"), saved=parts.saved, seconds=seconds)


def _stages(records: Iterable[StageRecord]) -> tuple[StoredStage, ...]:
    return tuple(StoredStage(record.stage, record.key, record.found, record.seconds) for record in records)


def _protocol_and_stages(outcome: Outcome) -> dict[str, object]:
    """The tags that say under which protocol a trial's values hold, and which entries of the store it used."""
    return {
        "protocol": outcome.protocol.key,
        "protocol_text": outcome.protocol.describe(),
        **{f"stage_{record.stage}": record.key for record in outcome.stages},
        **{f"found_{record.stage}": record.found for record in outcome.stages},
    }


def every(seconds: float, call: Callable[..., object]) -> Callable[..., None]:
    """`call`, at most once in so many seconds."""
    last = 0.0

    def limited(*args: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            call(*args)

    return limited
