"""The state of a race in words: for a setting, for a comparison, and for the whole race."""

from __future__ import annotations

from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.reading import StudyReader
from coldtune.verdicts import Judged, Outcome, Verdict


def describe_race(reader: StudyReader) -> str | None:
    """Describe if a race goes on, or why it ended. None if the study has no race, or its judgements are gone."""
    standing = reader.standing()
    if standing is None:
        return None
    done = sum(len(setting.finished) for setting in reader.settings())
    after = f"{done} of at most {len(standing.judged.members) * reader.replicates} trainings"
    left = [name for name in standing.judged.names.values() if name in standing.standing.undecided]
    if reader.race_goes_on():
        return f"The race goes on after {after}. Not decided yet: {', '.join(left) or 'everything'}."
    if not left:
        return f"The race ended after {after}, because every comparison of settings with a mean is decided."
    failed = any(setting.failed for setting in reader.settings())
    why = (
        f"no setting gets more than {reader.replicates} trainings{', failed trainings included' * failed}"
        if standing.standing.over or failed
        else "nothing more can be asked"
    )
    return f"The race ended after {after}, because {why}. Not decided: {', '.join(left)}."


def describe_undecided(verdict: Verdict, most: int) -> str:
    """Describe a comparison that a race has not decided yet. The sentence has no numbers but those of trainings."""
    count = min(verdict.count_a, verdict.count_b)
    return f"{verdict.a} and {verdict.b}: {count} of up to {most} trainings, not decided yet."


def describe_out(judged: Judged) -> list[str]:
    """Return a sentence about the settings that are worse than the best setting, with the trainings that showed it."""
    out = [verdict for verdict in judged.verdicts if verdict.outcome is Outcome.WORSE]
    listed = ", ".join(f"{verdict.a} after {verdict.count_a} trainings" for verdict in out)
    return [f"Worse than the best setting: {listed}."] if out else []


def racing_state(reader: StudyReader, setting: Setting) -> str:
    """Return the state of a setting in a race, for example `4 of up to 10 trainings` or `decided (4 of 10)`.

    A setting is decided if all its comparisons are. At the end of a race, the others are `undecided (10 of 10)`.
    """
    count, most, standing = len(setting.finished), reader.replicates, reader.standing()
    if standing is None or reader.missing(setting):
        return f"{count} of up to {most} trainings"
    if standing.is_decided(setting.number):
        return f"decided ({count} of {most})"
    return f"{count} of up to {most} trainings" if reader.race_goes_on() else f"undecided ({count} of {most})"
