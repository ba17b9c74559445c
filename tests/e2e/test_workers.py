"""A sweep with `--workers 2`, whose trials train over Ray Train on exactly the two CPUs that a trial needs."""

from __future__ import annotations

import contextlib

import pytest
from e2e_lab import Lab, Runs, dashboard_of, flags, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]


def test_sweep_with_two_workers_trains_over_ray_train(lab: Lab) -> None:
    home = lab.path / "home"
    settings = {"training.steps": 20, "training.checkpoint_every": 10, "training.validate_every": 20}
    run = lab.sweep(home, "--trials", "2", "--workers", "2", *flags(**settings))
    run.until("the dashboard", lambda: dashboard_of(run.text))
    study = run.until("the study", lambda: study_of(home))
    wanted = f"{study.study_name}-trial-1"

    def train_runs() -> list[str]:
        with contextlib.suppress(OSError):  # the dashboard has no list before the first training starts
            listed = lab.get(dashboard_of(run.text), "/api/train/v2/runs/v1")["train_runs"]
            return [each["name"] for each in listed]
        return []

    run.until("the second trial's training in the dashboard", lambda: wanted in train_runs())
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert "1 at once, 2 workers each" in run.text
    assert [trial.user_attrs["environment"]["devices"] for trial in study.trials] == [2, 2], "for the device hours"
    runs = Runs(home)
    assert [runs.steps(number, "train/loss") for number in (0, 1)] == [[10, 20]] * 2
    assert {each.info.status for each in [*runs.parents, *runs.trials.values()]} == {"FINISHED"}
