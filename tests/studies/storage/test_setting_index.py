"""The index of settings equals a plain list of groups, whatever the order of replicates and retried trials."""

from __future__ import annotations

import random

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from coldtune.studies.storage.record import attributes_of_replicate, replicate_of, retry_of
from coldtune.studies.storage.settings import index_of


def made(number: int, attributes: dict[str, int]) -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
    trial.number = number
    return trial


def history(rng: random.Random) -> list[FrozenTrial]:
    """Return trials of which some are further replicates, and some take the place of an earlier trial."""
    trials: list[FrozenTrial] = []
    for number in range(rng.randrange(1, 20)):
        kind = rng.random()
        attributes: dict[str, int] = {}
        if trials and kind < 0.3:
            attributes = attributes_of_replicate(rng.choice(sorted(index_of(trials).firsts)), rng.randrange(1, 4))
        elif trials and kind < 0.5:
            attributes = {"retry_of": rng.randrange(len(trials))}
        trials.append(made(number, attributes))
    return trials


@pytest.mark.parametrize("seed", range(20))
def test_setting_index_equals_lists_of_its_trials(seed: int) -> None:
    trials = history(random.Random(seed))
    groups: dict[int, dict[int, int]] = {}
    labels, places, further = [], [], 0
    for trial in trials:
        if (place := replicate_of(trial)) is not None:
            further += 1
            labels.append(f"{place[0]}.{place[1]}")
        else:
            failed = retry_of(trial)
            place = (trial.number - further if failed is None else places[failed][0], 0)
            labels.append(str(trial.number - further))
        places.append(place)
        groups.setdefault(place[0], {})[place[1]] = trial.number
    index = index_of(trials)
    assert [index.label(number) for number in range(len(trials))] == labels
    assert [index.place(number) for number in range(len(trials))] == places
    found = {setting.number: setting.trials for setting in index.settings(trials)}
    assert {number: {r: t.number for r, t in group.items()} for number, group in found.items()} == groups


def test_setting_index_of_single_trainings_keeps_no_groups() -> None:
    index = index_of([made(number, {}) for number in range(50)])
    assert not index._groups
    assert not index._labels
    assert index.label(49) == "49"
