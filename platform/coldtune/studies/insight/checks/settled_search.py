"""A search no longer gains more than its noise."""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.metrics.registry import label
from coldtune.studies.insight.checks.check import HealthCheck
from coldtune.studies.insight.facts import StudyFacts

LEAST = 20
"""The settings that a search must have before it can have settled."""

_LAST = 1 / 3  # of the settings


def check_settled(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Compare the gain of the last third of the settings with the noise of a setting's mean."""
    gain, noise = last_gain(facts), facts.noise()
    if gain is None or noise is None or gain[0] > noise[0]:
        return
    name, (sd, source) = label(facts.objectives[0].metric), noise
    gained = f"improved the best {name} by {gain[0]:.2g}" if gain[0] > 0 else f"did not improve the best {name}"
    yield HealthCheck(
        "settled search",
        f"The last {gain[1]} of {len(facts.settings)} settings {gained}. "
        f"The noise of a setting (sd {source}) is {sd:.2g}.",
        f"End the search, and confirm its best settings: {facts.command('study resume', flags=('--confirm', 5))}.",
    )


def last_gain(facts: StudyFacts) -> tuple[float, int] | None:
    """Return by how much the last third of the settings improved the best mean, and how many settings these are.

    None if the study does not search, has several objectives, or has too few settings.
    """
    if not facts.searched or len(facts.objectives) > 1 or len(facts.settings) < LEAST:
        return None
    losses, count = facts.means(), int(_LAST * len(facts.settings))
    return max(min(losses[:-count]) - min(losses), 0.0), count
