"""Two objectives, FID and NFE, in a real study that prunes: a trial ends at a rung where another is better at both."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_lab import LOOPBACK, Head, Lab, Runs, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]

# Only the base's rate learns anything; `direct` costs one evaluation of the network, `tacos` 20. Of fewer than
# `reduction_factor` trials only those in front go on, so that the definition of a front says who must end.
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


def test_what_another_trial_beats_in_both_objectives_is_pruned(lab: Lab) -> None:
    home = lab.path / "home"
    head = Head(lab, 1)  # one trial after another: who came to a rung before whom is then their order
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
    assert all(trial.values is None and not trial.intermediate_values for trial in pruned), "what Optuna cannot hold"
    assert all(f"pruned: {trial.user_attrs['reason']}" in run.text for trial in pruned)
    best = {trial.number for trial in study_of(home).best_trials}
    assert not best & {trial.number for trial in pruned}

    runs = Runs(home)
    states = {number: run.data.tags["coldtune.state"] for number, run in runs.trials.items()}
    assert states == {t.number: "pruned" if t in pruned else "finished" for t in trials}
    assert {run.info.status for run in runs.trials.values()} == {"FINISHED"}


def _beaten(trial: Any, earlier: list[Any]) -> bool:
    """Whether at the rung an earlier trial was no worse at either objective, and better at one."""
    mine, *theirs = ([each.user_attrs["rungs"]["20"][name] for name in ("kid", "nfe")] for each in [trial, *earlier])
    return any(kid <= mine[0] and nfe <= mine[1] and [kid, nfe] != mine for kid, nfe in theirs)
