"""A real study with two objectives, FID and NFE, that prunes a trial if another trial is better at both."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_lab import LOOPBACK, Head, Lab, Runs, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

# Only the base's learning rate learns. `direct` costs one evaluation of the network, `tacos` 20. Among fewer than
# `reduction_factor` trials only those on the Pareto front continue, so its definition says which trials are pruned.
SPACE = """
base: digits-quick
vary:
  training.lr: {choices: [1.0e-3, 1.0e-8]}
  sampler.algorithm: {choices: [tacos, direct]}
objective: [{metric: fid}, {metric: nfe}]
search: {algorithm: grid}
rungs: {steps: [20], num_images: 64}
pruning: {kind: successive_halving, startup: 1, reduction_factor: 8}
"""
SETTINGS = ["training.steps=60", "training.batch_size=16", "training.report_every=10", "training.checkpoint_every=20"]


def test_pruning_trial_beaten_in_both_objectives_is_pruned(lab: Lab) -> None:
    home = lab.path / "home"
    head = Head(lab, 1)  # trials run one after another, so they reach the rung in the order of their numbers
    head.start()
    run = lab.start(
        [*lab.study("fronts", SPACE), "--home", str(home), "--set", *SETTINGS], RAY_ADDRESS=head.address, **LOOPBACK
    )
    assert run.wait() == 0, run.text
    head.close()

    trials = study_of(home).trials
    assert [trial.state for trial in trials] == [
        TrialState.PRUNED if _beaten(trial, trials[: trial.number]) else TrialState.COMPLETE for trial in trials
    ]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    blind = [trial for trial in trials if trial.params["lr"] == 1e-8]
    assert {trial.number for trial in pruned} >= {t.number for t in blind if t.params["sampler"] == "tacos"}
    assert all(trial.values is None and not trial.intermediate_values for trial in pruned), (
        "Optuna has no intermediate values for several objectives"
    )
    assert all(f"pruned: {trial.user_attrs['reason']}" in run.text for trial in pruned)
    best = {trial.number for trial in study_of(home).best_trials}
    assert not best & {trial.number for trial in pruned}

    runs = Runs(home)
    states = {number: run.data.tags["coldtune.state"] for number, run in runs.trials.items()}
    assert states == {t.number: "pruned" if t in pruned else "finished" for t in trials}
    assert {run.info.status for run in runs.trials.values()} == {"FINISHED"}


def _beaten(trial: Any, earlier: list[Any]) -> bool:
    """Return True if an earlier trial was, at the rung, at least as good at both objectives and better at one."""
    mine, *theirs = ([each.user_attrs["rungs"]["20"][name] for name in ("kid", "nfe")] for each in [trial, *earlier])
    return any(kid <= mine[0] and nfe <= mine[1] and [kid, nfe] != mine for kid, nfe in theirs)
