"""The attributes that a study and its trials keep in their Optuna storage."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial

PROMOTED = "promoted_from"
"""The user attribute of a trial that takes a pruned one further: that one's number."""


RUNGS, STAGES = "rungs", "stages"


SPEC, FINGERPRINT, IMPORTED, READY = "spec", "fingerprint", "imported", "ready"
"""The study's user attributes: its spec as JSON, its pixels, what it imported in words, and that all of it is there."""

TRIALS = "trials"
"""Another of them: how many trials there shall be."""

IMPORTED_FROM = "imported_from"
"""The user attribute of an imported trial: {"study": NAME, "trial": NUMBER}."""


def imported(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those of `trials` that came from other studies."""
    return [trial for trial in trials if IMPORTED_FROM in trial.user_attrs]


OWNER = "coldtune:owner"
"""The system attribute of a trial that says which driver runs it (`coldtune.studies.drivers.election`)."""
