"""Leave one out: everything together, and everything without each part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from coldtune.studies.space.design_kinds.kind import Arm, DesignKind, Factor, check_two_levels


class LeaveOneOut(DesignKind):
    """The kind `leave_one_out`. Of the two levels of a factor, the first is without the part and the second with it."""

    kind: Literal["leave_one_out"] = "leave_one_out"

    def check(self, factors: Sequence[Factor]) -> None:
        """Raise ValueError if a factor has not two levels."""
        check_two_levels(factors, self.kind, "one_factor")

    def count(self, factors: Sequence[Factor]) -> int:
        """Return 1 for everything together, and 1 for each part."""
        return 1 + len(factors)

    def arms(self, factors: Sequence[Factor]) -> list[Arm]:
        """Return everything together, then everything without each part."""
        together = {factor.path: factor.levels[1] for factor in factors}
        without = [Arm({**together, f.path: f.levels[0]}, (f.path,), f"without {f.name}") for f in factors]
        return [Arm(together, role="all"), *without]

    def reference(self, factor: Factor) -> Any:
        """Return the level without the part. So an effect is what the part adds."""
        return factor.levels[0]

    def describe(self, factors: Sequence[Factor]) -> str:
        """Describe the design."""
        return "everything together, and without each part"
