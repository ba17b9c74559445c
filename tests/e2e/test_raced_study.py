"""A race of three samplers that is killed and resumed, with each restorer trained once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from e2e_lab import Lab, Runs, checkpoints_of, flags, interrupted_checkpoints, study_of
from optuna.trial import TrialState

from coldtune.studies.progress.table import setting_rows
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.trials.reading import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

SPACE = """
base: digits-quick
variants:
  direct: {sampler.algorithm: direct}
  naive: {sampler.algorithm: naive}
  tacos: {sampler.algorithm: tacos}
replicates: {first: 2, most: 4}
"""
SHORT = {"degradation.steps": 4, "protocol.num_images": 260, "protocol.reference": "same"}


def trains_second_seed(home: Path) -> bool:
    """Return True if all settings have a finished training, and the next training is interrupted by a kill now."""
    study = study_of(home)
    finished = study.get_trials(states=[TrialState.COMPLETE]) if study else []
    return len(finished) >= 3 and bool(interrupted_checkpoints(home))


def test_race_killed_and_resumed_trains_what_its_results_ask_for(lab: Lab) -> None:
    home, script = lab.path / "home", lab.study("race", SPACE)[-1]
    command = [sys.executable, script, "--home", str(home), "--study", "race", *flags(**SHORT)]
    run = lab.start(command)
    run.until("a second seed in training", lambda: trains_second_seed(home))
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    lab.wait_until_empty()

    run = lab.start(command)
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    assert "race with 2 to 4 trainings each: at most 12 trainings" in run.text
    assert "The race ended after" in run.text
    assert "more trainings" not in run.text, "a race gets no other numbers"

    reader = read_study(StudyFolder(home, "race"))
    counts = {setting.point["variant"]: sorted(setting.finished) for setting in reader.settings()}
    assert all(2 <= len(replicates) <= 4 for replicates in counts.values())
    assert all(replicates == list(range(len(replicates))) for replicates in counts.values())
    assert not reader.race_goes_on()
    trials = study_of(home).trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}, "nothing waits that the race does not want"
    assert len(trials) == sum(map(len, counts.values()))
    assert len(checkpoints_of(home)) == max(map(len, counts.values())), "samplers share the restorer of a seed"
    assert {row.state.split(" (")[0] for row in setting_rows(reader)} <= {"decided", "undecided"}

    runs = Runs(home)
    labels = {run.info.run_name.partition(": ")[0] for run in runs.trials.values()}
    assert {"0", "1", "2", "0.1", "1.1", "2.1"} <= labels
    assert [parent.data.tags["replicates"] for parent in runs.parents] == ["2..4"]

    run = lab.start(command)
    assert run.wait() == 0, run.text
    assert len(study_of(home).trials) == len(trials), "a race that has ended asks nothing"

    run = lab.start([*command, "--replicates", "2..5"])
    assert run.wait() == 2, run.text
    assert "began as a race (replicates: {first: 2, most: 4}), which never changes" in run.text
