"""Studies whose driver or trial process is killed, or that end with Ctrl-C, resume and end as if undisturbed."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import optuna
import pytest
from e2e_lab import SETTINGS, Lab, Runs, Unbroken, checkpoints_of, flags, interrupted_checkpoints, study_of, title
from mlflow.exceptions import MlflowException
from optuna.trial import FrozenTrial, TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]


LAST = SETTINGS["training.steps"]


def key_of(trial: FrozenTrial) -> str:
    """Return the training key of a finished trial."""
    return Path(trial.user_attrs["checkpoint"]).parent.name


def trains(home: Path) -> bool:
    """Return True if a trial has a checkpoint and at least half of its training before it."""
    return any(0 < step <= LAST // 2 for step in interrupted_checkpoints(home).values())


def trains_after_finished_trial(home: Path) -> bool:
    """Return True if a trial has finished, with its run in MLflow, and another trial is in mid-training."""
    study = study_of(home)
    finished = [trial.number for trial in study.get_trials(states=[TrialState.COMPLETE])] if study else []
    try:
        if not finished or not Runs(home).trials.keys() >= set(finished):
            return False
    except MlflowException:  # the driver may keep its database locked for a while
        return False
    return trains(home)


def check_steps(runs: Runs, trial: int, reached: int) -> None:
    """Check that MLflow has each step, and that no step before the checkpoint at `reached` was trained twice."""
    steps = runs.steps(trial, "train/loss")
    assert [step for step in steps if step <= reached] == list(range(10, reached + 1, 10))
    assert set(steps) == set(range(10, LAST + 1, 10))


def check_equal(study: optuna.Study, unbroken: optuna.Study) -> None:
    """Check that a study has the trials of the unbroken study, with the same values in every digit."""
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    assert [trial.params for trial in study.trials] == [trial.params for trial in unbroken.trials]
    for trial, same in zip(study.trials, unbroken.trials, strict=True):
        assert trial.user_attrs["metrics"] == same.user_attrs["metrics"], f"trial {trial.number}"


def test_study_killed_then_interrupted_resumes_to_same_results(lab: Lab, unbroken: Unbroken) -> None:
    home = lab.path / "home"
    run = lab.sweep(home, "--trials", "3", *flags())
    run.until("the middle of a trial", lambda: trains_after_finished_trial(home))
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    lab.wait_until_empty()  # Ray and the trials end without their driver

    study, files, runs = study_of(home), checkpoints_of(home), Runs(home)
    caught = interrupted_checkpoints(home)
    assert caught
    finished = study.get_trials(states=[TrialState.COMPLETE])
    interrupted = {trial.number for trial in study.get_trials(states=[TrialState.RUNNING])}

    # The same command resumes. Ctrl-C follows once an interrupted trial continues.
    run = lab.sweep(home, "--trials", "3", *flags(), "--resume")
    going_on = {f"=== study {study.study_name}, trial {number} (goes on)" for number in interrupted}
    run.until("an interrupted trial", lambda: going_on & {line for log in lab.trial_logs() for line in log})
    run.process.send_signal(signal.SIGINT)
    assert run.wait() == 130, run.text
    lab.wait_until_empty()
    # A trial that was almost finished may end before the signal arrives, so the study says which trials are left.
    again = {trial.number for trial in study_of(home).get_trials(states=[TrialState.RUNNING])}
    assert again
    assert again <= {0, 1, 2} - {trial.number for trial in finished}
    assert f"interrupted with {3 - len(again)} of 3 trials ended" in run.text
    assert "Traceback" not in run.text
    (parent,) = Runs(home).parents
    trials = Runs(home).trials
    for ended in (parent, *(trials[number] for number in again)):
        assert (ended.info.status, ended.data.tags["coldtune.state"]) == ("KILLED", "interrupted")

    # The command that the study printed resumes it.
    (command,) = re.findall(r"^  resume +(.+)$", run.text, re.MULTILINE)
    run = lab.start(shlex.split(command))
    assert run.wait() == 0, run.text
    lab.wait_until_empty()

    # The study has the same trials with the same values as an unbroken study, in the same runs as before.
    study, after = study_of(home), Runs(home)
    check_equal(study, unbroken.study)
    assert [run.info.run_id for run in after.parents] == [run.info.run_id for run in runs.parents]
    assert sorted(after.trials) == [0, 1, 2]
    assert all(after.trials[number].info.run_id == before.info.run_id for number, before in runs.trials.items())
    assert {run.info.status for run in [*after.parents, *after.trials.values()]} == {"FINISHED"}

    # Finished trials were not run again: neither their files nor their records are newer.
    for trial in finished:
        now, key = study.trials[trial.number], key_of(trial)
        assert checkpoints_of(home)[key][LAST] == files[key][LAST]
        assert (now.datetime_complete, now.user_attrs) == (trial.datetime_complete, trial.user_attrs)
        assert after.steps(trial.number, "train/loss") == list(range(10, LAST + 1, 10))

    # Interrupted trials continued from their checkpoints.
    number_of = {key_of(study.trials[number]): number for number in interrupted}
    assert caught.keys() <= number_of.keys()
    for key, reached in caught.items():
        check_steps(after, number_of[key], reached)


def test_trial_whose_process_is_killed_continues_from_checkpoint(lab: Lab) -> None:
    home = lab.path / "home"
    run = lab.sweep(home, "--trials", "1", *flags())
    run.until("a checkpoint", lambda: trains(home))
    (actor,) = [process for process in lab.processes() if title(process).startswith("ray::coldtune_trial")]
    actor.kill()
    (reached,) = interrupted_checkpoints(home).values()
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    assert "trial 0: its process died; it goes on from its last checkpoint" in run.text
    assert "Traceback" not in run.text
    assert [trial.state for trial in study_of(home).trials] == [TrialState.COMPLETE]
    runs = Runs(home)
    assert runs.trials[0].info.status == "FINISHED"
    check_steps(runs, 0, reached)
