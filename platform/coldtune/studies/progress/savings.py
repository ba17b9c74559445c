"""What pruning saved: steps that no trial trained."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from coldtune.durations import format_work
from coldtune.stages.reuse import describe_saved_work
from coldtune.studies.storage.outcome import StoredStage
from coldtune.studies.storage.record import StoppedTraining, TrialRecord, is_imported
from coldtune.studies.trials.reading import StudyReader


def not_trained(reader: StudyReader) -> str:
    """How many steps of how many trials were not trained because they were pruned; empty where none was.

    A training that several trials share counts once, by how far the one that came furthest took it. The time is that
    of the missing steps at the measured rate of each training up to its rung.
    """
    pruned, trained = 0, dict[str, int]()
    cut: dict[str, StoppedTraining] = {}
    for trial in reader.trials():
        record = TrialRecord.of(trial)
        key, step = _training(record.stages)
        trained[key] = max(step, trained.get(key, 0))
        if trial.state == TrialState.PRUNED and record.training is not None:
            pruned += 1
            cut[key] = record.training
    if not pruned:
        return ""
    missing = {key: training.steps - max(trained[key], training.step) for key, training in cut.items()}
    seconds = sum(missing[key] * training.seconds / training.step for key, training in cut.items())
    steps = sum(missing.values())
    whole = steps + sum(trained.values())
    return (
        f"Pruned {pruned} trial{'s' * (pruned != 1)}: {steps:,} of {whole:,} steps were not trained "
        f"({steps / whole:.0%}), {format_work(seconds)} at the measured rates"
    )


def saved_by(trials: Iterable[FrozenTrial]) -> str:
    """Return a sentence on what a study's own trials found in the store, or "" if they found nothing."""
    efforts = (TrialRecord.of(trial).effort for trial in trials if not is_imported(trial))
    return describe_saved_work((effort.found, effort.saved or 0.0) for effort in efforts)


def _training(stages: Iterable[StoredStage]) -> tuple[str, int]:
    """The key of a trial's training, and how far it came."""
    names = [stage.key.rpartition("/") for stage in stages if stage.stage.partition("_")[0] == "train"]
    return max(((key, int(step)) for key, _, step in names), key=lambda found: found[1], default=("", 0))
