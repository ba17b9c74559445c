"""Rungs: fixed steps of the training at which a trial is judged early, on few images, the same for all trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES
from coldtune.stages.trial import RungConfig, TrialConfig

if TYPE_CHECKING:
    from coldtune.metrics import Judgement

# The smaller such a distance, the closer the images are to clean ones. At a rung, the rung metric stands for it.
_DISTANCES_TO_CLEAN = frozenset(name for name, distance in DISTANCES.items() if not distance.higher_is_better)
# Image scores and shares of images mean the same at few images, so at a rung they stand for themselves.
_SAME_AT_FEW_IMAGES = (*IMAGE_SCORES, *(name for name in DISTANCES if name not in _DISTANCES_TO_CLEAN))


def trials_at_rungs(config: TrialConfig, available: int) -> Iterator[TrialConfig]:
    """Yield the trial cut short at each rung: trained up to that step and judged on the rung's images.

    The first steps of a training equal those of a shorter training. So a rung is a shorter trial, and both share their
    checkpoints. A rung is judged with the training's own average at that step, without `sampler.at_step`, `ema_std` and
    guidance, because the steps that these need may come later.

    Args:
        available: How many images the trial itself is judged on. A rung cannot use more.
    """
    count = min(config.rungs.num_images, available)
    for step in config.rungs.steps:
        yield config.model_copy(
            update={
                "training": config.training.model_copy(update={"steps": step}),
                "protocol": config.protocol.model_copy(update={"num_images": count, "draws": 1}),
                "sampler": config.sampler.without_weights(),
                "rungs": RungConfig(),
            }
        )


def rung_values(judgement: Judgement, metric: str, nfe: int) -> dict[str, float]:
    """Return the values of a trial at a rung by name.

    These are the rung metric, all metrics that mean the same at few images as at the end, and `nfe`.
    """
    known: Mapping[str, float] = {name: value.value for name, value in judgement.values.items()}
    named = {name: known[name] for name in (metric, *_SAME_AT_FEW_IMAGES) if name in known}
    return {**named, "nfe": float(nfe)}


def metric_at_rung(objective: str, metric: str) -> str:
    """Return the name of the metric that represents an objective of the study at a rung.

    A distance to clean images, such as FID, is represented by the rung metric. Any other objective represents itself.
    """
    return metric if objective in _DISTANCES_TO_CLEAN else objective
