"""The objective of a search: a metric, and the direction in which it improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator, model_validator

from coldtune.config import Config
from coldtune.metrics import DISTANCES, IMAGE_SCORES, higher_is_better

NFE = "nfe"


class Objective(Config):
    """A quantity that the search improves.

    Attributes:
        metric: A metric of the images that the trial's own sampler made, under the trial's protocol. "nfe" is the
            sampler's cost instead: its network evaluations for each image.
        direction: The direction in which the metric is better. It follows from the metric, and the other direction is
            an error.
    """

    metric: str = "fid"
    direction: Literal["minimize", "maximize"] = "minimize"

    @model_validator(mode="before")
    @classmethod
    def _follow_metric(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "direction" in value or not isinstance(value.get("metric"), str):
            return value
        return {**value, "direction": "maximize" if higher_is_better(value["metric"]) else "minimize"}

    @field_validator("metric")
    @classmethod
    def _is_registered(cls, value: str) -> str:
        allowed = (*DISTANCES, *IMAGE_SCORES, NFE)
        if value not in allowed:
            raise ValueError(f"unknown metric; allowed: {', '.join(allowed)}")
        return value

    @model_validator(mode="after")
    def _check_direction(self) -> Objective:
        better = "maximize" if higher_is_better(self.metric) else "minimize"
        if self.direction != better:
            raise ValueError(
                f"direction = {self.direction!r}: {self.metric} is better the other way; allowed: {better}"
            )
        return self
