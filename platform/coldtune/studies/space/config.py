"""The search space as it is written: which keys vary and where, what is derived, or which variants there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, field_validator, model_validator

from coldtune.config import Config
from coldtune.stages.trial import VARIANT as VARIANT


class InfeasibleError(ValueError):
    """A point at which a derived value cannot be had; it is excluded from the search, not an error of the user."""


class Vary(Config):
    """One varied key: `choices`, or `low` and `high` (both inclusive; integers search integers).

    log: search the logarithm, for values that matter by their ratio. step: a grid from `low`. when: only where every
    named key has one of the values listed (a key without effect is left out of the point, so that the search does not
    learn from it, and of the trial; one that belongs to other variants stays as the trial's own variant has it).
    """

    choices: tuple[str | bool | int | float | None, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False
    when: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @field_validator("when", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: item if isinstance(item, list | tuple) else [item] for key, item in value.items()}

    @model_validator(mode="after")
    def _whole(self) -> Vary:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("give either choices, or low and high")
        if self.choices is not None:
            if not self.choices or self.log or self.step is not None or len(set(self.choices)) < len(self.choices):
                raise ValueError("choices must be different from each other, at least one, and go without log and step")
        else:
            assert self.low is not None
            assert self.high is not None
            if self.low > self.high:
                raise ValueError(f"low = {self.low} must not be above high = {self.high}")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError("log needs low > 0 and no step")
        return self

    def distribution(self) -> BaseDistribution:
        """The Optuna distribution of this key."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None):
            high = self.high - (self.high - self.low) % self.step if self.step else self.high
            return IntDistribution(self.low, high, log=self.log, step=self.step or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> tuple[Any, ...]:
        """The values at which the key is checked: all choices, or both ends."""
        distribution = self.distribution()
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return (distribution.low, distribution.high)


class Derive(Config):
    """A key whose value follows from the others, so that what `hold` names stays `at` the base's value or a number.

    hold: `leftover`, what survives of the slowest mode at t = T (see `coldtune.diffusion.leftover`): the path to the
    end then varies, never the end itself, and FIDs compare (the weaker the end, the better every FID).
    """

    hold: Literal["leftover"]
    at: Literal["base"] | float = "base"


class Bound(Config):
    """What a quantity may be, both ends included."""

    min: float | None = None
    max: float | None = None

    def holds(self, value: float) -> bool:
        """Whether `value` lies within."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        ends = {"at least": self.min, "at most": self.max}
        return " and ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)

    @model_validator(mode="after")
    def _bounds(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} must not be above max = {self.max:g}")
        return self


class SpaceConfig(Config):
    """A space as it is written in a file under search_spaces/: ranges to search, variants to go through, or both.

    constrain: what a point must keep to be asked at all: `nfe`, the network evaluations of its sampler (a budget);
    `leftover`, what its degradation leaves at T, for the kinds that have such a number. A space that judges generation
    needs one of 1e-3 at most, since a prior draws x_T without an image: by this constraint, or by its ranges.
    first: points to try before the search chooses, after the base: dotted keys, the others as in the base.
    variants: by name, what each changes of the base: dotted keys, or whole sections (`degradation`), which replace the
    base's. Without `vary`, every variant is asked once, in the order written; with it, which variant is one more choice
    of the search, and `when: {variant: NAME}` says to which a key belongs. All are judged alike: none may change the
    protocol, the images, or whether images are restored or generated.
    """

    base: str | dict[str, Any]
    vary: dict[str, Vary] = Field(default_factory=dict)
    derive: dict[str, Derive] = Field(default_factory=dict)
    constrain: dict[Literal["nfe", "leftover"], Bound] = Field(default_factory=dict)
    first: tuple[dict[str, Any], ...] = ()
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> SpaceConfig:
        if not self.vary and not self.variants:
            raise ValueError("give vary, ranges to search, or variants, settings to go through, or both")
        if not self.vary and (self.derive or self.constrain or self.first):
            raise ValueError("derive, constrain and first go with vary; write down what a variant changes")
        return self
