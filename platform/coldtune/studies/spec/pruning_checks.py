"""Which trials end before their training does: a rule by name, on what they are worth at the rungs."""

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
from coldtune.stages.rungs import RungConfig

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec

_USED = {
    "none": (),
    "successive_halving": ("startup", "reduction_factor", "min_resource"),
    "hyperband": ("startup", "reduction_factor", "min_resource"),
    "median": ("startup",),
    "percentile": ("startup", "percentile"),
    "wilcoxon": ("startup", "p_value"),
}
_RULES = {
    "successive_halving": "the best {percent:.0f} % of those that came so far go on",
    "hyperband": "the best {percent:.0f} % of those that came so far go on, in brackets that begin at different rungs",
    "median": "what is worse than the median of the finished ends",
    "percentile": "what is not among the best {0.percentile:g} % of the finished ends",
    "wilcoxon": "what is worse than the best trial was, image by image (p < {0.p_value:g}), ends",
}
SEVERAL = ("none", "successive_halving")
"""The kinds that several objectives can have."""


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


def check_pruning(spec: StudySpec) -> None:
    """ValueError naming the keys where the study's pruning cannot work; a warning for what has no effect."""
    pruning, kind = spec.pruning, f"pruning.kind = {spec.pruning.kind!r}"
    if pruning.kind == "none":
        if ignored := pruning.ignored():
            warnings.warn(f"pruning.{ignored[0]}: has no effect with {kind}", stacklevel=2)
        return
    if not (rungs := rungs_of(spec).steps):
        raise ValueError(
            f"{kind}, rungs.steps = []: trials are pruned at rungs; give their steps, for example "
            f"rungs.steps=[{max(spec.base['training']['steps'] // 4, 1)}, {spec.base['training']['steps'] // 2}]"
        )
    if rungs[-1] >= spec.base["training"]["steps"]:
        raise ValueError(
            f"{kind}, rungs.steps = {list(rungs)}: all must be below training.steps = {spec.base['training']['steps']}"
        )
    if not spec.space.vary:
        raise ValueError(
            f"{kind}: variants are compared with each other, each at the end of its training; allowed: 'none'"
        )
    changed = [*spec.space.vary, *(key for variant in spec.space.variants.values() for key in variant)]
    if at_rungs := [key for key in changed if key.partition(".")[0] == "rungs"]:
        raise ValueError(f"{kind}, {at_rungs[0]}: differs between trials, so their rungs cannot be compared")
    metrics = [objective.metric for objective in spec.objectives]
    if len(metrics) > 1 and pruning.kind not in SEVERAL:
        raise ValueError(f"{kind}, objective = {metrics}: for several objectives allowed: {', '.join(SEVERAL)}")
    if metrics == ["nfe"]:
        raise ValueError(f"{kind}, objective.metric = 'nfe': is known before the training, and no rung tells more")
    _check_halvings(pruning, rungs)


def rungs_of(spec: StudySpec) -> RungConfig:
    """The rungs of a study's base."""
    return RungConfig.model_validate(spec.base.get("rungs", {}))


def _check_halvings(pruning: PruningConfig, rungs: Sequence[int]) -> None:
    if pruning.kind not in ("successive_halving", "hyperband"):
        return
    if not (deciding := pruning.halvings(rungs)):
        raise ValueError(
            f"pruning.min_resource = {pruning.min_resource}, rungs.steps = {list(rungs)}: no rung is that late, so "
            "nothing would be pruned"
        )
    if idle := [step for step in rungs if step not in deciding]:
        warnings.warn(
            f"rungs.steps = {list(rungs)}: nothing is decided at {', '.join(map(str, idle))}, since "
            f"pruning.reduction_factor = {pruning.reduction_factor} and the first rung give {deciding}",
            stacklevel=3,
        )


def described(spec: StudySpec, num_images: int) -> str:
    """What a study's rungs do, in a line; empty where it has none. num_images: as many as a trial is judged on."""
    rungs, pruning = rungs_of(spec), spec.pruning
    if not rungs.steps:
        return ""
    steps, count = ", ".join(f"{step:,}" for step in rungs.steps), min(rungs.num_images, num_images)
    judged = f"at {steps} steps by {rungs.metric.upper()} on {count:,} images"
    if pruning.kind == "none":
        return f"{judged}; every trial goes on"
    return f"{judged}: {_RULES[pruning.kind].format(pruning, percent=100 / pruning.reduction_factor)}"
