"""The trial cache equals a full scan of the storage, also if other processes asked and told trials in between."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.settings import index_of
from coldtune.studies.storage.trial_cache import AskedPoints, TrialCache, point_name
from coldtune.studies.trials.ledger import Ledger, open_ledger


def drivers(spec: StudySpec, space: Space, folder: Path, url: str | None) -> list[Ledger]:
    """Open two ledgers, each with its own view of the same storage."""
    return [open_ledger("study", spec, space, open_storage(folder, url)) for _ in range(2)]


def act(ledger: Ledger, rng: random.Random) -> None:
    """Ask a trial, or end a trial of this driver in a random state."""
    running = ledger.running()
    if not running or (len(running) < 4 and rng.random() < 0.5):
        ledger.ask()
        return
    number = rng.choice(running)
    what = rng.random()
    if what < 0.6:
        ledger.complete(number, TrialOutcome({"fid": rng.choice([1.0, 2.0, rng.random()]), "ssim": 0.5}))
    elif what < 0.8:
        ledger.fail(number, "RuntimeError: boom")
    elif what < 0.9:
        ledger.study.tell(ledger.ownership.running.pop(number), state=TrialState.PRUNED)
    else:
        ledger.study.enqueue_trial(dict(ledger.space.first))


def agrees(ledger: Ledger) -> None:
    """Compare the ledger with a full scan of the storage, computed here from its definition."""
    scan = ledger.study.get_trials(deepcopy=False)
    complete = [trial for trial in scan if trial.state == TrialState.COMPLETE]
    best = min(complete, key=lambda trial: (trial.values[0], trial.number), default=None)
    assert ledger.trials() == scan
    assert ledger.settings() == index_of(scan).settings(scan)
    assert ledger.finished() == sum(trial.state.is_finished() for trial in scan)
    assert {state: ledger.states().get(state, 0) for state in TrialState} == {
        state: sum(trial.state == state for trial in scan) for state in TrialState
    }
    assert ledger.best() == best
    running = sum(trial.state == TrialState.RUNNING for trial in scan)  # by any driver
    assert ledger.wanted(100) == 100 - ledger.finished() - running


@pytest.mark.parametrize(("seed", "database"), [(0, False), (1, False), (2, False), (3, True)])
def test_trial_cache_counts_and_best_equal_a_full_scan(
    spec: StudySpec, space: Space, tmp_path: Path, seed: int, database: bool
) -> None:
    both = drivers(spec, space, tmp_path, f"sqlite:///{tmp_path}/optuna.db" if database else None)
    rng = random.Random(seed)
    for step in range(40 if database else 80):  # a step takes a hundred times as long in a database
        act(rng.choice(both), rng)
        if step % 3 == 0:
            agrees(rng.choice(both))
    for ledger in both:
        agrees(ledger)
    states = {trial.state for trial in both[0].trials()}
    assert states >= {TrialState.COMPLETE, TrialState.RUNNING}
    assert database or states >= {TrialState.FAIL, TrialState.PRUNED}


def test_asked_points_equal_a_full_scan(spec: StudySpec, space: Space, tmp_path: Path) -> None:
    """A later trial that ended first does not count for an earlier trial that resumes."""
    mine, other = drivers(spec, space, tmp_path, None)
    asked, rng = AskedPoints(mine.study), random.Random(0)
    for _ in range(60):
        act(rng.choice([mine, other]), rng)
        trials = mine.study.get_trials(deepcopy=False)
        number = rng.randrange(len(trials) + 1)
        counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        wanted = {point_name(trial.params) for trial in trials if trial.number < number and trial.state in counted}
        before = asked.before(number)
        assert {point for point in {point_name(t.params) for t in trials} if point in before} == wanted


def test_trial_cache_ended_trial_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage)
    trials = TrialCache(study)
    for _ in range(20):
        study.tell(study.ask(), 1.0)
    open_trial = study.ask()
    assert [trial.number for trial in trials.refresh()] == list(range(20))
    read: list[int] = []
    whole = storage.get_trial
    monkeypatch.setattr(storage, "get_trial", lambda trial_id: read.append(trial_id) or whole(trial_id))
    assert trials.refresh() == []
    assert read == [open_trial._trial_id]
