"""One factor at a time: the base, and each other level alone on the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from coldtune.studies.space.design_kinds.kind import Arm, DesignKind, Factor


class OneFactor(DesignKind):
    """The kind `one_factor`. It asks what each change alone does to the base, with the fewest arms."""

    kind: Literal["one_factor"] = "one_factor"

    def count(self, factors: Sequence[Factor]) -> int:
        """Return 1 for the base, and 1 for each other level."""
        return 1 + sum(len(factor.levels) - (factor.base in factor.levels) for factor in factors)

    def arms(self, factors: Sequence[Factor]) -> list[Arm]:
        """Return the base, then the levels of each factor on the base."""
        base = {factor.path: factor.base for factor in factors}
        changes = [(factor.path, level) for factor in factors for level in factor.levels if level != factor.base]
        return [Arm(base, role="base"), *(Arm({**base, path: level}, (path,)) for path, level in changes)]

    def describe(self, factors: Sequence[Factor]) -> str:
        """Describe the design."""
        return "one factor at a time, on the base"
