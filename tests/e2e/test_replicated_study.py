"""A study of two settings with three trainings each that is killed, resumed, and given a fourth training of each."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from e2e_lab import SETTINGS, Lab, Runs, checkpoints_of, flags, interrupted_checkpoints, study_of
from optuna.trial import TrialState

from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.trials.reading import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

SPACE = """
base: digits-quick
variants:
  as in the preset: {}
  larger steps: {training.lr: 2.0e-3}
replicates: 3
"""
SHORT = {"degradation.steps": 4, "protocol.num_images": 260, "protocol.reference": "same"}


LAST = SETTINGS["training.steps"]


def trains_second_replicate(home: Path) -> bool:
    """Return True if both settings have a finished training, and another training is interrupted by a kill now."""
    study = study_of(home)
    finished = study.get_trials(states=[TrialState.COMPLETE]) if study else []
    return len(finished) >= 2 and bool(interrupted_checkpoints(home))


def test_replicates_killed_resumed_and_extended_repeat_nothing(lab: Lab) -> None:
    home, script = lab.path / "home", lab.study("compare", SPACE)[-1]
    command = [sys.executable, script, "--home", str(home), "--study", "compare", *flags(**SHORT)]
    run = lab.start(command)
    run.until("a second replicate in training", lambda: trains_second_replicate(home))
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    lab.wait_until_empty()
    before = checkpoints_of(home)

    run = lab.start(command)
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    resumed = checkpoints_of(home)
    assert len(resumed) == 6, "two settings with three seeds"
    # Checkpoints on the way may be removed, but none is written again.
    assert all(resumed[key].get(step, time) == time for key, steps in before.items() for step, time in steps.items())
    assert all(LAST in resumed[key] for key in before)
    assert "finished" in run.text
    assert "± " in run.text
    assert "(3)" in run.text

    run = lab.start([*command, "--replicates", "4"])
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    extended = checkpoints_of(home)
    assert len(extended) == 8
    assert all(extended[key] == steps for key, steps in resumed.items()), "no training was repeated"
    study = study_of(home)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 8
    reader = read_study(StudyFolder(home, "compare"))
    assert [sorted(setting.finished) for setting in reader.settings()] == [[0, 1, 2, 3]] * 2
    runs = Runs(home)
    tags = [run.data.tags for run in runs.trials.values()]
    assert sorted((tag["setting"], tag["replicate"]) for tag in tags) == [(s, r) for s in "01" for r in "0123"]
    settings = {"0": "as in the preset", "1": "larger steps"}
    labels = [(f"{number}{again}", setting) for number, setting in settings.items() for again in ("", ".1", ".2", ".3")]
    assert {run.info.run_name for run in runs.trials.values()} == {f"{label}: {setting}" for label, setting in labels}
    (parent,) = runs.parents
    assert {"best/fid", "best/fid_se", "settings/fid_of_4_mean", "settings/fid_of_4_se"} <= set(parent.data.metrics)
