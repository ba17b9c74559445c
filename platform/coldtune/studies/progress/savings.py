"""The work that a study saved: steps that pruned trials did not train, and stages that trials found in the store."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from coldtune.durations import format_work
from coldtune.stages.reuse import describe_saved_work
from coldtune.studies.storage.outcome import StoredStage
from coldtune.studies.storage.record import StoppedTraining, TrialRecord, is_imported
from coldtune.studies.trials.reading import StudyReader


def describe_untrained_steps(reader: StudyReader) -> str:
    """Describe the training steps that pruning saved. Return "" if no trial was pruned.

    Trials with the same training key share a training. It counts once, up to the furthest step that any trial reached,
    which may be a longer training than that of the pruned trial. Imported trials saved the work of another study. The
    saved time is estimated from the seconds per step of the pruned training, up to its rung.
    """
    pruned, trained = 0, dict[str, int]()
    stopped: dict[str, StoppedTraining] = {}
    for trial in reader.trials():
        if is_imported(trial):
            continue
        record = TrialRecord.of(trial)
        key, step = _training(record.stages)
        trained[key] = max(step, trained.get(key, 0))
        if trial.state == TrialState.PRUNED and record.training is not None:
            pruned += 1
            known = stopped.get(key)
            stopped[key] = record.training if known is None or record.training.steps > known.steps else known
    if not pruned:
        return ""
    missing = {key: max(each.steps - max(trained[key], each.step), 0) for key, each in stopped.items()}
    seconds = sum(missing[key] * training.seconds / training.step for key, training in stopped.items())
    steps = sum(missing.values())
    whole = steps + sum(trained.values())
    return (
        f"Pruned {pruned} trial{'s' * (pruned != 1)}: {steps:,} of {whole:,} steps were not trained "
        f"({steps / whole:.0%}), {format_work(seconds)} at the measured rates"
    )


def describe_reuse(trials: Iterable[FrozenTrial]) -> str:
    """Describe the work that a study's own trials found in the store. Return "" if they found none."""
    efforts = (TrialRecord.of(trial).effort for trial in trials if not is_imported(trial))
    return describe_saved_work((effort.found, effort.saved or 0.0) for effort in efforts)


def _training(stages: Iterable[StoredStage]) -> tuple[str, int]:
    """Return the key of a trial's training and the last step that it reached, or ("", 0) if it trained nothing."""
    names = [stage.key.rpartition("/") for stage in stages if stage.stage.partition("_")[0] == "train"]
    return max(((key, int(step)) for key, _, step in names), key=lambda training: training[1], default=("", 0))
