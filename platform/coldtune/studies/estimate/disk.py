"""The disk space of the checkpoints that the trainings of a study keep."""

from __future__ import annotations

import torch
from rich.filesize import decimal

from coldtune.diffusion import build_restorer
from coldtune.stages.trial import TrialConfig

_BYTES = 4  # of a weight, in float32
_COPIES = 4  # of the weights in a checkpoint: the weights, their average, and Adam's two moments


def describe_snapshots(trial: TrialConfig, trainings: int, image_shape: tuple[int, int, int]) -> str:
    """Return a line about the space of the snapshots, or "" if a training keeps its last step only.

    Args:
        trial: A trial of the study, such as its base.
        trainings: The number of different trainings.
        image_shape: (C, H, W).
    """
    training = trial.training
    count = len({*training.snapshots(training.steps), training.steps})
    if count == 1:
        return ""
    with torch.device("meta"):
        network = build_restorer(trial.restorer, image_shape, steps=int(trial.degradation["steps"]))
    weights = sum(parameter.numel() for parameter in network.parameters()) * _BYTES
    each = weights * (_COPIES + len(training.ema_stds))
    return (
        f"each training keeps {count} checkpoints of {decimal(each)} (training.snapshot_every = "
        f"{training.snapshot_every}), {decimal(each * count * trainings)} in all"
    )
