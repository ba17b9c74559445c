"""A study with its trials, settings and verdicts, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.config import plain
from coldtune.studies.progress.listing import INTERRUPTED, summarize_reader
from coldtune.studies.progress.table import setting_rows
from coldtune.studies.progress.text import STATE_NAMES
from coldtune.studies.progress.verdicts import judge_settings
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.record import StudyRecord, TrialRecord, is_imported
from coldtune.studies.trials.reading import StudyReader


def study_record(reader: StudyReader, folder: StudyFolder, equal_within: float | None = None) -> dict[str, Any]:
    """Return everything that `coldtune study show` knows, with the keys that docs/studies.md explains.

    Args:
        equal_within: A difference of the first objective that does not matter. None takes that of the spec.
    """
    trials = [trial for trial in reader.trials() if trial.state != TrialState.WAITING]
    interrupted = set(reader.interrupted())
    verdicts = judge_settings(reader, equal_within)
    judged = next((record.judged_under for record in map(TrialRecord.of, trials) if record.protocol), None)
    test = StudyRecord.of(reader.study).test
    return {
        **summarize_reader(reader, folder).record(),
        "best_settings" if reader.replicated else "best_trials": [setting.number for setting in reader.front()],
        "protocol": None if judged is None else {**plain(judged), "key": judged.key},
        "test": None
        if test is None
        else {
            "trial": reader.label(test.trial),
            "metrics": dict(test.metrics),
            "each": {reader.label(int(number)): dict(metrics) for number, metrics in test.each.items()},
            "protocol_key": test.judged_under.key,
        },
        "verdicts": list(verdicts.sentences),
        "rivals": list(verdicts.rivals),
        "settings": _settings(reader) if reader.replicated else [],
        "trials_asked": [_trial(reader, trial, interrupted) for trial in trials],
    }


def _settings(reader: StudyReader) -> list[dict[str, Any]]:
    return [
        {
            "number": row.number,
            "state": row.state,
            "params": row.params,
            "metrics": {
                name: {"mean": row.metrics[name], "sd": sd, "trainings": count}
                for name, (sd, count) in row.spreads.items()
            },
            "seconds": row.seconds,
            "note": row.note,
        }
        for row in setting_rows(reader)
    ]


def _trial(reader: StudyReader, trial: FrozenTrial, interrupted: Collection[int]) -> dict[str, Any]:
    record = TrialRecord.of(trial)
    name = reader.label(trial.number)
    setting, _, replicate = name.partition(".")
    state = "imported" if is_imported(trial) else STATE_NAMES[trial.state]
    return {
        "name": name,
        "number": trial.number,
        "setting": int(setting),
        "replicate": int(replicate or 0),
        "state": INTERRUPTED if trial.number in interrupted else state,
        "params": trial.params,
        "metrics": dict(record.metrics),
        "rungs": {str(step): dict(values) for step, values in record.rungs.items()},
        "started": trial.datetime_start,
        "ended": trial.datetime_complete,
        "seconds": record.effort.seconds,
        "reason": record.reason,
        "promoted_from": record.promoted_from,
        "retry_of": record.retry_of,
        "checkpoint": None if record.checkpoint is None else reader.present_address(record.checkpoint),
        "images": {name: reader.present_address(place) for name, place in record.images.items()},
    }
