"""The number of trainings of each setting, as a space file or a flag writes it: `replicates: 5`, or a race."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from coldtune.config import Config, parse, shorten
from coldtune.verdicts.levels import LEAST

MOST_REPLICATES = 1000
"""The largest number of trainings of a setting."""

FIRST = 2
"""The fewest trainings with which a race begins."""


class Racing(Config):
    """A race: the study chooses the number of trainings of each setting, between two ends.

    It is a part of the study and never changes, because the error of all its looks is planned beforehand.

    Attributes:
        first: The trainings that every setting gets.
        most: The trainings that a setting gets at most. At least 3, because fewer give no verdict on settings.
    """

    first: int = Field(ge=FIRST, le=MOST_REPLICATES)
    most: int = Field(ge=LEAST, le=MOST_REPLICATES)

    @model_validator(mode="after")
    def _check_ends(self) -> Racing:
        if self.first > self.most:
            raise ValueError(f"first = {self.first} must not be above most = {self.most}")
        return self

    def __str__(self) -> str:
        """Return the race as `--replicates` writes it, for example `2..10`."""
        return f"{self.first}..{self.most}"

    @property
    def written(self) -> str:
        """The race as a space writes it, for example `{first: 2, most: 10}`."""
        return f"{{first: {self.first}, most: {self.most}}}"


def read_replicates(written: Any) -> int | Racing:
    """Return the number of trainings of each setting, or the race, that a space file writes under `replicates`.

    Raises:
        ValueError: If it is neither a whole number from 1 on, nor a mapping with the ends of a race.
    """
    if isinstance(written, Mapping):
        return parse(Racing, written, "replicates")
    if isinstance(written, bool) or not isinstance(written, int) or not 1 <= written <= MOST_REPLICATES:
        raise ValueError(
            f"replicates = {shorten(written)}: must be a whole number from 1 to {MOST_REPLICATES:,}, the trainings of "
            "each setting, or a race such as {first: 2, most: 10}"
        )
    return written


def parse_replicates(flag: str, text: str) -> int | Racing:
    """Return the number of trainings of each setting, or the race, that a flag writes as `5` or `2..10`.

    Raises:
        ValueError: If the text is neither. The message names the flag.
    """
    if race := re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text.strip(), re.ASCII):
        return parse(Racing, {"first": int(race[1]), "most": int(race[2])}, flag)
    if not re.fullmatch(r"[+-]?\d{1,9}", text.strip(), re.ASCII):
        raise ValueError(
            f"{flag} {shorten(text)}: must be a whole number, the trainings of each setting, or a race such as 2..10"
        )
    return int(text)


def check_same_race(name: str, here: Racing | None, there: Racing | None, fixed: int) -> None:
    """Raise ValueError if a study would become a race, would stop being a race, or would become another race.

    Its results may have been seen. A race that is planned afterwards would not keep its error.

    Args:
        name: The name of the study.
        here: The race that is asked for. None for a fixed number of trainings.
        there: The race with which the study began, or None.
        fixed: The fixed number of trainings with which the study began.
    """
    if here == there:
        return
    other = "Run it as another study with --study NAME, which finds the finished trainings in the store."
    if there is None:
        assert here is not None
        raise ValueError(
            f"replicates = {here.written}: study {name} began with a fixed number of trainings (replicates: {fixed}), "
            f"so it cannot become a race. Add trainings with --replicates K, or race from the beginning. {other}"
        )
    asked = "a fixed number of trainings" if here is None else f"replicates = {here.written}"
    raise ValueError(
        f"{asked}: study {name} began as a race (replicates: {there.written}), which never changes, because the error "
        f"of its looks is planned beforehand. {other}"
    )
