"""The numbers that a running study shows live: gauges at Ray's Prometheus endpoint, tagged with study and trial.

Ray exports each as `ray_NAME` on the metrics port of the node where it was set, and forgets a value that is not set
again within about 20 s (so a trial that trains no more leaves no stale series). `dashboards/` draws them; history and
comparison belong to MLflow.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REFRESH = 5.0
"""Seconds between two settings of a study's gauges: safely within what Ray remembers."""

STATES = ("running", "finished", "pruned", "failed", "interrupted")


@dataclass(frozen=True)
class Metric:
    """A gauge's name, what it says in which unit, and its tags."""

    name: str
    description: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> str:
        """The name that Prometheus sees."""
        return f"ray_{self.name}"

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        """Set the gauge. `tags` gives a value for each of `self.tags`. Without a connection to Ray it has no effect."""
        assert set(tags) == set(self.tags), f"{self.name}: tags {sorted(tags)} are not {sorted(self.tags)}"
        _gauge(self).set(float(value), tags=dict(tags))


TRIALS = Metric("coldtune_trials", "Trials of a study in each state", ("study", "state"))
BEST_FID = Metric("coldtune_best_fid", "Lowest FID of a study's trials so far", ("study",))
TRAINING_LOSS = Metric("coldtune_training_loss", "Training loss of a trial at its last report", ("study", "trial"))
IMAGES_PER_SECOND = Metric(
    "coldtune_images_per_second", "Images that a trial trains on in a second", ("study", "trial")
)
TRAINING_STEP = Metric("coldtune_training_step", "Optimiser steps that a trial has done", ("study", "trial"))

METRICS = (TRIALS, BEST_FID, TRAINING_LOSS, IMAGES_PER_SECOND, TRAINING_STEP)


class StudyMetrics:
    """What the driver shows of a study, kept visible by a background thread until `close`."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._values: dict[tuple[Metric, str], float] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._refresh, name="coldtune-metrics", daemon=True).start()

    def trials(self, counts: Mapping[str, int]) -> None:
        """Set how many trials are in each of `STATES`; a state that `counts` lacks has none."""
        for state in STATES:
            self._set(TRIALS, counts.get(state, 0), state)

    def best_fid(self, value: float) -> None:
        """Set the study's lowest FID."""
        self._set(BEST_FID, value)

    def close(self) -> None:
        """Let the gauges fade."""
        self._closed.set()

    def _set(self, metric: Metric, value: float, state: str = "") -> None:
        self._values[metric, state] = value
        metric.set(value, {"study": self._study} | ({"state": state} if state else {}))

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESH):
            for (metric, state), value in list(self._values.items()):
                self._set(metric, value, state)


class TrialMetrics:
    """What the process that trains shows of its trial."""

    def __init__(self, study: str, trial: int) -> None:
        self._tags = {"study": study, "trial": str(trial)}

    def training(self, step: int, loss: float, images_per_second: float) -> None:
        """Set the state of the training: steps done, loss, and speed in images a second."""
        TRAINING_STEP.set(step, self._tags)
        TRAINING_LOSS.set(loss, self._tags)
        IMAGES_PER_SECOND.set(images_per_second, self._tags)


@functools.cache
def _gauge(metric: Metric) -> Any:
    """One gauge a process: Ray registers names once, and worker processes outlive their trials."""
    from ray.util.metrics import Gauge

    return Gauge(metric.name, metric.description, metric.tags)
