"""What a study compares, which its space says before the first training."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from coldtune.config import Config

Family = Literal["base", "best"]


class Comparisons(Config):
    """The comparisons of settings on which a study gives verdicts (`comparisons:`).

    All keys are a part of the study, so nobody can choose them after having seen the results.

    Attributes:
        family: `base` compares each setting with the base, or with the first variant. `best` compares each setting
            with the best setting. The comparisons of a family share an error of 5 %.
        pair: `seed` pairs trainings with equal seeds. That pays if they are correlated, and costs power if not.
            `network` pairs only settings that use the same trained network.
        equal_within: A difference of the first objective that does not matter. Then two settings can be practically
            equal. None means that every difference matters.
    """

    family: tuple[Family, ...] = ("base", "best")
    pair: Literal["network", "seed"] = "network"
    equal_within: float | None = Field(default=None, gt=0)

    @field_validator("family")
    @classmethod
    def _each_once(cls, value: tuple[Family, ...]) -> tuple[Family, ...]:
        if len(set(value)) < len(value) or not value:
            raise ValueError("must name base, best or both, each once")
        return value


def check_equal_within(value: float) -> None:
    """Raise ValueError if `--equal-within` is not a number greater than 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"--equal-within {value:g}: must be a number greater than 0")
