"""Checks of `--stop-when-settled`, before anything is spent."""

from __future__ import annotations

from coldtune.metrics import DISTANCES, IMAGE_SCORES
from coldtune.studies.search.settled import LEAST
from coldtune.studies.spec.study import StudySpec


def check_stop_when_settled(spec: StudySpec, listed: bool, trials: int) -> None:
    """Raise ValueError if a study could never stop because its search has settled.

    Args:
        listed: Whether the study asks a list of variants, or the points of a grid.
        trials: The settings that the study asks.
    """
    flag, metric = "--stop-when-settled", spec.objective.metric
    if listed:
        raise ValueError(
            f"{flag}: this study asks a fixed list of settings (variants, a design, a table or a grid) and searches "
            "nothing, so it cannot settle. Leave the flag out."
        )
    if len(spec.objectives) > 1:
        listed_metrics = ", ".join(objective.metric for objective in spec.objectives)
        raise ValueError(
            f"{flag}: needs a single objective, because there is no best setting for {listed_metrics}. "
            "Leave the flag out."
        )
    if metric not in (*DISTANCES, *IMAGE_SCORES):
        raise ValueError(
            f"{flag}, objective.metric = {metric!r}: has no noise with which a gain could be compared; "
            f"allowed: {', '.join((*DISTANCES, *IMAGE_SCORES))}"
        )
    if trials <= LEAST and not spec.imports:
        raise ValueError(
            f"{flag}, --trials {trials}: a search is judged from {LEAST} finished settings on, so it could never stop. "
            f"Ask for more than {LEAST}, or leave the flag out."
        )
