"""Pruning by successive halving: a single halving, or several that begin at different rungs (Hyperband)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.study import Study
from optuna.trial import TrialState, create_trial

from coldtune.studies.search.pareto import advances
from coldtune.studies.search.pruning_rules.rule import PruningRule


@dataclass(frozen=True)
class SuccessiveHalving(PruningRule):
    """The rule `successive_halving`: at each rung, the best 1/reduction_factor of the trials so far go on."""

    startup: int
    reduction_factor: int
    min_resource: int | None

    several_objectives = True

    def describe(self) -> str:
        """Describe the rule."""
        return f"the best {100 / self.reduction_factor:.0f} % of the trials so far go on"

    def check(self, rungs: Sequence[int]) -> None:
        """Raise ValueError if no rung decides. Warn about rungs at which nothing is decided."""
        deciding = self.deciding_rungs(rungs)
        if not deciding:
            raise ValueError(
                f"pruning.min_resource = {self.min_resource}, rungs.steps = {list(rungs)}: no rung is that late, so "
                "nothing would be pruned"
            )
        if idle := [step for step in rungs if step not in deciding]:
            warnings.warn(
                f"rungs.steps = {list(rungs)}: nothing is decided at {', '.join(map(str, idle))}. With "
                f"pruning.reduction_factor = {self.reduction_factor}, only the rungs {deciding} decide.",
                stacklevel=3,
            )

    def build_pruner(self, rungs: Sequence[int], steps: int) -> BasePruner:
        """Build Optuna's asynchronous successive halving."""
        return SuccessiveHalvingPruner(self._first_step(rungs), self.reduction_factor)

    def prunes_among(
        self, values: Sequence[float], others: Sequence[Sequence[float]], step: int, rungs: Sequence[int]
    ) -> bool:
        """Return True if the rung decides and the trial is not among the best by non-dominated sorting."""
        return step in self.deciding_rungs(rungs) and not advances(values, others, self.reduction_factor)

    def deciding_rungs(self, rungs: Sequence[int]) -> list[int]:
        """Return the rungs at which a halving decides.

        They are the first rungs at or after min_resource, min_resource * reduction_factor, min_resource *
        reduction_factor^2, and so on.
        """
        threshold, deciding = self._first_step(rungs), []
        for step in rungs:
            if step >= threshold:
                deciding.append(step)
            while step >= threshold:
                threshold *= self.reduction_factor
        return deciding

    def _first_step(self, rungs: Sequence[int]) -> int:
        return self.min_resource or min(rungs, default=1)


@dataclass(frozen=True)
class Hyperband(SuccessiveHalving):
    """The rule `hyperband`: several successive halvings (brackets), which begin at different rungs."""

    several_objectives = False

    def describe(self) -> str:
        """Describe the rule."""
        return f"{super().describe()}, in brackets that begin at different rungs"

    def build_pruner(self, rungs: Sequence[int], steps: int) -> BasePruner:
        """Build Optuna's Hyperband."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return HyperbandPruner(self._first_step(rungs), steps, self.reduction_factor)

    def prepare(self, study: Study) -> None:
        """Make Optuna form its brackets now.

        Optuna forms them at the first decision. A resumed study would then put its first trials into another bracket
        than an uninterrupted study.
        """
        study.pruner.prune(study, create_trial(state=TrialState.RUNNING))
