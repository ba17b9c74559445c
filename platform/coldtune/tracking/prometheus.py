"""The live numbers of a running study, as gauges at Ray's Prometheus endpoint with tags for study and trial.

Ray exports each gauge as `ray_NAME` on the metrics port of the node that set it. It drops a value that is not set again
within about 20 s, so a trial that has ended leaves no stale series. `dashboards/` draws the gauges. For history and
comparison, use MLflow.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coldtune.labels import as_label

REFRESH = 5.0
"""Seconds after which a study's gauges are set again, well within the time after which Ray drops them."""

STATES = ("running", "finished", "pruned", "failed", "interrupted")


@dataclass(frozen=True)
class Metric:
    """The name, description with unit, and tags of a gauge."""

    name: str
    description: str
    tags: tuple[str, ...]

    @property
    def exported(self) -> str:
        """The gauge's name in Prometheus."""
        return f"ray_{self.name}"

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        """Set the gauge. Without a connection to Ray this has no effect.

        A gauge that cannot be set causes a warning at the first time and no exception, because no study needs it.

        Args:
            tags: A value for each of `self.tags`.
        """
        assert set(tags) == set(self.tags), f"{self.name}: tags {sorted(tags)} are not {sorted(self.tags)}"
        try:
            _gauge(self).set(float(value), tags={tag: as_label(text) for tag, text in tags.items()})
        except Exception as error:
            _warn(self, f"{type(error).__name__}: {error}")


TRIALS = Metric("coldtune_trials", "Trials of a study in each state", ("study", "state"))
BEST_FID = Metric("coldtune_best_fid", "Lowest FID of a study's trials so far", ("study",))
TRAINING_LOSS = Metric("coldtune_training_loss", "Training loss of a trial at its last report", ("study", "trial"))
IMAGES_PER_SECOND = Metric(
    "coldtune_images_per_second", "Images that a trial trains on in a second", ("study", "trial")
)
TRAINING_STEP = Metric("coldtune_training_step", "Optimiser steps that a trial has done", ("study", "trial"))

METRICS = (TRIALS, BEST_FID, TRAINING_LOSS, IMAGES_PER_SECOND, TRAINING_STEP)


class StudyMetrics:
    """The gauges that the driver sets for a study. A background thread keeps them visible until `close`."""

    def __init__(self, study: str) -> None:
        self._study = study
        self._values: dict[tuple[Metric, str], float] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._refresh, name="coldtune-metrics", daemon=True).start()

    def trials(self, counts: Mapping[str, int]) -> None:
        """Set the number of trials in each of `STATES`. A state that is not in `counts` has 0."""
        for state in STATES:
            self._set(TRIALS, counts.get(state, 0), state)

    def best_fid(self, value: float) -> None:
        """Set the study's lowest FID."""
        self._set(BEST_FID, value)

    def close(self) -> None:
        """Stop setting the gauges, so that Ray drops them."""
        self._closed.set()

    def _set(self, metric: Metric, value: float, state: str = "") -> None:
        self._values[metric, state] = value
        metric.set(value, {"study": self._study} | ({"state": state} if state else {}))

    def _refresh(self) -> None:
        while not self._closed.wait(REFRESH):
            for (metric, state), value in list(self._values.items()):
                self._set(metric, value, state)


class TrialMetrics:
    """The gauges that a training process sets for its trial."""

    def __init__(self, study: str, trial: int | str) -> None:
        self._tags = {"study": study, "trial": str(trial)}

    def training(self, step: int, loss: float, images_per_second: float) -> None:
        """Set the number of steps that are done, the loss, and the speed in images per second."""
        TRAINING_STEP.set(step, self._tags)
        TRAINING_LOSS.set(loss, self._tags)
        IMAGES_PER_SECOND.set(images_per_second, self._tags)


@functools.cache
def _gauge(metric: Metric) -> Any:
    """Return this process's gauge for `metric`. Ray allows a name only once, and a process runs several trials."""
    from ray.util.metrics import Gauge

    return Gauge(metric.name, metric.description, metric.tags)


@functools.cache
def _warn(metric: Metric, why: str) -> None:
    warnings.warn(f"the gauge {metric.name} cannot be set ({why}). The study goes on without it.", stacklevel=3)
