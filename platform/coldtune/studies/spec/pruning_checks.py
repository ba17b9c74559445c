"""Checks and a description of a study's pruning, which need the whole spec."""

from __future__ import annotations

import warnings

from coldtune.stages.trial import RungConfig
from coldtune.studies.search.pruning_config import RULES
from coldtune.studies.spec.study import StudySpec


def check_pruning(spec: StudySpec) -> None:
    """Raise ValueError if the study's pruning cannot work. Warn about keys without effect.

    The message names the keys.
    """
    pruning, rule, kind = spec.pruning, spec.pruning.rule(), f"pruning.kind = {spec.pruning.kind!r}"
    if pruning.kind == "none":
        if ignored := pruning.ignored_keys():
            warnings.warn(f"pruning.{ignored[0]}: has no effect with {kind}", stacklevel=2)
        return
    rungs, steps = rungs_of(spec).steps, spec.base["training"]["steps"]
    if not rungs:
        raise ValueError(
            f"{kind}, rungs.steps = []: trials are pruned at rungs. Set their steps, for example "
            f"rungs.steps=[{max(steps // 4, 1)}, {steps // 2}]."
        )
    if rungs[-1] >= steps:
        raise ValueError(f"{kind}, rungs.steps = {list(rungs)}: all must be below training.steps = {steps}")
    if not spec.space.vary:
        raise ValueError(
            f"{kind}: variants are compared with each other at the end of their training, so none may end early; "
            "allowed: 'none'"
        )
    changed = [*spec.space.vary, *(key for variant in spec.space.variants.values() for key in variant)]
    if at_rungs := [key for key in changed if key.partition(".")[0] == "rungs"]:
        raise ValueError(f"{kind}, {at_rungs[0]}: differs between trials, so their rungs cannot be compared")
    metrics = [objective.metric for objective in spec.objectives]
    if len(metrics) > 1 and not rule.several_objectives:
        allowed = ", ".join(name for name, cls in RULES.items() if cls.several_objectives)
        raise ValueError(f"{kind}, objective = {metrics}: several objectives allow only {allowed}")
    if metrics == ["nfe"]:
        raise ValueError(f"{kind}, objective.metric = 'nfe': is known before the training, so rungs add nothing")
    rule.check(rungs)


def rungs_of(spec: StudySpec) -> RungConfig:
    """Return the rungs of the study's base."""
    return RungConfig.model_validate(spec.base.get("rungs", {}))


def describe_rungs(spec: StudySpec, num_images: int) -> str:
    """Describe in a line what happens at the study's rungs. Empty if the study has no rungs.

    Args:
        num_images: The number of images on which a finished trial is judged.
    """
    rungs = rungs_of(spec)
    if not rungs.steps:
        return ""
    steps, count = ", ".join(f"{step:,}" for step in rungs.steps), min(rungs.num_images, num_images)
    judged = f"at {steps} steps by {rungs.metric.upper()} on {count:,} images"
    separator = ";" if spec.pruning.kind == "none" else ":"
    return f"{judged}{separator} {spec.pruning.rule().describe()}"
