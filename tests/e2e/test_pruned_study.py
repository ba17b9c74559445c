"""A real study prunes trials at rungs, is resumed unchanged, and trains a promoted trial to its end."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from e2e_lab import Lab, Runs, checkpoints_of, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

# Only the base learns. The other learning rates are too small, and their trials reach each rung later.
SPACE = """
base: digits-quick
vary:
  training.lr: {choices: [1.0e-3, 1.0e-8, 2.0e-8, 3.0e-8]}
objective: {metric: fid}
search: {algorithm: grid}
rungs: {steps: [20, 40], num_images: 64}
pruning: {kind: successive_halving, startup: 1, reduction_factor: 2}
"""
SETTINGS = ["training.steps=60", "training.batch_size=16", "training.report_every=10", "training.checkpoint_every=20"]


def test_pruned_trials_end_at_their_rung_until_promoted(lab: Lab) -> None:
    home = lab.path / "home"
    command = [*lab.study("prunes", SPACE), "--home", str(home), "--set", *SETTINGS]
    run = lab.start(command)
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    study, runs = study_of(home), Runs(home)
    trials = study.trials
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) + len(pruned_of(study)) == 4
    assert pruned_of(study), run.text
    for trial in pruned_of(study):
        step = trial.last_step
        assert trial.user_attrs["reason"].startswith(f"at step {step} of 60: KID ")
        assert f"trial {trial.number} pruned: {trial.user_attrs['reason']}" in run.text
        logged = runs.trials[trial.number]
        assert (logged.info.status, logged.data.tags["coldtune.state"]) == ("FINISHED", "pruned")
        assert logged.data.tags["coldtune.reason"] == trial.user_attrs["reason"]
        assert runs.steps(trial.number, "train/loss") == list(range(10, step + 1, 10)), (
            "each step up to the rung, and no later step"
        )
        assert max(checkpoints_of(home)[key_of(trial)]) == step
        assert runs.steps(trial.number, "train/rung_kid") == list(range(20, step + 1, 20))
    saved = sum(60 - trial.last_step for trial in pruned_of(study))
    assert f"{saved} of 240 steps were not trained" in run.text
    (slots,) = re.findall(r"runs +(\d+) at once", run.text)
    assert len(lab.trial_logs()) <= int(slots), "a process continues with the next trial after a pruned trial"

    # The same command again changes nothing, because the study is complete.
    run = lab.start([*command, "--resume"])
    assert run.wait() == 0, run.text
    assert study_of(home).trials == trials
    assert "trial 0 starts" not in run.text

    # gc keeps the checkpoints that a pruned trial needs.
    number = pruned_of(study)[0].number
    reached, rung = key_of(trials[number]), trials[number].last_step
    before = checkpoints_of(home)[reached]
    assert lab.start(["coldtune", "store", "gc", "--home", str(home), "--older", "0", "--yes"]).wait() == 0
    assert checkpoints_of(home)[reached].keys() >= {rung}

    # A promoted trial continues from its rung and is not pruned again.
    promote = ["coldtune", "study", "promote", study.study_name, str(number), "--home", str(home)]
    run = lab.start(promote)
    assert run.wait() == 0, run.text
    (resume,) = re.findall(r"run it +(.+)$", run.text, re.MULTILINE)
    assert "--trials 5" in resume
    run = lab.start(shlex.split(resume))
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    study, runs = study_of(home), Runs(home)
    promoted = study.trials[4]
    assert (promoted.state, promoted.user_attrs["promoted_from"]) == (TrialState.COMPLETE, number)
    assert promoted.params == trials[number].params
    assert study.trials[:4] == trials, "pruned trials stay pruned"
    assert f"promoted from trial {number}" in run.text
    assert runs.trials[4].data.tags["promoted_from"] == str(number)
    assert runs.steps(4, "train/loss") == list(range(10, 61, 10)), "the whole curve with each step once"
    after = checkpoints_of(home)[reached]
    assert after[rung] == before[rung], "reused, not trained again"
    assert 60 in after
    trained = {stage: found for stage, _, found, _ in promoted.user_attrs["stages"] if stage.startswith("train")}
    assert trained == {f"train_{step}": step <= rung for step in (20, 40)} | {"train": False}
    assert runs.trials[number].info.status == "FINISHED"


def pruned_of(study):
    return [trial for trial in study.trials if trial.state == TrialState.PRUNED]


def key_of(trial) -> str:
    """Return the training key of a trial that reached a rung."""
    return next(Path(key).parent.name for stage, key, *_ in trial.user_attrs["stages"] if stage.startswith("train"))
