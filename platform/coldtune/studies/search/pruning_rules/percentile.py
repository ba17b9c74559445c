"""Pruning of trials that are worse than the median, or another percentile, of the finished trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.pruners import BasePruner, MedianPruner, PercentilePruner

from coldtune.studies.search.pruning_rules.rule import PruningRule


@dataclass(frozen=True)
class Median(PruningRule):
    """The rule `median`: a trial ends if it is worse than the median of the finished trials at this rung."""

    startup: int

    def describe(self) -> str:
        """Describe the rule."""
        return "a trial that is worse than the median of the finished trials ends"

    def build_pruner(self, rungs: Sequence[int], steps: int) -> BasePruner:
        """Build Optuna's median pruner."""
        return MedianPruner(n_startup_trials=self.startup)


@dataclass(frozen=True)
class Percentile(PruningRule):
    """The rule `percentile`: a trial ends if it is not among the best `percentile` % of the finished trials."""

    startup: int
    percentile: float

    def describe(self) -> str:
        """Describe the rule."""
        return f"a trial that is not among the best {self.percentile:g} % of the finished trials ends"

    def build_pruner(self, rungs: Sequence[int], steps: int) -> BasePruner:
        """Build Optuna's percentile pruner."""
        return PercentilePruner(self.percentile, n_startup_trials=self.startup)
