"""A study's trials as rows of its table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optuna.trial import FrozenTrial, TrialState

from coldtune.reports.tables import COLUMNS, Column, TrialRow
from coldtune.studies.progress.text import _upper
from coldtune.studies.storage.outcome import Effort
from coldtune.studies.storage.record import TrialRecord, is_imported
from coldtune.studies.trials.reading import StudyReader

_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def rows(reader: StudyReader) -> list[TrialRow]:
    """A study's trials as rows of the table."""
    interrupted = set(reader.interrupted())
    return [_row(trial, interrupted) for trial in reader.trials() if trial.state != TrialState.WAITING]


def _row(trial: FrozenTrial, interrupted: Collection[int]) -> TrialRow:
    record = TrialRecord.of(trial)
    metrics: dict[str, float | None] = dict(record.metrics)
    if "fid" in record.metrics:
        metrics["fid_sampled"] = record.metrics["fid"]
        high = record.metrics.get("fid_high")
        metrics["fid_reach"] = None if high is None else high - record.metrics["fid"]
    return TrialRow(
        number=trial.number,
        state=_state(trial, interrupted),
        params=trial.params,
        metrics=metrics,
        seconds=record.effort.seconds,
        note=_note(record),
        train=_trained(record.effort),
        saved=record.effort.saved,
        protocol=record.judged_under,
    )


def _trained(effort: Effort) -> float | str | None:
    """Return the seconds of a trial's own training, or "found"."""
    return "found" if effort.trained is None and effort.found.get("train") else effort.trained


def _note(record: TrialRecord) -> str:
    """Return why a trial failed, where it was pruned, and which trial it continues."""
    if record.promoted_from is not None:
        return f"promoted from trial {record.promoted_from}" + (f"; {record.reason}" if record.reason else "")
    return record.reason


def _state(trial: FrozenTrial, interrupted: Collection[int]) -> str:
    if is_imported(trial):
        return "imported"
    return "interrupted" if trial.number in interrupted else _STATES[trial.state]


def _columns(reader: StudyReader) -> Sequence[Column]:
    """The table's columns, with the objectives' where they are other ones."""
    metrics = [objective.metric for objective in reader.spec.objectives]
    others = [metric for metric in metrics if metric not in ("fid", "ssim", "rmse", "nfe")]
    return [*COLUMNS[:-1], *(Column(metric, ("", _upper(metric)), 3) for metric in others), COLUMNS[-1]]


def _best_numbers(reader: StudyReader) -> list[int]:
    """The best trial's number; of several objectives, those of the front."""
    return [trial.number for trial in reader.front()]
