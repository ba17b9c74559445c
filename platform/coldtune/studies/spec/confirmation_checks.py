"""Checks of `--confirm`, before anything is spent."""

from __future__ import annotations

from coldtune.studies.spec.replicates import MOST_REPLICATES
from coldtune.studies.spec.study import StudySpec
from coldtune.verdicts import LEAST


def can_confirm(spec: StudySpec) -> bool:
    """Return True if a study is a search with a winner, so that it can be confirmed."""
    return bool(spec.space.vary) and len(spec.objectives) == 1


def check_confirm(spec: StudySpec, confirm: int) -> None:
    """Raise ValueError if a study cannot be confirmed by `confirm` trainings of each setting. 0 is always allowed."""
    if confirm == 0:
        return
    if not LEAST <= confirm <= MOST_REPLICATES:
        raise ValueError(
            f"--confirm {confirm}: allowed: {LEAST} to {MOST_REPLICATES:,} trainings, because fewer give no verdict on "
            "settings. 0 turns the confirmation off."
        )
    if not spec.space.vary:
        raise ValueError(
            f"--confirm {confirm}: this study tries a list and searches nothing. --replicates {confirm} trains each "
            "setting of the list several times."
        )
    if len(spec.objectives) > 1:
        raise ValueError(
            f"--confirm {confirm}: needs a single objective, but the study has {len(spec.objectives)}, so no setting "
            "is the winner. Leave it out."
        )
