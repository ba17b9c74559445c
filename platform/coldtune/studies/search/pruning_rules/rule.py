"""The interface of a pruning rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from optuna.pruners import BasePruner, NopPruner
from optuna.study import Study

from coldtune.metrics import Judgement


@dataclass(frozen=True)
class RungCase:
    """A running trial at a rung, as a rule sees it if the study has a single objective.

    Attributes:
        metric: The rung metric, such as `kid`. Smaller is better.
        ask_optuna: Returns the decision of the study's Optuna pruner.
        judgements: Returns the Judgements of this trial and of the best finished trial at this rung. None if no trial
            has finished, or if a Judgement is no longer in the store.
    """

    metric: str
    ask_optuna: Callable[[], bool]
    judgements: Callable[[], tuple[Judgement, Judgement] | None]


@dataclass(frozen=True)
class PruningRule:
    """A rule that decides at a rung whether a trial ends. The study finds it by the key `pruning.kind`.

    The fields of a subclass are the keys of `pruning` that the rule reads. Every other key must have its default, so
    that no user sets a key in vain. To add a rule, write a subclass in this folder and add a line to `RULES` in
    `coldtune.studies.search.pruning_config`, which also explains the rule to users.
    """

    several_objectives: ClassVar[bool] = False
    """True if the rule works with several objectives. Then `prunes_among` decides."""

    def describe(self) -> str:
        """Describe the rule in a few words, for the lines that a study prints before it starts."""
        raise NotImplementedError

    def check(self, rungs: Sequence[int]) -> None:
        """Raise ValueError if the rule never decides at `rungs` (steps of the training). Warn about useless rungs."""

    def build_pruner(self, rungs: Sequence[int], steps: int) -> BasePruner:
        """Build Optuna's pruner for trials of `steps` training steps. A rule that decides itself does not need it."""
        return NopPruner()

    def prepare(self, study: Study) -> None:
        """Prepare the study's pruner each time a driver opens the study."""

    def prunes(self, case: RungCase) -> bool:
        """Return True if the trial ends, in a study with one objective."""
        return case.ask_optuna()

    def prunes_on_average(
        self, hoped_for: float, ask_optuna: Callable[[], bool], best_of_others: Callable[[], float | None]
    ) -> bool:
        """Return True if a setting of several replicates ends, after `prunes` said so about one of its trainings.

        Args:
            hoped_for: The mean of the rung metric over the setting's trainings so far, minus the training sd.
            ask_optuna: Returns the decision of the study's Optuna pruner about a trial with such values.
            best_of_others: Returns the mean of the best finished setting at this rung, or None if there is none.
        """
        return ask_optuna()

    def prunes_among(
        self, values: Sequence[float], others: Sequence[Sequence[float]], step: int, rungs: Sequence[int]
    ) -> bool:
        """Return True if the trial ends, in a study with several objectives.

        Args:
            values: The trial's value for each objective at this rung. Smaller is better.
            others: The values of every other trial that has reached this rung.
            step: The training step of this rung.
            rungs: The training steps of all rungs.
        """
        raise NotImplementedError
