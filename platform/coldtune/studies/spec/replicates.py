"""The number of trainings of each setting, as a space file writes it: `replicates: 5`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from coldtune.config import Config, parse, shorten

MOST_REPLICATES = 1000
"""The largest number of trainings of a setting."""


class Racing(Config):
    """A number of trainings that the study chooses for each setting, between two ends.

    Attributes:
        first: The trainings that every setting gets.
        most: The trainings that a setting gets at most.
    """

    first: int = Field(ge=2, le=MOST_REPLICATES)
    most: int = Field(ge=2, le=MOST_REPLICATES)

    @model_validator(mode="after")
    def _check_ends(self) -> Racing:
        if self.first > self.most:
            raise ValueError(f"first = {self.first} must not be above most = {self.most}")
        return self


def read_replicates(written: Any) -> int:
    """Return the number of trainings of each setting that a space file writes under `replicates`.

    Raises:
        ValueError: If it is not a whole number from 1 on, or is a mapping. Only later versions of coldtune can race.
    """
    if isinstance(written, Mapping):
        racing = parse(Racing, written, "replicates")
        raise ValueError(
            f"replicates = {{first: {racing.first}, most: {racing.most}}}: this version of coldtune cannot race "
            f"settings. Write a number, for example `replicates: {racing.most}`."
        )
    if isinstance(written, bool) or not isinstance(written, int) or not 1 <= written <= MOST_REPLICATES:
        raise ValueError(
            f"replicates = {shorten(written)}: must be a whole number from 1 to {MOST_REPLICATES:,}, the trainings of "
            "each setting"
        )
    return written
