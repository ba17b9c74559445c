"""Settings have unequal numbers of trainings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from coldtune.studies.insight.checks.check import HealthCheck, listed
from coldtune.studies.insight.facts import StudyFacts


def check_trainings(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Find studies that have ended, and whose settings have unequal numbers of trainings without being raced."""
    counts = Counter(len(setting.values) for setting in facts.settings)
    if facts.running or facts.race or not facts.replicated or len(counts) < 2:
        return
    shown = listed([f"{number} with {count}" for count, number in sorted(counts.items())])
    flags = ("--replicates", max(counts), *(["--retry-failed"] if facts.failures else []))
    yield HealthCheck(
        "uneven trainings",
        f"Settings have unequal numbers of trainings: {shown}. A mean of few trainings is more often the best by luck.",
        f"Train all equally often: {facts.command('study resume', flags=flags)}.",
    )
