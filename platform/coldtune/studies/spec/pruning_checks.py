"""Which trials end before their training does: a rule by name, on what they are worth at the rungs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coldtune.stages.trial import RungConfig
from coldtune.studies.search.pruning_config import PruningConfig

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec

_RULES = {
    "successive_halving": "the best {percent:.0f} % of those that came so far go on",
    "hyperband": "the best {percent:.0f} % of those that came so far go on, in brackets that begin at different rungs",
    "median": "what is worse than the median of the finished ends",
    "percentile": "what is not among the best {0.percentile:g} % of the finished ends",
    "wilcoxon": "what is worse than the best trial was, image by image (p < {0.p_value:g}), ends",
}
SEVERAL = ("none", "successive_halving")
"""The kinds that several objectives can have."""


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
