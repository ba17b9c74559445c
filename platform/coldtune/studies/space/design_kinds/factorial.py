"""The full factorial: every combination of levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from coldtune.studies.space.design_kinds.kind import Arm, DesignKind, Factor, check_base_is_a_level


class Factorial(DesignKind):
    """The kind `factorial`. It asks for the effect of each factor and for all interactions."""

    kind: Literal["factorial"] = "factorial"

    interactions: ClassVar[bool] = True

    def check(self, factors: Sequence[Factor]) -> None:
        """Raise ValueError if the base is none of the combinations."""
        check_base_is_a_level(factors, self.kind)

    def count(self, factors: Sequence[Factor]) -> int:
        """Return the product of the numbers of levels."""
        return math.prod(len(factor.levels) for factor in factors)

    def arms(self, factors: Sequence[Factor]) -> list[Arm]:
        """Return every combination: the base first, the others in the order of the file."""
        paths = tuple(factor.path for factor in factors)
        base = {factor.path: factor.base for factor in factors}
        combinations = itertools.product(*(factor.levels for factor in factors))
        others = [levels for values in combinations if (levels := dict(zip(paths, values, strict=True))) != base]
        return [Arm(base, paths, "base"), *(Arm(levels, paths) for levels in others)]

    def describe(self, factors: Sequence[Factor]) -> str:
        """Describe the design."""
        return f"factorial, {' x '.join(str(len(factor.levels)) for factor in factors)} levels"
