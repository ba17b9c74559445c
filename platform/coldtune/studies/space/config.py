"""The search space as a user writes it: the keys that vary, the keys that are derived, and the variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import BeforeValidator, Field, field_validator, model_validator

from coldtune.config import Config, shorten
from coldtune.stages.trial import VARIANT as VARIANT


def _wrap_single_values(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: item if isinstance(item, list | tuple) else [item] for key, item in value.items()}


Conditions = Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_wrap_single_values)]
"""Allowed values by dotted key. In a file, a single value needs no list."""


class InfeasibleError(ValueError):
    """A point that the search leaves out, because a derived value does not exist or a constraint is violated.

    It is not an error of the user.
    """


class Vary(Config):
    """A key that varies: either a list of choices or a range.

    Attributes:
        choices: Values of any kind, for example `[constant, linear]`. None is written as `null`.
        low: The lower end of the range, inclusive. If `low`, `high` and `step` are integers, only integers are drawn.
        high: The upper end of the range, inclusive.
        step: Restricts the range to the grid low, low + step, low + 2 step, ...
        log: True searches the logarithm of the value. Use it if ratios matter more than differences, as for learning
            rates.
        when: Conditions by dotted key, each with one allowed value or a list of them. The key is drawn only if every
            condition is met. Otherwise it has no effect, so both the point and the trial leave it out, and the search
            does not learn from it. A key with the condition `variant` stays as the other variants write it.
    """

    choices: tuple[str | bool | int | float | None, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = Field(default=None, gt=0)
    log: bool = False
    when: Conditions = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_choices_or_range(self) -> Vary:
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError("needs either choices, or low and high")
        if self.choices is not None:
            if not self.choices or self.log or self.step is not None or len(set(self.choices)) < len(self.choices):
                raise ValueError(
                    "choices must be different from each other, at least one is needed, and log and step go with a "
                    "range only"
                )
        else:
            assert self.low is not None
            assert self.high is not None
            if self.low > self.high:
                raise ValueError(f"low = {self.low} must not be above high = {self.high}")
            if self.log and (self.low <= 0 or self.step is not None):
                raise ValueError("log needs low > 0 and no step")
        return self

    def distribution(self) -> BaseDistribution:
        """Return the Optuna distribution of this key."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step, int | None):
            high = self.high - (self.high - self.low) % self.step if self.step else self.high
            return IntDistribution(self.low, high, log=self.log, step=self.step or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def ends(self) -> tuple[Any, ...]:
        """Return the values that are checked before a study starts: all choices, or both ends of the range."""
        distribution = self.distribution()
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return (distribution.low, distribution.high)


class Derive(Config):
    """A key whose value follows from all others, so that a quantity has the same value at every point.

    A weaker degradation at t = T has a better FID, whatever the restorer is worth. With `hold: leftover`, points
    differ in the path to x_T but not in x_T itself, so their FIDs can be compared.

    Attributes:
        hold: The quantity to fix. `leftover` is the share of the slowest mode that survives at t = T (see
            `coldtune.diffusion.leftover`).
        at: The value to fix it at: a number, or `base` for the value that the base has.
    """

    hold: Literal["leftover"]
    at: Literal["base"] | float = "base"


class Bound(Config):
    """The allowed range of a quantity.

    Attributes:
        min: The smallest allowed value. None means no lower limit.
        max: The largest allowed value. None means no upper limit.
    """

    min: float | None = None
    max: float | None = None

    def allows(self, value: float) -> bool:
        """Return True if `value` is within the range, both ends included."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def __str__(self) -> str:
        ends = {"at least": self.min, "at most": self.max}
        return " and ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)

    @model_validator(mode="after")
    def _check_ends(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min = {self.min:g} must not be above max = {self.max:g}")
        return self


class SpaceConfig(Config):
    """A search space, as a file under search_spaces/ writes it. It has keys to search (`vary`), variants, or both.

    Attributes:
        base: The configuration around which the space lies: the name of a preset, or a whole trial configuration. It
            is always the first trial.
        vary: The keys to search, by dotted key of the base.
        derive: The keys that follow from the others, by dotted key.
        constrain: Limits that a point must meet, or the search leaves it out. `nfe` is the number of network
            evaluations of the sampler, `leftover` the share of an image that the degradation leaves at t = T. A variant
            with a kind of degradation that has no such number is not limited. If a space judges generation, its
            leftover must be at most 1e-3, either by this constraint or by its ranges, because a prior draws x_T without
            an image.
        first: Points to try after the base and before the search chooses. A point lists dotted keys. Its other keys
            are as in the base.
        variants: Changes to the base, by name. A change sets dotted keys, or replaces whole sections (`degradation`).
            Without `vary`, each variant is asked once, in the order written. With `vary`, the variant is another
            choice of the search, and `when: {variant: NAME}` restricts a key to a variant. All variants are judged
            alike. None may change the protocol, the images, or whether images are restored or generated.
    """

    base: str | dict[str, Any]
    vary: dict[str, Vary] = Field(default_factory=dict)
    derive: dict[str, Derive] = Field(default_factory=dict)
    constrain: dict[Literal["nfe", "leftover"], Bound] = Field(default_factory=dict)
    first: tuple[dict[str, Any], ...] = ()
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("vary", mode="before")
    @classmethod
    def _explain_other_shapes(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for key, vary in value.items():
            if not isinstance(vary, Mapping | Vary):
                raise ValueError(f"vary.{key} = {shorten(vary)}: must be a mapping with choices, or with low and high")
            nested = [name for name, item in dict(vary).items() if isinstance(item, Mapping) and name != "when"]
            if nested:
                raise ValueError(f"vary.{key}.{nested[0]}: must be written as one dotted key, `{key}.{nested[0]}: ...`")
        return value

    @property
    def varied(self) -> list[str]:
        """The dotted keys of `vary` that have several values. A key with a single value is set and not searched."""
        return [path for path, vary in self.vary.items() if not vary.distribution().single()]

    @model_validator(mode="after")
    def _check_vary_or_variants(self) -> SpaceConfig:
        if not self.vary and not self.variants:
            raise ValueError("needs vary (keys to search), variants (settings to try one by one), or both")
        if not self.vary and (self.derive or self.constrain or self.first):
            raise ValueError("derive, constrain and first need vary. Write the changes into the variants instead.")
        return self
