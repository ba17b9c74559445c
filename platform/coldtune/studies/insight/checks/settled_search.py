"""A search no longer gains more than its noise."""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.metrics.registry import label
from coldtune.studies.insight.checks.check import HealthCheck
from coldtune.studies.insight.facts import StudyFacts
from coldtune.studies.search.settled import count_late, expected_gain, gain_of_best_five, has_settled, late_gain

_NOTHING = 1e-6  # of the noise: a smaller gain is that of the arithmetic


def check_settled(facts: StudyFacts) -> Iterator[HealthCheck]:
    """Compare the gain of the search with the noise of a setting's mean."""
    if sentence := describe_settled(facts):
        yield HealthCheck(
            "settled search",
            sentence,
            f"{'End the search, and confirm' if facts.running else 'Confirm'} its best settings: "
            f"{facts.command('study resume', flags=('--confirm', 5))}.",
        )


def describe_settled(facts: StudyFacts) -> str:
    """Return the sentence that says why a search has settled. "" if it has not, or if nobody can tell.

    Nobody can tell if the study does not search, has several objectives, too few settings or no known noise.
    """
    losses, noise = facts.means(), facts.noise()
    if not facts.searched or len(facts.objectives) > 1 or noise is None or not has_settled(losses, noise[0]):
        return ""
    name, (sd, source), gain = label(facts.objective.metric), noise, late_gain(losses)

    def written(value: float) -> str:
        return f"{value:.2g}" if abs(value) > _NOTHING * sd else "0"

    gained = f"improved the best {name} by {gain:.2g}" if gain > 0 else f"did not improve the best {name}"
    late, five, random = count_late(len(losses)), gain_of_best_five(losses), expected_gain(losses)
    return (
        f"The last {late:,} of {len(losses):,} settings {gained}. Their five best are better than the five best before "
        f"by {written(five)}, on average. A random half of all settings would gain {written(random)}. The noise of a "
        f"setting (sd {source}) is {sd:.2g}."
    )
