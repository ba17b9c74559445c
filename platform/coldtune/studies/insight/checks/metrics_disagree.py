"""Another distance orders the two best settings the other way."""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.metrics import DISTANCES
from coldtune.metrics.registry import higher_is_better, label
from coldtune.studies.insight.checks.check import HealthCheck
from coldtune.studies.insight.facts import SettingFacts, StudyFacts
from coldtune.verdicts.levels import LEAST

_COMPARED = ("fid", "kid", "mind")
"""Distances between whole sets of images. SSIM and RMSE prefer blurred images, and precision and recall are halves."""


def check_metrics_agree(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Find distances that order the two best settings otherwise than the objective does, by more than their noise."""
    objective = facts.objective.metric
    if len(facts.objectives) > 1 or objective not in DISTANCES or len(facts.settings) < 2:
        return
    best, second = facts.ranked()[:2]
    for metric in _COMPARED:
        a, b = (_interval(each, metric) for each in (best, second))
        if metric == objective or a is None or b is None:
            continue
        better = b[0] > a[1] if higher_is_better(metric) else b[1] < a[0]
        if not better:
            continue
        values = [each.spread(metric) for each in (best, second)]
        shown = " and ".join(f"{each.mean:.3g}" for each in values if each is not None)
        names = [f"{facts.what} {each.number}" for each in (best, second)]
        said = f"{label(objective)} prefers {names[0]} to {names[1]}, but {label(metric)} the other way ({shown})."
        if any(each is not None and each.n < LEAST for each in values):
            said = (
                f"{label(objective)} ranks the networks of {names[0]} before those of {names[1]}, and {label(metric)} "
                f"after them ({shown}). With so few trainings, this says nothing about other trainings."
            )
        yield HealthCheck(
            "metrics disagree",
            said,
            "Look at the images of both, and say by which metric you chose. Judge more images "
            "(`--set protocol.num_images=N`) if the split has more.",
        )


def _interval(setting: SettingFacts, metric: str) -> tuple[float, float] | None:
    """Return the interval of a metric: over trainings if there are at least three, and else that over images."""
    spread = setting.spread(metric)
    if spread is None:
        return None
    if spread.n >= LEAST and spread.error is not None:
        return spread.mean - 2 * spread.error, spread.mean + 2 * spread.error
    low, high = setting.spread(f"{metric}_low"), setting.spread(f"{metric}_high")
    return None if low is None or high is None else (low.mean, high.mean)
