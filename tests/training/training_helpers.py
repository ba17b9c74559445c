"""What the training tests share beside fixtures (a conftest cannot be imported by name: every folder has one)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coldtune.training import TrainingTask

BLUR = {
    "kind": "blur",
    "steps": 8,
    "kernel_size": 5,
    "padding": "circular",
    "sigma": {"schedule": "exponential", "start": 0.5, "rate": 0.05},
}

MakeTask = Callable[..., TrainingTask]


class Reports:
    """What a training reported; raises where it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.rows: dict[int, dict[str, float]] = {}
        self.stop_at = stop_at

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows[step] = dict(metrics)
        if step == self.stop_at:
            raise InterruptedTrainingError(step)


class InterruptedTrainingError(Exception):
    pass
