"""The health checks of a study. Each names something that may mislead a reader, and says what to do about it.

To add a check, write a function in its own file under `checks/`, and add a line to `CHECKS`.
"""

from __future__ import annotations

from pathlib import Path

from coldtune.studies.insight.checks.check import Check, HealthCheck
from coldtune.studies.insight.checks.edge_of_range import check_edges
from coldtune.studies.insight.checks.failed_trials import check_failures
from coldtune.studies.insight.checks.few_images import check_images
from coldtune.studies.insight.checks.metrics_disagree import check_metrics_agree
from coldtune.studies.insight.checks.restorer_strength import check_restorer
from coldtune.studies.insight.checks.rung_ranking import check_rungs
from coldtune.studies.insight.checks.settled_search import check_settled
from coldtune.studies.insight.checks.uneven_trainings import check_trainings
from coldtune.studies.insight.facts import StudyFacts, observe
from coldtune.studies.trials.reading import StudyReader

CHECKS: tuple[Check, ...] = (
    check_failures,
    check_restorer,
    check_images,
    check_metrics_agree,
    check_trainings,
    check_rungs,
    check_edges,
    check_settled,
)
"""All checks, in the order in which their findings are shown."""

MEASURE_AGAIN = "Judge the trials that you compare under one protocol with `coldtune evaluate`."


def health_checks(reader: StudyReader, home: Path) -> tuple[HealthCheck, ...]:
    """Return the findings of all checks on a study. A healthy study has no findings.

    Args:
        home: The home of the study, for the commands in the advice.
    """
    return examine(observe(reader, home))


def examine(facts: StudyFacts) -> tuple[HealthCheck, ...]:
    """Return the findings of all checks on facts. Values that cannot be compared are the only finding."""
    if facts.mixed:
        return (HealthCheck("mixed protocols", f"{facts.mixed[:1].upper()}{facts.mixed[1:]}.", MEASURE_AGAIN),)
    return tuple(finding for check in CHECKS for finding in check(facts))
