"""The keys of `pruning`, which decide which trials end early, and the registry of pruning rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from optuna.pruners import BasePruner, NopPruner
from pydantic import Field, model_validator

from coldtune.config import Config
from coldtune.studies.search.pruning_rules.halving import Hyperband, SuccessiveHalving
from coldtune.studies.search.pruning_rules.none import NoPruning
from coldtune.studies.search.pruning_rules.percentile import Median, Percentile
from coldtune.studies.search.pruning_rules.rule import PruningRule
from coldtune.studies.search.pruning_rules.wilcoxon import Wilcoxon

RULES: dict[str, type[PruningRule]] = {
    "none": NoPruning,
    "successive_halving": SuccessiveHalving,
    "hyperband": Hyperband,
    "median": Median,
    "percentile": Percentile,
    "wilcoxon": Wilcoxon,
}
"""The rules by their name in `pruning.kind`."""

if TYPE_CHECKING:
    RuleName: TypeAlias = str
else:
    RuleName = Literal[tuple(RULES)]  # the error for an unknown name lists all names


class PruningConfig(Config):
    """The rule that ends trials at a rung (`rungs.steps`).

    Most rules are Optuna's pruner of that name. They compare the rung metric (`rungs.metric`). Less is better. The rung
    metric decides, even if the objective is another quantity such as SSIM or recall. Then check on a few trials without
    pruning that the two agree.

    A pruned trial gets the state PRUNED and the value of its last rung. TPE learns from it: it ranks pruned trials
    behind all finished trials, by their last rung and their value there. GP, NSGA and the random searches learn nothing
    from pruned trials. The training stays in the store, and `coldtune study promote` continues it.

    Attributes:
        kind: The rule.

            - `none`: Every trial is trained to its end.
            - `successive_halving`: At each rung, the best 1/reduction_factor of all trials that have reached it go on.
              The best trial so far goes on too. The rule is asynchronous: no trial waits for others, so early trials
              pass more easily. With several objectives, the best trials are found by non-dominated sorting
              (`coldtune.studies.search.pareto`).
            - `hyperband`: Several successive halvings, called brackets, begin at different rungs. This helps if the
              first rungs may come too early to tell trials apart. A hash of the study's name and the trial's number
              chooses the bracket of a trial, so a resumed study uses the same brackets. There are floor(log(
              training.steps / min_resource) / log(reduction_factor)) + 1 brackets, and each needs several trials.
            - `median`: A trial ends if it is worse at a rung than the median of the finished trials was there. The
              rule compares the best rung of a trial so far, so a late rung rarely ends a trial that was good early.
            - `percentile`: The same as `median`, for another percentile.
            - `wilcoxon`: A trial ends if it is worse, image by image, than the best trial was at the same rung
              (`coldtune.studies.search.paired_test`). The number of other trials does not matter.
        startup: No trial is pruned at a rung before this many other trials were judged there. For `median` and
            `percentile`, this many trials must also have finished. With 0, the second trial can end just because it
            is worse than the first.
        reduction_factor: 2 ends about half of the trials at every rung, 4 three quarters. A larger factor tries more
            trials with the same number of steps, and loses more trials that improve late. A halving decides at the
            first rung at or after min_resource, min_resource * reduction_factor, min_resource * reduction_factor^2,
            ... steps. So let `rungs.steps` grow by this factor. Other rungs only cost their sampling (with a warning).
        min_resource: The number of training steps before the first decision of a halving. None means the first rung.
        percentile: The best `percentile` % of the trials go on. 50 is the median.
        p_value: The significance level of the one-sided test. Each rung is a test, so every rung loses about this
            share of the trials that are as good as the best.
    """

    kind: RuleName = "none"
    startup: int = Field(default=4, ge=0, le=1_000_000)
    reduction_factor: int = Field(default=2, ge=2, le=1_000_000)
    min_resource: int | None = Field(default=None, ge=1, le=1_000_000_000)
    percentile: float = Field(default=75.0, gt=0, lt=100)
    p_value: float = Field(default=0.05, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _refuse_keys_without_effect(self) -> PruningConfig:
        if self.kind != "none" and (ignored := self.ignored_keys()):
            takes = ", ".join(kind for kind, rule in RULES.items() if ignored[0] in _keys(rule))
            raise ValueError(f"{ignored[0]}: has no effect with kind = {self.kind!r}, only with {takes}")
        return self

    def ignored_keys(self) -> list[str]:
        """Return the keys that the rule does not read, although they are set to another value than their default."""
        used = ("kind", *_keys(RULES[self.kind]))
        fields = type(self).model_fields.items()
        return [name for name, field in fields if name not in used and getattr(self, name) != field.default]

    def rule(self) -> PruningRule:
        """Build the rule that `kind` names, with its keys."""
        cls = RULES[self.kind]
        return cls(**{name: getattr(self, name) for name in _keys(cls)})

    def build_pruner(self, rungs: Sequence[int], steps: int, objectives: int = 1) -> BasePruner:
        """Build Optuna's pruner for a study.

        With several objectives, Optuna cannot prune. The study's own rule decides, and Optuna's pruner does nothing.

        Args:
            rungs: The training steps of the rungs.
            steps: The training steps of a whole trial.
            objectives: The number of objectives.
        """
        return NopPruner() if objectives > 1 else self.rule().build_pruner(rungs, steps)


def _keys(rule: type[PruningRule]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(rule))
