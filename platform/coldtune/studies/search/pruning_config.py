"""Which trials end early: the keys of `pruning`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
)
from pydantic import Field, model_validator

from coldtune.config import Config

if TYPE_CHECKING:
    pass


_USED = {
    "none": (),
    "successive_halving": ("startup", "reduction_factor", "min_resource"),
    "hyperband": ("startup", "reduction_factor", "min_resource"),
    "median": ("startup",),
    "percentile": ("startup", "percentile"),
    "wilcoxon": ("startup", "p_value"),
}


class PruningConfig(Config):
    """Which trials end at a rung (`rungs.steps`), by Optuna's pruner of that name on `rungs.metric`, lower is better.

    A pruned trial's training stays in the store, and `coldtune study promote` takes it up again. It ends told PRUNED
    with its last rung's value: TPE then ranks it behind all finished trials, by its rung and its value there; GP, NSGA
    and the random searches learn nothing from it. The rung metric decides, whatever the objective: where the objective
    is another quantity (SSIM, recall), see on a few unpruned trials that the two agree.

    kind:
      `none`: every trial is trained to its end.
      `successive_halving`: at each rung the best 1/reduction_factor of all that have reached it go on, and so does the
        best so far (asynchronous: nobody waits for others, so early trials have it easier). Of several objectives, the
        best by non-dominated sorting (`coldtune.studies.search.pareto`).
      `hyperband`: successive halvings that begin at different rungs, which hedges against rungs that come too early.
        The bracket of a trial follows from a hash of the study's name and the trial's number, so a resumed study has
        the same ones; there are floor(log(training.steps / min_resource) / log(reduction_factor)) + 1 of them, which
        want several trials each.
      `median`: ends what is worse at a rung than the median there of the trials that finished; `percentile`: worse than
        that percentile. Both compare a trial's best rung so far, so a late rung rarely ends what was good early.
      `wilcoxon`: ends what is worse image by image than the best trial was at the same rung
        (`coldtune.studies.search.paired_test`), however many other trials there are.
    startup: nobody is pruned at a rung before so many other trials were judged there (median and percentile: before so
      many have finished). 0 lets the second trial be pruned for being worse than the first.
    reduction_factor: 2 ends about half at every rung, 4 three quarters: more trials for the same steps, and more late
      bloomers lost. A trial is judged at the first rung at or after min_resource, min_resource * reduction_factor,
      min_resource * reduction_factor^2, ... steps, so `rungs.steps` should grow by this factor; a rung in between only
      costs its sampling (there is a warning).
    min_resource: steps of the training before the first of these judgements; None is the first rung.
    percentile: the best so many per cent go on; 50 is the median.
    p_value: of the one-sided test, below which a trial ends; a rung is one test, so of trials as good as the best
      about this share is lost at each.
    """

    kind: Literal["none", "successive_halving", "hyperband", "median", "percentile", "wilcoxon"] = "none"
    startup: int = Field(default=4, ge=0)
    reduction_factor: int = Field(default=2, ge=2)
    min_resource: int | None = Field(default=None, ge=1)
    percentile: float = Field(default=75.0, gt=0, lt=100)
    p_value: float = Field(default=0.05, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _nothing_ignored(self) -> PruningConfig:
        if self.kind != "none" and (ignored := self.ignored()):
            takes = ", ".join(kind for kind, used in _USED.items() if ignored[0] in used)
            raise ValueError(f"{ignored[0]}: has no effect with kind = {self.kind!r}, only with {takes}")
        return self

    def ignored(self) -> list[str]:
        """The keys that are set, to something else than their default, and have no effect with this kind."""
        fields = type(self).model_fields.items()
        return [
            name
            for name, field in fields
            if name not in ("kind", *_USED[self.kind]) and getattr(self, name) != field.default
        ]

    def build(self, rungs: Sequence[int], steps: int, objectives: int = 1) -> BasePruner:
        """Optuna's pruner for a study with these rungs, whose trials train for `steps`.

        The one that never prunes, where the decision is not Optuna's (several objectives, `wilcoxon`).
        """
        if objectives > 1 or self.kind in ("none", "wilcoxon"):
            return NopPruner()
        least = self.min_resource or rungs[0]
        match self.kind:
            case "median":
                return MedianPruner(n_startup_trials=self.startup)
            case "percentile":
                return PercentilePruner(self.percentile, n_startup_trials=self.startup)
            case "hyperband":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    return HyperbandPruner(least, steps, self.reduction_factor)
        return SuccessiveHalvingPruner(least, self.reduction_factor)

    def halvings(self, rungs: Sequence[int]) -> list[int]:
        """Of the rungs, those at which a successive halving decides."""
        threshold, found = self.min_resource or min(rungs, default=1), []
        for step in rungs:
            if step >= threshold:
                found.append(step)
            while step >= threshold:
                threshold *= self.reduction_factor
        return found
