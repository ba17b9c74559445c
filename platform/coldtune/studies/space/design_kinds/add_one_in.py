"""Add one in: nothing, and each part alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from coldtune.studies.space.design_kinds.kind import Arm, DesignKind, Factor, check_two_levels


class AddOneIn(DesignKind):
    """The kind `add_one_in`. Of the two levels of a factor, the first is without the part and the second with it."""

    kind: Literal["add_one_in"] = "add_one_in"

    def check(self, factors: Sequence[Factor]) -> None:
        """Raise ValueError if a factor has not two levels."""
        check_two_levels(factors, self.kind, "one_factor")

    def count(self, factors: Sequence[Factor]) -> int:
        """Return 1 for nothing, and 1 for each part."""
        return 1 + len(factors)

    def arms(self, factors: Sequence[Factor]) -> list[Arm]:
        """Return the setting without any part, then each part alone."""
        nothing = {factor.path: factor.levels[0] for factor in factors}
        added = [Arm({**nothing, f.path: f.levels[1]}, (f.path,), f"only {f.name}") for f in factors]
        return [Arm(nothing, role="none"), *added]

    def reference(self, factor: Factor) -> Any:
        """Return the level without the part. So an effect is what the part adds."""
        return factor.levels[0]

    def describe(self, factors: Sequence[Factor]) -> str:
        """Describe the design."""
        return "nothing, and each part alone"
