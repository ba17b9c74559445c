"""The rates of this machine, from a few timed steps of training and sampling."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from coldtune.data import Dataset, to_float
from coldtune.diffusion import build_degradation, build_restorer, nfe, sample
from coldtune.stages.chain import BASELINES
from coldtune.stages.trial import TrialConfig
from coldtune.training.loop import TrainingTask, train

_STEPS = 6  # of training, after as many to warm up
_IMAGES = 64  # of one evaluation of the network
_REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """The rates of the base's restorer on this machine, with the threads of one trial.

    Attributes:
        images_per_s: Images per second in training.
        evaluations_per_s: Evaluations of the network per second in sampling, counted in images.
    """

    images_per_s: float
    evaluations_per_s: float

    def seconds(self, trial: TrialConfig, num_images: int) -> float:
        """Return the seconds of a trial: its training, and sampling with its sampler and the baselines."""
        steps = int(trial.degradation["steps"])
        evaluations = sum(nfe(sampler, steps) for sampler in (trial.sampler, *BASELINES.values()))
        return self.training_s(trial) + num_images * evaluations / self.evaluations_per_s

    def training_s(self, trial: TrialConfig) -> float:
        """Return the seconds of a trial's training from its first step."""
        training = trial.training
        return training.steps * training.batch_size * training.accumulate / self.images_per_s


class _NoCheckpoints:
    """Checkpoints that keep nothing."""

    def latest(self, at_most: int) -> None:
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        pass


def time_base(trial: TrialConfig, dataset: Dataset, source: Dataset | None = None, device: str = "cpu") -> Timing:
    """Time a few steps of training and a few evaluations of the trial's network, whose weights are random."""
    once = trial.training.model_copy(
        update={
            "steps": _STEPS,
            "validate_every": 0,
            "checkpoint_every": 0,
            "snapshot_every": 0,
            "report_every": _STEPS,
        }
    )
    task = TrainingTask(
        data=trial.data, dataset_path=str(dataset.path), degradation=trial.degradation, restorer=trial.restorer,
        training=once, source_path=str(source.path) if source else None,
    )  # fmt: skip
    train(task, _NoCheckpoints(), lambda *_: None, device=device)
    # The fastest of a few, because other work on the machine can only make a step slower.
    runs = [train(task, _NoCheckpoints(), lambda *_: None, device=device) for _ in range(_REPEATS)]
    return Timing(max(run.images_per_s for run in runs), _evaluations_per_s(trial, dataset, device))


def _evaluations_per_s(trial: TrialConfig, dataset: Dataset, device: str) -> float:
    d = build_degradation(trial.degradation, dataset.image_shape)
    restorer = build_restorer(trial.restorer, dataset.image_shape, steps=d.steps).to(device).eval()
    x = to_float(dataset.split("train").images[:_IMAGES].to(device))
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        sample(restorer, d, x, sampler={"algorithm": "direct"})
        torch.cuda.synchronize() if device == "cuda" else None
        times.append(time.perf_counter() - started)
    return len(x) / min(times)
