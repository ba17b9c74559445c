"""The metrics that a run receives first. MLflow's *Compare* opens with the first metric that all runs have.

A trial knows its losses before its FID. So the losses of a short training wait until the trial has its values, which
are then sent first. The losses of a longer training are shown while it runs, and its run begins with them.
"""

from __future__ import annotations

from collections.abc import Callable

from coldtune.tracking.spool import Record, Spool, has_form, now

WAIT_MS = 60_000
"""How long the first loss of a run waits for the trial's values, in milliseconds."""

_WHILE_RUNNING = ("train/", "system/")
"""The sections of the metrics that a trial records while it runs."""

_READ = 50  # records at a time, because the first metrics are near the beginning of a journal


def waits_for_values(spool: Spool, offset: int) -> bool:
    """Return True while the metrics from byte `offset` on wait for the values of the trial.

    They wait for at most `WAIT_MS` after the first metric of the run. They do not wait if the run has ended.
    """
    if _find(spool, offset, lambda record: has_values(record) or record["op"] == "end") is not None:
        return False
    first = _find(spool, 0, _is_metrics)
    # Metrics from a node whose clock is ahead do not wait, because they could wait for hours.
    return first is not None and 0 <= now() - first[0]["time"] < WAIT_MS


def first_values(spool: Spool, offset: int) -> Record | None:
    """Return the record with the values of the trial, if it has to be sent before the records from byte `offset` on.

    None if the trial has no values yet, or if metrics before `offset` were delivered.
    """
    first = _find(spool, 0, _is_metrics)
    if first is None or first[1] <= offset:
        return None
    values = _find(spool, offset, has_values)
    return None if values is None else values[0]


def has_values(record: Record) -> bool:
    """Return True if a record has values of the finished trial, and not only metrics from while the trial ran."""
    return _is_metrics(record) and not all(key.startswith(_WHILE_RUNNING) for key in record["values"])


def _is_metrics(record: Record) -> bool:
    return record["op"] == "metrics" and has_form(record)


def _find(spool: Spool, offset: int, matches: Callable[[Record], bool]) -> tuple[Record, int] | None:
    """Return the first record from byte `offset` on that matches, with the offset after it."""
    while True:
        records, offset = spool.read(offset, _READ)
        if not records:
            return None
        if (found := next((item for item in records if matches(item[0])), None)) is not None:
            return found
