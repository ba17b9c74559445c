"""Checks of a race, before anything is spent."""

from __future__ import annotations

from coldtune.metrics import DISTANCES, IMAGE_SCORES
from coldtune.studies.spec.study import StudySpec

MOST_TRAININGS = 600
"""The most trainings on which verdicts are given. More would take minutes to judge."""


def check_race(spec: StudySpec, settings: int | None, trials: int, replicates: int | None) -> None:
    """Raise ValueError if a study cannot race. A study with a fixed number of trainings is always allowed.

    Args:
        settings: The number of variants, arms or points of a grid. None for a search.
        trials: The settings that the study asks.
        replicates: The number of `--replicates`, or None.
    """
    if spec.race is None:
        return
    race, metric = f"replicates = {spec.race.written}", spec.objective.metric
    if replicates is not None:
        raise ValueError(
            f"--replicates {replicates}: this study races ({race}), and a race gets no other number of trainings. "
            "Leave the flag out, or write a number into the space and run it as another study with --study NAME."
        )
    fixed = f"Write a number, for example `replicates: {spec.race.most}`."
    if spec.table is not None:
        raise ValueError(f"{race}: a table of the paper compares its own pairs of cells, so it cannot race. {fixed}")
    if spec.ablation is not None:
        raise ValueError(
            f"{race}: a race stops by comparisons with the base and with the best setting, and not by the steps of an "
            f"ablation. Take --replicates {spec.race.most}."
        )
    if settings is None:
        raise ValueError(
            f"{race}: a race shares its error among comparisons that are known before the first training, and a search "
            "chooses its settings on the way. Race a list (variants, a design or search.algorithm=grid), or confirm "
            f"the best of a search with --confirm. {fixed}"
        )
    if settings < 2:
        raise ValueError(f"{race}: there is a single setting, so nothing can be compared. {fixed}")
    if trials < settings:
        raise ValueError(f"--trials {trials}: a race compares all {settings:,} settings of its list. Leave it out.")
    if settings * spec.race.most > MOST_TRAININGS:
        raise ValueError(
            f"{race}: {settings:,} settings may need {settings * spec.race.most:,} trainings, and verdicts are given "
            f"on up to {MOST_TRAININGS}. Take fewer settings, or a smaller most."
        )
    if len(spec.objectives) > 1:
        listed = ", ".join(objective.metric for objective in spec.objectives)
        raise ValueError(f"{race}: a race is decided by one objective, but there are {listed}. {fixed}")
    allowed = [*DISTANCES, *IMAGE_SCORES]
    if metric not in allowed:
        raise ValueError(
            f"{race}, objective.metric = {metric!r}: has no numbers for each image, so a race cannot be decided by it; "
            f"allowed: {', '.join(allowed)}"
        )
    if spec.pruning.kind != "none":
        raise ValueError(
            f"{race}, pruning.kind = {spec.pruning.kind!r}: a pruned setting has no mean, so it has no verdict. A race "
            "drops settings by itself. Leave pruning out."
        )
    if spec.imports:
        raise ValueError(
            f"{race}, --import {spec.imports[0]}: a race trains all its settings itself, and finds finished trainings "
            "in the store. Leave --import out."
        )
