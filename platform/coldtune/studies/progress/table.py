"""A study's trials as rows of its table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.config import parse
from coldtune.metrics.protocol import Protocol
from coldtune.reports.tables import COLUMNS, Column, TrialRow
from coldtune.studies.progress.text import _upper
from coldtune.studies.storage.record import IMPORTED_FROM, PROMOTED
from coldtune.studies.trials.ledger import Ledger

_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


def rows(ledger: Ledger) -> list[TrialRow]:
    """A study's trials as rows of the table."""
    interrupted = set(ledger.interrupted())
    return [_row(trial, interrupted) for trial in ledger.trials() if trial.state != TrialState.WAITING]


def _row(trial: FrozenTrial, interrupted: Collection[int]) -> TrialRow:
    attributes = trial.user_attrs
    metrics = dict(attributes.get("metrics", {}))
    if "fid" in metrics:
        metrics["fid_sampled"] = metrics["fid"]
        metrics["fid_reach"] = metrics["fid_high"] - metrics["fid"] if "fid_high" in metrics else None
    protocol = attributes.get("protocol")
    return TrialRow(
        number=trial.number,
        state=_state(trial, interrupted),
        params=trial.params,
        metrics=metrics,
        seconds=attributes.get("seconds"),
        note=_note(trial),
        train=_trained(attributes),
        saved=attributes.get("saved"),
        protocol=parse(Protocol, protocol) if protocol else None,
    )


def _trained(attributes: Mapping[str, Any]) -> float | str | None:
    """Seconds of a trial's own training, or that it was found."""
    seconds: float | None = attributes.get("trained")
    return "found" if seconds is None and attributes.get("found", {}).get("train") else seconds


def _note(trial: FrozenTrial) -> str:
    """Why it failed, where it was pruned, what it was promoted from."""
    reason = str(trial.user_attrs.get("reason", ""))
    if (before := trial.user_attrs.get(PROMOTED)) is not None:
        return f"promoted from trial {before}" + (f"; {reason}" if reason else "")
    return reason


def _state(trial: FrozenTrial, interrupted: Collection[int]) -> str:
    if IMPORTED_FROM in trial.user_attrs:
        return "imported"
    return "interrupted" if trial.number in interrupted else _STATES[trial.state]


def _columns(ledger: Ledger) -> Sequence[Column]:
    """The table's columns, with the objectives' where they are other ones."""
    metrics = [objective.metric for objective in ledger.spec.objectives]
    others = [metric for metric in metrics if metric not in ("fid", "ssim", "rmse", "nfe")]
    return [*COLUMNS[:-1], *(Column(metric, ("", _upper(metric)), 3) for metric in others), COLUMNS[-1]]


def _best_numbers(ledger: Ledger) -> list[int]:
    """The best trial's number; of several objectives, those of the front."""
    return [trial.number for trial in ledger.front()]
