"""Ended in mid-trial by kill -9 and then by Ctrl-C, a study goes on and ends as if nothing had happened."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest
from e2e_lab import SETTINGS, Lab, Runs, Unbroken, checkpoints_of, flags, study_of, title
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


LAST = SETTINGS["training.steps"]


def key_of(trial: FrozenTrial) -> str:
    """The training key of a finished trial."""
    return Path(trial.user_attrs["checkpoint"]).parent.name


def caught_by(home: Path) -> dict[str, int]:
    """Training key -> last checkpoint of what is being trained."""
    return {key: max(steps) for key, steps in checkpoints_of(home).items() if max(steps) < LAST}


def in_mid_trial(home: Path) -> bool:
    """Whether a trial has finished, its run being in MLflow, while another has a checkpoint and much to do."""
    study = study_of(home)
    done = [trial.number for trial in study.get_trials(states=[TrialState.COMPLETE])] if study else []
    try:
        if not done or not Runs(home).trials.keys() >= set(done):
            return False
    except MlflowException:  # the driver may keep its database locked for a while
        return False
    return any(0 < reached <= LAST // 2 for reached in caught_by(home).values())


def test_kill_interrupt_and_resume(lab: Lab, unbroken: Unbroken) -> None:
    home = lab.path / "home"
    run = lab.sweep(home, "--trials", "3", *flags())
    run.until("the middle of a trial", lambda: in_mid_trial(home))
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    lab.wait_until_empty()  # no orphans, though nobody was left to end them

    study, files, runs, caught = study_of(home), checkpoints_of(home), Runs(home), caught_by(home)
    assert caught
    finished = study.get_trials(states=[TrialState.COMPLETE])
    interrupted = {trial.number for trial in study.get_trials(states=[TrialState.RUNNING])}

    # The same again; Ctrl-C once an interrupted trial goes on.
    run = lab.sweep(home, "--trials", "3", *flags(), "--resume")
    going_on = {f"=== study {study.study_name}, trial {number} (goes on)" for number in interrupted}
    run.until("an interrupted trial", lambda: going_on & {line for log in lab.trial_logs() for line in log})
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130, run.text
    lab.wait_until_empty()
    # The trial that was almost through may end before the signal arrives: what the study says counts.
    again = {trial.number for trial in study_of(home).get_trials(states=[TrialState.RUNNING])}
    assert again
    assert again <= {0, 1, 2} - {trial.number for trial in finished}
    assert f"interrupted with {3 - len(again)} of 3 trials ended" in run.text
    assert "Traceback" not in run.text
    (parent,) = Runs(home).parents
    trials = Runs(home).trials
    for ended in (parent, *(trials[number] for number in again)):
        assert (ended.info.status, ended.data.tags["coldtune.state"]) == ("KILLED", "interrupted")

    # What it printed resumes it.
    (command,) = re.findall(r"^  resume +(.+)$", run.text, re.MULTILINE)
    run = lab.start(shlex.split(command))
    assert run.wait() == 0, run.text
    lab.wait_until_empty()

    # As many trials as an unbroken study has, the same ones, with the same values, in the same runs as before.
    study, whole, after = study_of(home), unbroken.study, Runs(home)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]
    for trial, same in zip(study.trials, whole.trials, strict=True):
        assert trial.user_attrs["metrics"] == same.user_attrs["metrics"], f"trial {trial.number}"
    assert [run.info.run_id for run in after.parents] == [run.info.run_id for run in runs.parents]
    assert sorted(after.trials) == [0, 1, 2]
    assert all(after.trials[number].info.run_id == before.info.run_id for number, before in runs.trials.items())
    assert {run.info.status for run in [*after.parents, *after.trials.values()]} == {"FINISHED"}

    # What had finished was not run again: neither its files nor its records are newer.
    for trial in finished:
        now, key = study.trials[trial.number], key_of(trial)
        assert checkpoints_of(home)[key][LAST] == files[key][LAST]
        assert (now.datetime_complete, now.user_attrs) == (trial.datetime_complete, trial.user_attrs)
        assert after.steps(trial.number, "loss") == list(range(10, LAST + 1, 10))

    # What was caught went on from its checkpoint: no step before that was trained, or logged, twice; none is missing.
    went_on = {key_of(study.trials[number]): number for number in interrupted}
    assert caught.keys() <= went_on.keys()
    for key, reached in caught.items():
        steps = after.steps(went_on[key], "loss")
        assert [step for step in steps if step <= reached] == list(range(10, reached + 1, 10))
        assert set(steps) == set(range(10, LAST + 1, 10))


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_by_itself(lab: Lab) -> None:
    home = lab.path / "home"
    run = lab.sweep(home, "--trials", "1", *flags())
    run.until("a checkpoint", lambda: any(0 < reached <= LAST // 2 for reached in caught_by(home).values()))
    (actor,) = [process for process in lab.processes() if title(process).startswith("ray::coldtune_trial")]
    actor.kill()
    (reached,) = caught_by(home).values()
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    assert "trial 0: its process died; it goes on from its last checkpoint" in run.text
    assert "Traceback" not in run.text
    assert [trial.state for trial in study_of(home).trials] == [TrialState.COMPLETE]
    runs = Runs(home)
    assert runs.trials[0].info.status == "FINISHED"
    steps = runs.steps(0, "loss")
    assert [step for step in steps if step <= reached] == list(range(10, reached + 1, 10)), "not trained again"
    assert set(steps) == set(range(10, LAST + 1, 10))
