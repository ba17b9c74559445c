"""The judge at the rungs: it records the results of running trials there and decides which trials end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from coldtune.metrics import Judgement
from coldtune.stages.rungs import metric_at_rung
from coldtune.stages.trial import RungConfig
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.paired_test import Find
from coldtune.studies.search.pruning_config import PruningConfig
from coldtune.studies.search.pruning_field import Field, with_values
from coldtune.studies.search.pruning_rules.rule import RungCase
from coldtune.studies.storage.journal import batch
from coldtune.studies.storage.optuna_private import ask_pruner, read_trial, write_trial_attribute
from coldtune.studies.storage.outcome import Rung, StoredStage
from coldtune.studies.storage.record import Decision, TrialRecord, promoted_from, write_decisions, write_rung


class RungJudge:
    """Decides once for each trial and rung, and repeats the decision if it is asked again.

    A driver may die between a decision and its consequence. The trial then reaches the same rung again. So the decision
    is stored in a single write, together with the notes of Optuna's pruner. (The pruner notes on a trial which rungs of
    a successive halving it has completed.) The pruner writes its notes to a copy, and they reach the trial after the
    decision is stored.
    """

    def __init__(
        self, study: Study, pruning: PruningConfig, objectives: Sequence[Objective], rungs: RungConfig, find: Find
    ) -> None:
        self.study, self.pruning, self.objectives, self.rungs, self.find = study, pruning, objectives, rungs, find
        self.rule = pruning.rule()
        self.rule.prepare(study)

    def prunes(self, trial: Trial, rung: Rung) -> bool:
        """Record the trial's values at a rung, and return True if the trial ends there."""
        decisions = dict(TrialRecord.of(trial).decisions)
        if rung.step not in decisions:
            self._record(trial, rung)
            decisions[rung.step] = self._decide(trial, rung)
            write_decisions(trial, decisions)
        for key, value in decisions[rung.step].notes.items():
            write_trial_attribute(self.study, trial, key, value)
        return decisions[rung.step].prune

    def _record(self, trial: Trial, rung: Rung) -> None:
        with batch(self.study):
            write_rung(trial, rung)
            if len(self.objectives) == 1 and rung.step not in read_trial(self.study, trial).intermediate_values:
                # Less is better at a rung, but Optuna's pruners and TPE expect the direction of the study.
                trial.report(self._sign() * rung.values[self.rungs.metric], rung.step)

    def _decide(self, trial: Trial, rung: Rung) -> Decision:
        notes: dict[str, Any] = {}
        if self.pruning.kind == "none" or promoted_from(trial) is not None:
            return Decision(prune=False, notes=notes)
        field = Field.around(self.study, trial)
        if field.promoted:
            return Decision(prune=False, notes=notes)
        if field.given_up:
            return Decision(prune=True, notes=notes)
        others = field.others(rung.step)
        if len(self.objectives) > 1:
            values = [self._objective_values(TrialRecord.of(other).rungs[rung.step]) for other in others]

            def among(own: Mapping[str, float]) -> bool:
                return self.rule.prunes_among(self._objective_values(own), values, rung.step, self.rungs.steps)

            prune = among(rung.values) and (not field.replicated or among(self._hoped_for(field, rung.step)))
        elif math.isnan(rung.values[self.rungs.metric]):
            prune = True
        else:

            def ask_optuna() -> bool:
                prune, written = ask_pruner(field.seen, field.trial)
                notes.update(written)
                return prune

            case = RungCase(self.rungs.metric, ask_optuna, lambda: self._judgements(field, rung))
            prune = self.rule.prunes(case) and (not field.replicated or self._is_worse_by_more_than_luck(field, rung))
        return Decision(bool(prune) and len(others) >= self.pruning.startup, notes)

    def _is_worse_by_more_than_luck(self, field: Field, rung: Rung) -> bool:
        """Return True if the rule ends the trial even with its setting's mean, improved by the sd of the trainings."""
        hoped_for = {step: self._hoped_for(field, step) for step in field.trial.intermediate_values}
        if any(math.isinf(values[self.rungs.metric]) for values in hoped_for.values()):
            return False  # the spread of the trainings is not known yet

        def ask_optuna() -> bool:
            sign = self._sign()
            values = {step: sign * values[self.rungs.metric] for step, values in hoped_for.items()}
            return ask_pruner(field.seen, with_values(field.trial, values))[0]  # the notes keep the trial's own values

        def best_of_others() -> float | None:
            best = self._best(field)
            return None if best is None else field.mean_of(best, rung.step, self.rungs.metric)

        return self.rule.prunes_on_average(hoped_for[rung.step][self.rungs.metric], ask_optuna, best_of_others)

    def _hoped_for(self, field: Field, step: int) -> dict[str, float]:
        """Return the means of the trial's setting at a rung, each improved by the sd of the trainings there.

        At a rung, the rung metric is better if it is smaller. Other metrics follow the direction of their objective.
        """
        larger = {objective.metric for objective in self.objectives if objective.direction == "maximize"}
        means, luck = field.means(step), field.training_sd(step)
        return {
            metric: mean + luck[metric] * (1 if metric in larger and metric != self.rungs.metric else -1)
            for metric, mean in means.items()
        }

    def _sign(self) -> int:
        """Return the factor by which rung values are stored, so that the study's direction holds for them."""
        return 1 if self.objectives[0].direction == "minimize" else -1

    def _best(self, field: Field) -> FrozenTrial | None:
        """Return the best finished trial that the trial is compared with, or None if none has finished."""
        if not field.replicated:
            try:
                return self.study.best_trial
            except ValueError:
                return None
        complete = [trial for trial in field.compared if trial.state == TrialState.COMPLETE]
        return min(complete, key=lambda trial: (self._sign() * trial.values[0], trial.number), default=None)

    def _objective_values(self, values: Mapping[str, float]) -> list[float]:
        """Return a value for each objective from the values at a rung. Smaller is better."""
        signs = [1 if objective.direction == "minimize" else -1 for objective in self.objectives]
        names = [metric_at_rung(objective.metric, self.rungs.metric) for objective in self.objectives]
        return [sign * values.get(name, math.nan) for sign, name in zip(signs, names, strict=True)]

    def _judgements(self, field: Field, rung: Rung) -> tuple[Judgement, Judgement] | None:
        """Load the Judgements of this trial and of the best finished trial at this rung. None if either is missing."""
        best = self._best(field)
        if best is None:
            return None
        loaded = []
        for stages in (rung.stages, TrialRecord.of(best).stages):
            key = _judgement_key(stages, rung.step)
            judgement = None if key is None else self.find(key)
            if judgement is None:
                return None
            loaded.append(judgement)
        return loaded[0], loaded[1]


def _judgement_key(stages: Sequence[StoredStage], step: int) -> str | None:
    """Return the store's key of the Judgement at a rung."""
    return next((stage.key for stage in stages if stage.stage == f"measure_{step}"), None)
