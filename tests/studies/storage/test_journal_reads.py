"""The journal reads like Optuna's own, from where it stopped, and flushes what must outlive a power cut."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from coldtune.studies.storage.backends import JOURNAL, open_storage
from coldtune.studies.storage.journal import Journal, batch


def run(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))


def test_two_who_read_and_write_by_turns_see_what_optuna_sees(tmp_path: Path) -> None:
    mine = optuna.create_study(study_name="s", storage=open_storage(tmp_path))
    stock = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    others = optuna.load_study(study_name="s", storage=stock)
    for _ in range(3):
        run(mine, 2)
        run(others, 2)
        mine.ask()
    late = optuna.load_study(study_name="s", storage=open_storage(tmp_path))
    assert mine.trials == others.trials == late.trials
    assert [trial.number for trial in mine.trials] == list(range(15))


def test_any_record_on_is_what_optuna_reads_from_there(tmp_path: Path) -> None:
    run(optuna.create_study(study_name="s", storage=open_storage(tmp_path)), 3)
    journal, stock = Journal(tmp_path / JOURNAL), JournalFileBackend(str(tmp_path / JOURNAL))
    count = len(list(stock.read_logs(0)))
    for start in (4, 2, count, 0, 7):
        assert list(journal.read_logs(start)) == list(stock.read_logs(start))


def test_a_record_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"a":1}\n{"b"')
        file.flush()
        assert list(journal.read_logs(0)) == [{"a": 1}]
        file.write(b":2}\n")
        file.flush()
        assert list(journal.read_logs(1)) == [{"b": 2}]


def test_a_trials_end_is_on_the_disk_before_anybody_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    whole = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_size) or whole(file))
    study = optuna.create_study(study_name="s", storage=open_storage(tmp_path))

    def size() -> int:
        return (tmp_path / JOURNAL).stat().st_size

    assert flushed[-1] == size()
    ways: list[dict[str, Any]] = [{"values": 1.0}, {"state": TrialState.FAIL}, {"state": TrialState.PRUNED}]
    for way in ways:
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("seconds", 1.0)
        assert flushed[-1] < size()
        study.tell(trial, **way)
        assert flushed[-1] == size()


def test_changes_that_belong_together_are_not_torn_apart_by_another_writer(tmp_path: Path) -> None:
    """Another process that writes all the time finds its records before or after the block, never in it."""
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage)
    code = (
        "import optuna, sys; from pathlib import Path; from coldtune.studies.storage.backends import open_storage\n"
        "study = optuna.load_study(study_name='s', storage=open_storage(Path(sys.argv[1])))\n"
        "print('ready', flush=True)\n"
        "for i in range(200): study.set_user_attr('other', i)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        for block in range(20):
            with batch(study):
                for i in range(5):
                    study.set_user_attr("mine", [block, i])
        assert other.wait() == 0
    keys = [next(iter(log["user_attr"])) for log in Journal(tmp_path / JOURNAL).read_logs(1)]
    assert keys.count("mine") == 100
    assert keys.count("other") == 200
    blocks = [len(list(group)) for key, group in itertools.groupby(keys) if key == "mine"]
    assert all(length % 5 == 0 for length in blocks)


def test_a_block_that_fails_lets_go(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage)
    with pytest.raises(RuntimeError, match="boom"), batch(study):
        raise RuntimeError("boom")
    optuna.load_study(study_name="s", storage=open_storage(tmp_path)).set_user_attr("other", 1)
    assert study.user_attrs == {"other": 1}
