"""A considerable share of the trials failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from coldtune.studies.insight.checks.check import HealthCheck
from coldtune.studies.insight.facts import StudyFacts

_SHARE = 0.1
_LEAST = 2  # a single failure is no pattern


def check_failures(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Find studies with at least a tenth of failed trials that were not asked again."""
    failed = len(facts.failures)
    if failed < _LEAST or failed < _SHARE * facts.ended:
        return
    reason, count = Counter(facts.failures).most_common(1)[0]
    yield HealthCheck(
        "failed trials",
        f"{failed} of {facts.ended} trials failed, {count} of them with: {reason.rstrip('.') or 'no reason known'}.",
        "The results leave out settings that fail, so the space looks better than it is. Narrow it, or after a repair "
        f"ask the trials again: {facts.command('study resume', flags=('--retry-failed',))}.",
    )
