"""Continuing a pruned trial to its end."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.storage.record import TrialRecord, attributes_of_promoted, promoted_from
from coldtune.studies.trials.reading import StudyReader


def promote(reader: StudyReader, number: int, resume: str = "coldtune study resume STUDY") -> int:
    """Enqueue a new trial at the point of a pruned trial, and return its number.

    The new trial is asked next and is not pruned. It finds the training of the pruned trial in the store. With
    replicates, a setting is promoted: the new setting has the same seeds, and finds all their trainings in the store.

    Args:
        number: The number of the trial, or of the setting.
        resume: The command that resumes the study. A failed trial cannot be promoted, and the error says that this
            command with `--retry-failed` asks it again.

    Raises:
        ValueError: If the trial was not pruned, or is promoted already.
    """
    if reader.replicated:
        return _promote_setting(reader, number)
    trials = {trial.number: trial for trial in reader.trials()}
    if number not in trials or trials[number].state != TrialState.PRUNED:
        pruned = ", ".join(str(n) for n, trial in trials.items() if trial.state == TrialState.PRUNED) or "none"
        state = trials[number].state.name.lower() if number in trials else "not there"
        if number in trials and trials[number].state == TrialState.FAIL:
            raise ValueError(_how_to_retry(reader, trials[number], resume))
        raise ValueError(f"trial {number}: is {state}; only a pruned trial is promoted (there are: {pruned})")
    if again := [n for n, trial in trials.items() if promoted_from(trial) == number]:
        raise ValueError(f"trial {number}: is promoted already, as trial {again[0]}")
    reader.study.enqueue_trial(trials[number].params, user_attrs=attributes_of_promoted(number))
    return next(trial.number for trial in reversed(reader.trials()) if promoted_from(trial) == number)


def _promote_setting(reader: StudyReader, number: int) -> int:
    settings = {setting.number: setting for setting in reader.settings() if setting.asked}
    if number not in settings or not settings[number].pruned:
        pruned = ", ".join(str(setting.number) for setting in settings.values() if setting.pruned) or "none"
        state = "was not pruned" if number in settings else "is not there"
        raise ValueError(f"setting {number}: {state}; only a pruned setting is promoted (there are: {pruned})")
    chosen = settings[number]
    if again := [other.number for other in reader.settings() if other.promoted_from == chosen.first.number]:
        raise ValueError(f"setting {number}: is promoted already, as setting {again[0]}")
    reader.study.enqueue_trial(dict(chosen.point), user_attrs=attributes_of_promoted(chosen.first.number))
    return next(other.number for other in reader.settings() if other.promoted_from == chosen.first.number)


def _how_to_retry(reader: StudyReader, failed: FrozenTrial, resume: str) -> str:
    """Return a sentence that says why a failed trial cannot be promoted, and how it is asked again."""
    reason = (TrialRecord.of(failed).reason.splitlines() or ["no reason known"])[0][:200]
    if (again := reader.retried().get(failed.number)) is not None:
        how = f"it is asked again already, as trial {again}"
    else:
        how = f"`{resume} --retry-failed` asks it again"
    return f"trial {failed.number}: failed ({reason}); only a pruned trial is promoted, and {how}"


def queued_promotions(reader: StudyReader) -> int:
    """Return how many promoted trials wait to be asked."""
    return sum(t.state == TrialState.WAITING and promoted_from(t) is not None for t in reader.trials())
