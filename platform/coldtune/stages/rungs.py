"""Rungs: a trial judged on the way, at fixed steps of its training, on few images and the same ones for every trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from coldtune.config import Config
from coldtune.metrics.protocol import LEAST_IMAGES

if TYPE_CHECKING:
    from coldtune.metrics import Judgement
    from coldtune.stages.trial import TrialConfig

DISTANCES_TO_CLEAN = frozenset({"fid", "fid_infinity", "kid", "mind"})
_AS_AT_THE_END = ("ssim", "rmse", "psnr", "precision", "recall")


class RungConfig(Config):
    """When and how a trial is judged before its training has ended (`rungs:`).

    steps: of the training, ascending, all below training.steps; () judges at the end only. A rung costs one sampling of
      `num_images` images with the trial's own sampler; its checkpoint stays in the store.
    metric: `kid`, whose expectation is the same at any N and which ranked trained restorers best at few images, or
      `mind`, which sees lost spread that KID hardly weighs, but whose bias depends on that spread: give it N >= 4 d.
      Not FID: below 4 d its bias grows with a model's spread and can exceed the difference of close models
      (benchmarks/2026-11-23-small-n-ranking.md).
    num_images: N, the same images and draws for every trial; at most as many as the trial itself is judged on.
    """

    steps: tuple[int, ...] = ()
    metric: Literal["kid", "mind"] = "kid"
    num_images: int = Field(1000, ge=LEAST_IMAGES)

    @field_validator("steps")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or any(step < 1 for step in value):
            raise ValueError("must be ascending, each step once, from 1")
        return value


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
