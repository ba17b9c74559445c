"""What pruning saved: steps that no trial trained."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

from coldtune.durations import format_work
from coldtune.studies.storage.record import STAGES
from coldtune.studies.trials.ledger import Ledger


def not_trained(ledger: Ledger) -> str:
    """How many steps of how many trials were not trained because they were pruned; empty where none was.

    A training that several trials share counts once, by how far the one that came furthest took it. The time is that
    of the missing steps at the measured rate of each training up to its rung.
    """
    pruned, trained = 0, dict[str, int]()
    cut: dict[str, dict[str, Any]] = {}
    for trial in ledger.trials():
        key, step = _training(trial.user_attrs.get(STAGES, ()))
        trained[key] = max(step, trained.get(key, 0))
        if trial.state == TrialState.PRUNED:
            pruned += 1
            cut[key] = trial.user_attrs["training"]
    if not pruned:
        return ""
    missing = {key: training["steps"] - max(trained[key], training["step"]) for key, training in cut.items()}
    seconds = sum(missing[key] * training["seconds"] / training["step"] for key, training in cut.items())
    steps = sum(missing.values())
    whole = steps + sum(trained.values())
    return (
        f"Pruned {pruned} trial{'s' * (pruned != 1)}: {steps:,} of {whole:,} steps were not trained "
        f"({steps / whole:.0%}), {format_work(seconds)} at the measured rates"
    )


def _training(stages: Any) -> tuple[str, int]:
    """The key of a trial's training, and how far it came."""
    names = [str(key).rpartition("/") for stage, key, *_ in stages if str(stage).partition("_")[0] == "train"]
    return max(((key, int(step)) for key, _, step in names), key=lambda found: found[1], default=("", 0))
