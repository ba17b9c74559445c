"""A distance was measured on fewer images than it needs to rank close settings."""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.metrics import DISTANCES, check_objective
from coldtune.metrics.registry import label
from coldtune.studies.insight.checks.check import HealthCheck, listed
from coldtune.studies.insight.facts import StudyFacts


def check_images(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Find distances with too few images. Before a study starts, only its objectives are checked."""
    if facts.protocol is None or not facts.settings:
        return
    measured = {metric for setting in facts.settings for each in setting.metrics for metric in each}
    short = [metric for metric in DISTANCES if metric in measured and _is_short(facts, metric)]
    if not short:
        return
    judged, reference = facts.protocol.num_images, facts.protocol.reference_images
    if judged <= reference:
        few, more = f"Only N = {judged:,} images were judged", "Judge at least {:,} images"
    else:
        few = f"Only {reference:,} reference images were there to compare with"
        hint = " (`protocol.reference=train` may have more)" * (facts.protocol.reference != "train")
        more = f"Compare with at least {{:,}} images{hint}"
    names = listed([label(metric) for metric in short])
    least = max(DISTANCES[metric].images_per_dim for metric in short) * facts.protocol.dim
    yield HealthCheck(
        "few images",
        f"{few}, fewer than 4 d = {least:,} (d = {facts.protocol.dim}). So {names} can "
        "rank the over-smoothed of two close settings first.",
        f"Do not rank close settings by {names}. {more.format(least)}, or take an extractor with smaller d.",
    )


def _is_short(facts: StudyFacts, metric: str) -> bool:
    assert facts.protocol is not None
    try:
        check_objective(facts.protocol, metric)
    except ValueError:
        return True
    return False
