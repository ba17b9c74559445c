"""The restorer is too weak or too good for a question about samplers."""

from __future__ import annotations

from collections.abc import Iterator

from scipy import stats

from coldtune.metrics import DISTANCES
from coldtune.metrics.registry import higher_is_better, label
from coldtune.studies.insight.checks.check import HealthCheck
from coldtune.studies.insight.facts import SettingFacts, StudyFacts

_BEST = 3  # settings
_LEAST = 5  # settings with another sampler than direct restoration


def check_restorer(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Compare the sampled images with the degraded images, and with direct restoration."""
    metric = facts.objective.metric
    if metric not in DISTANCES or not facts.settings:
        return
    degraded = [_ahead(each, metric, "degraded") for each in facts.ranked()[:_BEST]]
    if degraded and all(ahead is not None and ahead <= 0 for ahead in degraded):
        which = "The best settings" if len(degraded) > 1 else "The only setting"
        verb = "are" if len(degraded) > 1 else "is"
        yield HealthCheck(
            "weak restorer",
            f"{which} {verb} no better than the degraded images by {label(metric)}, so nothing was restored.",
            "Train longer (`training.steps`) or take a larger restorer (`restorer.size`) before you compare settings.",
        )
        return
    direct = [
        ahead
        for each in facts.settings
        if _samples(facts, each) and (ahead := _ahead(each, metric, "direct")) is not None
    ]
    behind = sum(ahead < 0 for ahead in direct)
    if len(direct) >= _LEAST and stats.binomtest(behind, len(direct), 0.5, "greater").pvalue < 0.05:
        yield HealthCheck(
            "strong restorer",
            f"By {label(metric)}, direct restoration is better than the sampler in {behind} of {len(direct)} settings. "
            "The restorer nearly inverts the degradation, and sampling has nothing left to do.",
            "For a question about samplers, make the degradation stronger at t = T, or train for fewer steps.",
        )


def _ahead(setting: SettingFacts, metric: str, images: str) -> float | None:
    """Return by how much the sampled images are better than other images. None if one of them is not known."""
    own, other = setting.spread(metric), setting.spread(f"{metric}_{images}")
    if own is None or other is None:
        return None
    return (own.mean - other.mean) * (1 if higher_is_better(metric) else -1)


def _samples(facts: StudyFacts, setting: SettingFacts) -> bool:
    """Return False if the setting's own sampler is direct restoration."""
    name = next((short for short, path in facts.paths.items() if path == "sampler.algorithm"), "")
    return setting.point.get(name) != "direct"
