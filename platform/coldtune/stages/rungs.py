"""Rungs: a trial judged on the way, at fixed steps of its training, on few images and the same ones for every trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from coldtune.stages.trial import RungConfig, TrialConfig

if TYPE_CHECKING:
    from coldtune.metrics import Judgement

DISTANCES_TO_CLEAN = frozenset({"fid", "fid_infinity", "kid", "mind"})
_AS_AT_THE_END = ("ssim", "rmse", "psnr", "precision", "recall")


def rungs(config: TrialConfig, available: int) -> Iterator[TrialConfig]:
    """The trial cut short at each rung: its own training up to there, judged on the rung's images.

    A training's first steps are those of the shorter training, so a rung is nothing but a shorter trial, and the
    trainings share their checkpoints. available: how many images the trial itself is judged on.
    """
    count = min(config.rungs.num_images, available)
    for step in config.rungs.steps:
        yield config.model_copy(
            update={
                "training": config.training.model_copy(update={"steps": step}),
                "protocol": config.protocol.model_copy(update={"num_images": count}),
                "rungs": RungConfig(),
            }
        )


def worth(judgement: Judgement, metric: str, nfe: int) -> dict[str, float]:
    """What a trial is worth at a rung: the rung metric, those that mean the same at few images, and `nfe`, by name."""
    known: Mapping[str, float] = {name: value.value for name, value in judgement.values.items()}
    named = {name: known[name] for name in (metric, *_AS_AT_THE_END) if name in known}
    return {**named, "nfe": float(nfe)}


def stand_in(objective: str, metric: str) -> str:
    """The value at a rung that stands for an objective: itself, or for a distance to clean images the rung metric."""
    return metric if objective in DISTANCES_TO_CLEAN else objective
