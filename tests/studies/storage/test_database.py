"""The database storage of a study, if the database goes away and comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from coldtune.studies.storage import database as module
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.database import PatientStorage
from coldtune.studies.storage.errors import StorageGoneError


def study(storage: Any) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="study", storage=storage, load_if_exists=True)


def told(made: optuna.Study, value: float) -> None:
    trial = made.ask()
    trial.suggest_float("x", 0, 1)
    made.tell(trial, value)


def values(storage: Any) -> list[float | None]:
    return [trial.value for trial in study(storage).trials]


@pytest.fixture
def database(tmp_path: Path) -> PatientStorage:
    storage = open_storage(tmp_path, f"sqlite:///{tmp_path}/study.db")
    assert isinstance(storage, PatientStorage)
    return storage


@pytest.fixture
def lost(database: PatientStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lose the answers to the next `count` commits: they are done, but the caller gets the error of a lost server."""
    left = 0
    session = database.scoped_session.session_factory.class_
    commit = session.commit

    def lose(count: int) -> None:
        nonlocal left
        left = count

    def committed(self: Any) -> None:
        nonlocal left
        commit(self)
        if left:
            left -= 1
            raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))

    monkeypatch.setattr(session, "commit", committed)
    monkeypatch.setattr(module, "_PAUSE_S", (0.001, 0.001))
    yield lose
    assert left == 0, "the fault was met"


@pytest.mark.parametrize("count", [1, 2])
def test_database_lost_answer_creates_the_trial_once(
    database: PatientStorage, lost: Callable[[int], None], count: int
) -> None:
    made = study(database)
    lost(count)
    trial = made.ask()
    assert [t.number for t in made.get_trials()] == [trial.number] == [0]
    lost(count)
    trial.suggest_float("x", 0, 1)
    lost(count)
    made.tell(trial, 1.0)
    assert [(t.number, t.state, t.value) for t in made.get_trials()] == [(0, TrialState.COMPLETE, 1.0)]
    assert made.ask().number == 1


def test_database_lost_answer_takes_the_enqueued_trial_once(
    database: PatientStorage, lost: Callable[[int], None]
) -> None:
    made = study(database)
    made.enqueue_trial({"x": 0.5})
    lost(1)
    assert made.ask().number == 0
    assert [t.state for t in made.get_trials()] == [TrialState.RUNNING]


def test_database_other_errors_are_raised_at_once(database: PatientStorage) -> None:
    with pytest.raises(KeyError):
        database.get_study_id_from_name("another")


def test_database_away_for_long_is_given_up(
    postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COLDTUNE_STORAGE_PATIENCE_S", "1")
    made = study(open_storage(tmp_path, postgres.database()))
    told(made, 1.0)
    trial = made.ask()
    postgres.kill()
    try:
        with pytest.raises(StorageGoneError, match=r"--storage postgresql.*: did not answer for 1 s") as caught:
            made.tell(trial, 2.0)
        began = caplog.text
        with pytest.raises(StorageGoneError) as again:  # the end of the run asks the storage again
            made.get_trials()
    finally:
        postgres.start()
    assert str(again.value) == str(caught.value)
    assert caplog.text == began, "without waiting again"
    assert postgres.password not in str(caught.value) + caplog.text
    assert "trying again for 1 s" in caplog.text
    made.tell(trial, 2.0)
    assert [t.value for t in made.get_trials()] == [1.0, 2.0]


def test_database_restarted_three_times_keeps_every_trial_once(
    postgres: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = postgres.database()
    made = study(open_storage(tmp_path, url))
    done = threading.Event()

    def said(what: str) -> int:
        return caplog.text.count(what)

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)

    def outage() -> None:
        time.sleep(0.3)
        before = said("does not answer")
        postgres.kill()
        # If the server were started at once, it could be back before the study notices.
        wait_for(lambda: said("does not answer") > before)
        postgres.start()
        wait_for(lambda: said("answers again") == said("does not answer"))

    def restart() -> None:
        try:
            for _ in range(3):
                outage()
        finally:
            done.set()

    restarting = threading.Thread(target=restart)
    restarting.start()
    count = 0
    while not done.is_set() or count < 5:
        told(made, float(count))
        count += 1
    restarting.join()
    assert values(open_storage(tmp_path, url)) == [float(i) for i in range(count)]
    assert said("does not answer") >= 3
    assert said("answers again") == said("does not answer")
