"""The TPE that reads a trial once suggests what Optuna's TPE suggests, draw by draw."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from coldtune.studies.storage import optuna_private
from coldtune.studies.storage.optuna_private import ReusingTPESampler, TPEHistory, read_trial

STARTUP = 4
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def suggest(trial: Trial) -> float:
    """Suggest a point with every kind of key, a key with a condition and a key with ties. Return its loss."""
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    steps = trial.suggest_int("steps", 10, 40, step=5)
    loss = abs(steps - 30) / 10 + {"a": 0.0, "b": 1.0, "c": 0.0}[kind]
    if kind != "a":
        loss += trial.suggest_float("rate", 0.005, 0.2, log=True)
    if kind == "c":
        loss += trial.suggest_float("share", 0.0, 1.0, step=0.25) + trial.suggest_int("count", 1, 64, log=True) / 64
    return loss


def grow(study: optuna.Study, rng: random.Random, count: int) -> None:
    """Add trials that complete, fail, are pruned at different rungs, or go on running."""
    objectives = len(study.directions)
    for _ in range(count):
        trial = study.ask()
        loss, fate = suggest(trial), rng.random()
        if fate < 0.1:
            study.tell(trial, state=TrialState.FAIL)
        elif fate < 0.3 and objectives == 1:
            for step in range(rng.randint(0, 2)):
                trial.report(loss + 1 / (step + 1), step)
            study.tell(trial, state=TrialState.PRUNED)
        elif fate < 0.95:
            study.tell(trial, [loss, -loss][:objectives] if objectives > 1 else loss)


def draws(sampler: TPESampler, study: optuna.Study, trial: FrozenTrial) -> list[dict[str, object]]:
    space = sampler.infer_relative_search_space(study, trial)
    drawn = [sampler.sample_relative(study, trial, space) for _ in range(3)]
    if isinstance(sampler, ReusingTPESampler):
        sampler.keep(study, trial)
    return drawn


@pytest.mark.parametrize("directions", [["minimize"], ["maximize"], ["minimize", "maximize"]], ids="-".join)
def test_tpe_with_one_history_draws_what_optuna_draws(directions: list[str]) -> None:
    study = optuna.create_study(directions=directions, sampler=RandomSampler(seed=1))
    rng, history, modelled = random.Random(0), TPEHistory(), 0
    for seed in range(12):
        grow(study, rng, rng.randint(1, 9))
        trial = read_trial(study, study.ask())
        ours = ReusingTPESampler(seed=seed, startup=STARTUP)
        ours.history = history
        drawn = [dict(point) for point in draws(ours, study, trial)]
        kept = read_trial(study, trial).system_attrs
        theirs = TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, group=True, constant_liar=True)
        expected = draws(theirs, study, trial)
        assert drawn == expected
        assert kept == read_trial(study, trial).system_attrs, "other drivers see the same draw"
        modelled += expected[0] != {}
    assert modelled >= 10


def test_tpe_history_reads_an_ended_trial_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    grow(study, random.Random(0), 400)
    ranked: list[int] = []
    rank = optuna_private._rank
    monkeypatch.setattr(optuna_private, "_rank", lambda of, trial: ranked.append(trial.number) or rank(of, trial))
    history = TPEHistory()
    numbers, running = history.read(study, study.get_trials(deepcopy=False))
    ended = [t.number for t in study.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert list(numbers) == ended
    assert [trial.number for trial in running] == [t.number for t in study.trials if t.state == TrialState.RUNNING]
    assert list(history.read(study, study.get_trials(deepcopy=False))[0]) == ended
    assert ranked == ended
