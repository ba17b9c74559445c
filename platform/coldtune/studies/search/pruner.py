"""The judge at the rungs: notes what running trials are worth there, and says which of them end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from coldtune.stages.rungs import metric_at_rung
from coldtune.stages.trial import RungConfig
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.paired_test import Find, worse_image_by_image
from coldtune.studies.search.pareto import goes_on
from coldtune.studies.search.pruning_config import PruningConfig
from coldtune.studies.storage.journal import batch
from coldtune.studies.storage.optuna_private import ask_pruner, read_trial, write_trial_attribute
from coldtune.studies.storage.outcome import Rung, StoredStage
from coldtune.studies.storage.record import Decision, TrialRecord, promoted_from, write_decisions, write_rung


class RungJudge:
    """Decides once for each trial and rung, and says the same again when asked again.

    A driver may die between a decision and its consequence; the trial then comes to the same rung again. So a decision
    stands in the storage in one piece, together with what Optuna's pruner notes for itself on the trial (which rungs of
    a successive halving it completed): the pruner writes to a copy, and its notes are put down after the decision.
    """

    def __init__(
        self, study: Study, pruning: PruningConfig, objectives: Sequence[Objective], rungs: RungConfig, find: Find
    ) -> None:
        self.study, self.pruning, self.objectives, self.rungs, self.find = study, pruning, objectives, rungs, find
        if self.pruning.kind == "hyperband":
            # It forms its brackets at its first judgement; a study that is resumed has them from the first trial on.
            study.pruner.prune(study, create_trial(state=TrialState.RUNNING))

    def prunes(self, trial: Trial, rung: Rung) -> bool:
        """Whether the trial ends at this rung."""
        decisions = dict(TrialRecord.of(trial).decisions)
        if rung.step not in decisions:
            self._note(trial, rung)
            decisions[rung.step] = self._decide(trial, rung)
            write_decisions(trial, decisions)
        for key, value in decisions[rung.step].notes.items():
            write_trial_attribute(self.study, trial, key, value)
        return decisions[rung.step].prune

    def _note(self, trial: Trial, rung: Rung) -> None:
        with batch(self.study):
            write_rung(trial, rung)
            if len(self.objectives) == 1 and rung.step not in read_trial(self.study, trial).intermediate_values:
                # Optuna's pruners and TPE take the study's direction for the rung's, where less is better.
                sign = 1 if self.objectives[0].direction == "minimize" else -1
                trial.report(sign * rung.values[self.rungs.metric], rung.step)

    def _decide(self, trial: Trial, rung: Rung) -> Decision:
        if self.pruning.kind == "none" or promoted_from(trial) is not None:
            return Decision(prune=False, notes={})
        others = self._others(trial, rung.step)
        notes: dict[str, Any] = {}
        if len(self.objectives) > 1:
            prune = self._behind_the_fronts(rung, others)
        elif math.isnan(rung.values[self.rungs.metric]):
            prune = True
        elif self.pruning.kind == "wilcoxon":
            prune = self._worse_than_the_best(rung)
        else:
            prune, notes = ask_pruner(self.study, trial)
        return Decision(bool(prune) and len(others) >= self.pruning.startup, notes)

    def _behind_the_fronts(self, rung: Rung, others: Sequence[FrozenTrial]) -> bool:
        if rung.step not in self.pruning.halvings(self.rungs.steps):
            return False
        theirs = [self._vector(TrialRecord.of(other).rungs[rung.step]) for other in others]
        return not goes_on(self._vector(rung.values), theirs, self.pruning.reduction_factor)

    def _vector(self, values: Mapping[str, float]) -> list[float]:
        """What stands for each objective at a rung, smaller is better."""
        signs = [1 if objective.direction == "minimize" else -1 for objective in self.objectives]
        names = [metric_at_rung(objective.metric, self.rungs.metric) for objective in self.objectives]
        return [sign * values.get(name, math.nan) for sign, name in zip(signs, names, strict=True)]

    def _worse_than_the_best(self, rung: Rung) -> bool:
        try:
            best = self.study.best_trial
        except ValueError:  # none has finished
            return False
        keys = [_measured(stages, rung.step) for stages in (rung.stages, TrialRecord.of(best).stages)]
        judged = [self.find(key) for key in keys if key is not None]
        if len(judged) < 2 or judged[0] is None or judged[1] is None:
            return False
        return worse_image_by_image(judged[0], judged[1], self.rungs.metric, self.pruning.p_value)

    def _others(self, trial: Trial, step: int) -> list[FrozenTrial]:
        """The other trials judged at this rung; one that was promoted was judged as what it was before."""
        return [
            other
            for other in self.study.get_trials(deepcopy=False)
            if other.number != trial.number and step in TrialRecord.of(other).rungs and promoted_from(other) is None
        ]


def _measured(stages: Sequence[StoredStage], step: int) -> str | None:
    """The store's key of the Judgement at a rung."""
    return next((stage.key for stage in stages if stage.stage == f"measure_{step}"), None)
