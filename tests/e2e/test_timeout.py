"""Trials that exceed `--trial-timeout` fail and keep their checkpoints. Enough failures end the study."""

from __future__ import annotations

import pytest
from e2e_lab import Lab, Runs, checkpoints_of, flags, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.heavy]


def test_study_of_endless_trials_stops_after_max_failures(lab: Lab) -> None:
    home = lab.path / "home"
    endless = {"training.steps": 50_000, "training.validate_every": 7, "training.checkpoint_every": 5}
    limits = ["--trial-timeout", "10s", "--max-failures", "4"]
    run = lab.sweep(home, "--trials", "30", *limits, *flags(**endless))
    assert run.wait() == 3, run.text
    lab.wait_until_empty()
    study, runs = study_of(home), Runs(home)
    failed = study.get_trials(states=[TrialState.FAIL])
    assert len(failed) >= 4
    assert {trial.user_attrs["reason"] for trial in failed} == {"ran longer than 10s (--trial-timeout)"}
    assert {trial.state for trial in study.trials} <= {TrialState.FAIL, TrialState.RUNNING}
    assert "stopped: the last 4 trials failed, one after the other; the last one: ran longer than 10s" in run.text
    assert "resume " in run.text
    assert "Traceback" not in run.text
    assert checkpoints_of(home), "checkpoints stay"
    for trial in failed:
        assert runs.trials[trial.number].info.status == "FAILED"
    started = [
        [line for line in log if line.startswith("=== ") and not line.endswith("failed")] for log in lab.trial_logs()
    ]
    assert max(len(lines) for lines in started) >= 2, "a process ran several trials"
