"""What a search improves."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from coldtune.config import Config
from coldtune.metrics import higher_is_better


class Objective(Config):
    """What the search improves: a metric of the trial's own sampler under the protocol, or `nfe`, what it costs."""

    metric: Literal["fid", "fid_infinity", "kid", "mind", "precision", "recall", "ssim", "rmse", "psnr", "nfe"] = "fid"
    direction: Literal["minimize", "maximize"] = "minimize"

    @model_validator(mode="after")
    def _towards_better(self) -> Objective:
        better = "maximize" if higher_is_better(self.metric) else "minimize"
        if self.direction != better:
            raise ValueError(
                f"direction = {self.direction!r}: {self.metric} is better the other way; allowed: {better}"
            )
        return self
