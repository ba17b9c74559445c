"""The wall time of a run: which part of it was work, and which part overhead."""

from __future__ import annotations

import time

import pytest

from coldtune.studies.progress.overhead import WallTime
from coldtune.studies.storage.outcome import Rung, StoredStage, TrialOutcome


def test_wall_time_counts_computed_stages_of_a_pruned_trial() -> None:
    stages = (StoredStage("train_50", "k/50", False, 3.0), StoredStage("train_20", "k/20", True, 9.0))
    rung = Rung(50, 100, "kid", {"kid": 0.3}, stages)
    wall_time = WallTime(1, time.monotonic())
    wall_time.progressed(0, {"stage": "train", "step": 50, "steps": 100})
    wall_time.progressed(0, {"stage": "rung", "step": 50, "steps": 100, "rung": rung.to_json()})
    wall_time.pruned(0, 50)
    assert (wall_time.work_s, wall_time.trials) == (3.0, 1), "the other 9 s were found in the store"


def test_wall_time_without_work_is_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials at once for 100 s are 200 s. Two trials worked 60 s each, so 40 % is overhead.

    Each of them also found a stage of 50 s, and a third trial failed. Neither counts as work.
    """
    monkeypatch.setattr(time, "monotonic", lambda: 1100.0)
    wall_time = WallTime(2, 1000.0)
    for number in (0, 1):
        rows = [("train", "k", False, 55.0), ("sample", "k", True, 50.0), ("measure", "k", False, 5.0)]
        wall_time.completed(number, TrialOutcome(stages=tuple(StoredStage(*row) for row in rows)))
    wall_time.failed(2, "boom")
    assert wall_time.overhead_percent() == pytest.approx(40.0)
    assert "2 trials in 1:40, 2 at once: 60 % training" in str(wall_time)
