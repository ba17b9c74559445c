"""Tests of the metrics that a run receives first, with a real SQLite store, whose metrics keep the order of arrival."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from coldtune.tracking import Drainer, Target, Tracker, drain, first_metrics, pending

FINAL = {"sampled/fid": 1.5, "direct/fid": 2.5}


def trial_run(target: Target, study: str) -> Run:
    """Return the run of the study's only trial."""
    wanted = f"tags.`coldtune.study` = '{study}' and tags.`coldtune.kind` = 'trial'"
    (run,) = MlflowClient(target.uri).search_runs([target.experiment_id], wanted)
    return run


def train(trial: Tracker, steps: int) -> None:
    """Record what a training records while it runs."""
    trial.params({"lr": 0.1})
    for step in range(steps):
        trial.metrics({"train/loss": 1.0 / (step + 1)}, step)
        trial.metrics({"system/cpu_utilization_percentage": 50.0}, step)


def wait_until(delivered: Path, target: Target, left: int) -> None:
    """Wait until at most `left` bytes are not delivered."""
    deadline = time.monotonic() + 300
    while pending(delivered, target) > left:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def waiting(target: Target, spool_dir: Path, study: str) -> tuple[Drainer, Tracker]:
    """Return a drainer that lets losses wait, and a trial of which everything but its losses is delivered."""
    Tracker(spool_dir, study).close()
    trial = Tracker(spool_dir, study, 0)
    trial.params({"lr": 0.1})
    drainer = Drainer(spool_dir, target, interval=0.02, wait=True)
    wait_until(spool_dir, target, 0)
    return drainer, trial


@pytest.mark.parametrize("steps", [3, 300])  # 600 records are more than a single read of the journal
def test_drain_short_training_begins_with_the_objective(
    target: Target, spool_dir: Path, study: str, steps: int
) -> None:
    Tracker(spool_dir, study).close()
    trial = Tracker(spool_dir, study, 0)
    train(trial, steps)
    trial.metrics(FINAL)
    trial.metrics({"seconds/total": 7.0})
    trial.end("finished")
    drain(spool_dir, target)
    run = trial_run(target, study)
    assert list(run.data.metrics)[:2] == list(FINAL)
    assert set(run.data.metrics) == {*FINAL, "train/loss", "system/cpu_utilization_percentage", "seconds/total"}
    history = MlflowClient(target.uri).get_metric_history(run.info.run_id, "train/loss")
    assert [(row.step, row.value) for row in history] == [(step, 1.0 / (step + 1)) for step in range(steps)]
    assert len(MlflowClient(target.uri).get_metric_history(run.info.run_id, "sampled/fid")) == 1


def test_drainer_losses_wait_for_the_values(
    waiting: tuple[Drainer, Tracker], target: Target, spool_dir: Path, study: str
) -> None:
    drainer, trial = waiting
    train(trial, 3)
    losses = pending(spool_dir, target)
    time.sleep(0.5)  # many passes of the drainer
    assert pending(spool_dir, target) == losses
    assert trial_run(target, study).data.metrics == {}
    trial.metrics(FINAL)
    wait_until(spool_dir, target, 0)
    assert list(trial_run(target, study).data.metrics) == [*FINAL, "train/loss", "system/cpu_utilization_percentage"]
    drainer.close()


def test_drainer_long_training_shows_its_losses(
    waiting: tuple[Drainer, Tracker], target: Target, spool_dir: Path, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drainer, trial = waiting
    monkeypatch.setattr(first_metrics, "WAIT_MS", 300)
    train(trial, 3)
    wait_until(spool_dir, target, 0)  # without another record and without a flush
    assert trial_run(target, study).data.metrics["train/loss"] == pytest.approx(1 / 3)
    drainer.close()


@pytest.mark.parametrize("end", ["failed", "flush"])
def test_drainer_losses_of_a_trial_that_ends_do_not_wait(
    waiting: tuple[Drainer, Tracker], target: Target, spool_dir: Path, study: str, end: str
) -> None:
    drainer, trial = waiting
    train(trial, 3)
    if end == "failed":
        trial.end("failed", "out of memory")
        wait_until(spool_dir, target, 0)
    else:
        assert drainer.flush(300)
    assert "train/loss" in trial_run(target, study).data.metrics
    drainer.close()


def test_drainer_losses_of_a_clock_that_is_ahead_do_not_wait(
    waiting: tuple[Drainer, Tracker], target: Target, spool_dir: Path, study: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drainer, trial = waiting
    monkeypatch.setattr("coldtune.tracking.tracker.now", lambda: time.time_ns() // 1_000_000 + 3_600_000)
    train(trial, 1)
    wait_until(spool_dir, target, 0)
    assert "train/loss" in trial_run(target, study).data.metrics
    drainer.close()
