"""What a trial costs on this machine, from a few timed steps."""

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

PROBE_STEPS = 6  # of training, after as many to warm up
PROBE_IMAGES = 64  # of one evaluation of the network
_PROBES = 3


@dataclass(frozen=True)
class Timing:
    """What was timed on this machine with the base's restorer, on one trial's threads.

    images_per_s: of training; evaluations_per_s: of the network while sampling, in images.
    """

    images_per_s: float
    evaluations_per_s: float

    def seconds(self, trial: TrialConfig, num_images: int) -> float:
        """A trial's training, and the sampling of its own sampler and the baselines; nothing found, nothing judged."""
        steps = int(trial.degradation["steps"])
        evaluations = sum(nfe(sampler, steps) for sampler in (trial.sampler, *BASELINES.values()))
        return self.training_s(trial) + num_images * evaluations / self.evaluations_per_s

    def training_s(self, trial: TrialConfig) -> float:
        """A trial's training from its start."""
        training = trial.training
        return training.steps * training.batch_size * training.accumulate / self.images_per_s


class _Forget:
    """Checkpoints of a training that nobody wants to keep."""

    def latest(self, at_most: int) -> None:
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        pass


def probe(trial: TrialConfig, dataset: Dataset, source: Dataset | None = None, device: str = "cpu") -> Timing:
    """Time a few steps of training and a few evaluations of `trial`'s network (random weights: the same cost)."""
    once = trial.training.model_copy(
        update={"steps": PROBE_STEPS, "validate_every": 0, "checkpoint_every": 0, "report_every": PROBE_STEPS}
    )
    task = TrainingTask(
        data=trial.data, dataset_path=str(dataset.path), degradation=trial.degradation, restorer=trial.restorer,
        training=once, source_path=str(source.path) if source else None,
    )  # fmt: skip
    train(task, _Forget(), lambda *_: None, device=device)
    # The fastest of a few: whatever else the machine does can only make it slower.
    images_per_s = max(train(task, _Forget(), lambda *_: None, device=device).images_per_s for _ in range(_PROBES))
    return Timing(images_per_s, _evaluations_per_s(trial, dataset, device))


def _evaluations_per_s(trial: TrialConfig, dataset: Dataset, device: str) -> float:
    d = build_degradation(trial.degradation, dataset.image_shape)
    restorer = build_restorer(trial.restorer, dataset.image_shape, steps=d.steps).to(device).eval()
    x = to_float(dataset.split("train").images[:PROBE_IMAGES].to(device))
    times = []
    for _ in range(_PROBES):
        started = time.perf_counter()
        sample(restorer, d, x, sampler={"algorithm": "direct"})
        torch.cuda.synchronize() if device == "cuda" else None
        times.append(time.perf_counter() - started)
    return len(x) / min(times)
