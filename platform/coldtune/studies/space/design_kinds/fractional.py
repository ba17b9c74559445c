"""The fractional factorial: a part of the combinations of two-level factors, chosen so that main effects stay clear."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from coldtune.studies.space.design_kinds.fractions import Fraction, describe_effect, find_fraction
from coldtune.studies.space.design_kinds.kind import (
    Arm,
    DesignKind,
    Factor,
    check_base_is_a_level,
    check_two_levels,
)

_LEAST, _MOST = 3, 16
_ROMAN = {3: "III", 4: "IV", 5: "V", 6: "VI", 7: "VII", 8: "VIII"}


class Fractional(DesignKind):
    """The kind `fractional`. It has fewer arms than a factorial, so some effects cannot be told apart (aliases).

    Attributes:
        resolution: How well effects are told apart. 3: main effects from each other. 4: also from interactions of two
            factors. 5: also these interactions from each other. A larger resolution needs more arms.
    """

    kind: Literal["fractional"] = "fractional"
    resolution: int = Field(default=4, ge=3, le=5)

    interactions: ClassVar[bool] = True

    def check(self, factors: Sequence[Factor]) -> None:
        """Raise ValueError if there are too few or too many factors, or a factor has other than two levels."""
        check_two_levels(factors, self.kind, "factorial")
        if not _LEAST <= len(factors) <= _MOST:
            raise ValueError(
                f"factors: {len(factors)}, but a fractional design takes {_LEAST} to {_MOST}. For fewer, write "
                "design: {kind: factorial}."
            )
        if waiting := [factor.path for factor in factors if factor.conditional]:
            raise ValueError(
                f"factors.{waiting[0]}.when: a fractional design needs factors that have an effect in every arm. Write "
                "design: {kind: factorial}, which leaves the others out."
            )
        check_base_is_a_level(factors, self.kind)

    def count(self, factors: Sequence[Factor]) -> int:
        """Return the number of combinations of the fraction."""
        return _fraction(len(factors), self.resolution).runs

    def arms(self, factors: Sequence[Factor]) -> list[Arm]:
        """Return the combinations of the fraction that contains the base, the base first."""
        paths = tuple(factor.path for factor in factors)
        arms = []
        for combination in _fraction(len(factors), self.resolution).combinations():
            levels = {f.path: _other(f) if combination >> place & 1 else f.base for place, f in enumerate(factors)}
            arms.append(Arm(levels, paths, "" if combination else "base"))
        return arms

    def describe(self, factors: Sequence[Factor]) -> str:
        """Describe the design."""
        fraction = _fraction(len(factors), self.resolution)
        if not fraction.words:
            return f"fractional, but {len(factors)} factors have no fraction of this resolution: all {fraction.runs}"
        share = f"1/{1 << fraction.generators} of the {1 << len(factors)} combinations"
        return f"fractional, {share}, resolution {_ROMAN.get(fraction.resolution, fraction.resolution)}"

    def aliases(self, factors: Sequence[Factor]) -> list[str]:
        """Return a sentence for each main effect and each set of interactions that are not told apart.

        Interactions of three and more factors are only mentioned if a main effect has no shorter alias. Interactions
        that are not told apart from a main effect are in the sentence of that effect alone.
        """
        fraction, names = _fraction(len(factors), self.resolution), [factor.name for factor in factors]
        if not fraction.words:
            return []
        sentences = [_of_main_effect(1 << place, fraction, names) for place in range(len(names))]
        seen: set[int] = set()
        for pair in _pairs(len(names)):
            aliases = fraction.aliases(pair)
            same = [pair, *(alias for alias in aliases if alias.bit_count() == 2)]
            if len(same) > 1 and pair not in seen and aliases[0].bit_count() > 1:
                listed = " and ".join(describe_effect(effect, names) for effect in same)
                sentences.append(f"the interactions {listed} cannot be told apart, only their sum is known")
            seen.update(same)
        return sentences


@functools.cache
def _fraction(factors: int, resolution: int) -> Fraction:
    return find_fraction(factors, resolution)


def _pairs(count: int) -> list[int]:
    return [1 << a | 1 << b for a, b in itertools.combinations(range(count), 2)]


def _other(factor: Factor) -> object:
    return next(level for level in factor.levels if level != factor.base)


def _of_main_effect(effect: int, fraction: Fraction, names: Sequence[str]) -> str:
    aliases = fraction.aliases(effect)
    shortest = aliases[0].bit_count()
    listed = " and ".join(describe_effect(alias, names) for alias in aliases if alias.bit_count() == shortest)
    kind = "interaction" if " and " not in listed else "interactions"
    return f"the effect of {describe_effect(effect, names)} cannot be told apart from the {kind} {listed}"
