"""The objective of a search."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from coldtune.config import Config
from coldtune.metrics import higher_is_better


class Objective(Config):
    """A quantity that the search improves.

    Attributes:
        metric: A metric of the images that the trial's own sampler produces, under the protocol. Or `nfe`, the number
            of network evaluations that the sampler needs for an image.
        direction: `minimize` or `maximize`. Only the direction in which the metric gets better is allowed.
    """

    metric: Literal["fid", "fid_infinity", "kid", "mind", "precision", "recall", "ssim", "rmse", "psnr", "nfe"] = "fid"
    direction: Literal["minimize", "maximize"] = "minimize"

    @model_validator(mode="after")
    def _check_direction(self) -> Objective:
        better = "maximize" if higher_is_better(self.metric) else "minimize"
        if self.direction != better:
            raise ValueError(
                f"direction = {self.direction!r}: {self.metric} is better the other way; allowed: {better}"
            )
        return self
