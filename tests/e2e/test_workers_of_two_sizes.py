"""Two studies on one cluster, each with trials that fill it: neither study blocks the other, and pruning works."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_lab import LOOPBACK, Head, Lab, Running, Runs, checkpoints_of, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(1800)]

# Only the base learns. The other learning rates are too small, and their trials reach the rung later.
SPACE = """
base: digits-quick
vary:
  training.lr: {choices: [1.0e-3, 1.0e-8, 2.0e-8]}
objective: {metric: fid}
search: {algorithm: grid}
"""
PRUNED = "rungs: {steps: [20], num_images: 64}\npruning: {kind: successive_halving, startup: 1}\n"
SETTINGS = ["training.steps=40", "training.batch_size=12", "training.report_every=10", "training.checkpoint_every=20"]


def test_trials_of_two_and_three_workers_share_four_cpus(lab: Lab) -> None:
    head = Head(lab, 4)
    head.start()
    two = sweep(lab, head, "two", SPACE + PRUNED, 2)
    three = sweep(lab, head, "three", SPACE, 3)
    assert two.wait() == 0, two.text
    assert three.wait() == 0, three.text
    head.close()

    # Trials of the two studies do not fit side by side, so each study must have waited for the other.
    assert "2 at once, 2 workers each" in two.text
    assert "1 at once, 3 workers each" in three.text
    home = lab.path / "three"
    assert [trial.state for trial in study_of(home).trials] == [TrialState.COMPLETE] * 3
    assert [Runs(home).steps(number, "train/loss") for number in range(3)] == [[10, 20, 30, 40]] * 3

    home = lab.path / "two"
    trials, runs = study_of(home).trials, Runs(home)
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    pruned = [trial.number for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned, two.text
    for trial in trials:
        last = 20 if trial.number in pruned else 40
        assert runs.steps(trial.number, "train/loss") == list(range(10, last + 1, 10)), "its workers stop at the rung"
        assert max(checkpoints_of(home)[trained(trial)]) == last
    assert {run.info.status for run in [*runs.parents, *runs.trials.values()]} == {"FINISHED"}


def sweep(lab: Lab, head: Head, name: str, space: str, workers: int) -> Running:
    where = ["--home", str(lab.path / name), "--workers", str(workers)]
    return lab.start([*lab.study(name, space), *where, "--set", *SETTINGS], RAY_ADDRESS=head.address, **LOOPBACK)


def trained(trial) -> str:
    """Return the key of a trial's training, with which the keys of all its checkpoints begin."""
    return next(Path(key).parent.name for stage, key, *_ in trial.user_attrs["stages"] if stage.startswith("train"))
