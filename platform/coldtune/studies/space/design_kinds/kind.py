"""The interface of a kind of design: which arms it makes of the levels of its factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from coldtune.config import Config
from coldtune.studies.space.distributions import write_value


@dataclass(frozen=True)
class Factor:
    """A key with the levels that a design compares.

    Attributes:
        path: The dotted key.
        name: Its name in tables.
        levels: Its values, each once, in the order of the file.
        base: The value of the base. If the key has no effect in the base, it is the first level.
        conditional: True if the key has an effect in some arms only, because of `when`.
    """

    path: str
    name: str
    levels: tuple[Any, ...]
    base: Any
    conditional: bool = False

    def label(self, level: Any) -> str:
        """Return the level as tables write it, for example `T=10`."""
        return f"{self.name}={write_value(level)}"


@dataclass(frozen=True)
class Arm:
    """A setting of a design: a level for every factor.

    Attributes:
        levels: The level of each factor, by dotted key.
        shown: The dotted keys whose levels make the name of the arm.
        role: What the arm is in its design, for example `base`. It comes first in the name of the arm.
    """

    levels: dict[str, Any]
    shown: tuple[str, ...] = ()
    role: str = ""


class DesignKind(Config):
    """A kind of design. The study finds it by the key `design.kind`, and its fields are the keys of `design`.

    To add a kind, write a subclass in this folder and add a line to `KINDS` in `registry.py`. Then subclass
    `coldtune.testing.DesignSuite`, which proves that the kind keeps the promises below.

    - The first arm is the reference. The effect of a level is its difference from the reference level of its factor.
    - Every arm has a level for every factor, and no two arms have the same levels.
    - The arms follow from the factors alone. Their order is randomised later.
    - If all effects add up, the arms determine each of them.
    """

    kind: str

    interactions: ClassVar[bool] = False
    """True if the arms also show how two factors change each other's effect."""

    def check(self, factors: Sequence[Factor]) -> None:
        """Raise ValueError if the kind cannot work with these factors. The message names the factor."""

    def count(self, factors: Sequence[Factor]) -> int:
        """Return the number of arms, without making them."""
        raise NotImplementedError

    def arms(self, factors: Sequence[Factor]) -> list[Arm]:
        """Return the arms, the reference first. `check` was called before."""
        raise NotImplementedError

    def reference(self, factor: Factor) -> Any:
        """Return the level of a factor with which its other levels are compared: the base's."""
        return factor.base

    def describe(self, factors: Sequence[Factor]) -> str:
        """Describe the design in a few words, for the lines that a study prints before it starts."""
        raise NotImplementedError

    def aliases(self, factors: Sequence[Factor]) -> list[str]:
        """Return a sentence for each set of effects that the arms cannot tell apart."""
        return []


def check_base_is_a_level(factors: Sequence[Factor], kind: str) -> None:
    """Raise ValueError if the base lies at no level of a factor, so that the arms do not contain the base."""
    for factor in factors:
        if factor.base not in factor.levels:
            listed = ", ".join(map(write_value, factor.levels))
            raise ValueError(
                f"factors.{factor.path} = [{listed}]: the base has {write_value(factor.base)}, which must be one of "
                f"the levels of a {kind} design. Add it, or change the base with --set {factor.path}=..."
            )


def check_two_levels(factors: Sequence[Factor], kind: str, instead: str) -> None:
    """Raise ValueError if a factor has not exactly two levels.

    Args:
        instead: The kind of design for more levels.
    """
    for factor in factors:
        if len(factor.levels) != 2:
            listed = ", ".join(map(write_value, factor.levels))
            raise ValueError(
                f"factors.{factor.path} = [{listed}]: {len(factor.levels)} levels, but the design {kind} takes two "
                f"of each factor. For more levels, write design: {{kind: {instead}}}."
            )
