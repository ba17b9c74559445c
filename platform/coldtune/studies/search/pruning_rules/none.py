"""No pruning."""

from __future__ import annotations

from dataclasses import dataclass

from coldtune.studies.search.pruning_rules.rule import PruningRule, RungCase


@dataclass(frozen=True)
class NoPruning(PruningRule):
    """The rule `none`: every trial is trained to its end. Rungs, if there are any, are only recorded."""

    several_objectives = True

    def describe(self) -> str:
        """Describe the rule."""
        return "every trial goes on"

    def prunes(self, case: RungCase) -> bool:
        """Return False."""
        return False
