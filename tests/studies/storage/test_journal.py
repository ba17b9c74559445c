"""The journal: it reads as Optuna's does, flushes the end of a trial, and survives killed writers."""

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

from coldtune.readback import UnreadableError
from coldtune.studies.storage.backends import JOURNAL, open_storage
from coldtune.studies.storage.journal import Journal, batch
from coldtune.studies.storage.trial_cache import TrialCache


def open_study(storage: Any) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(study_name="study", storage=storage, load_if_exists=True)


def told(made: optuna.Study, value: float) -> None:
    trial = made.ask()
    trial.suggest_float("x", 0, 1)
    made.tell(trial, value)


def values(storage: Any) -> list[float | None]:
    return [trial.value for trial in open_study(storage).trials]


def run(study: optuna.Study, count: int) -> None:
    for _ in range(count):
        trial = study.ask()
        study.tell(trial, trial.suggest_float("x", 0, 1))


def test_journal_two_writers_in_turns_see_the_same_as_optuna(tmp_path: Path) -> None:
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


def test_journal_read_from_any_record_equals_optuna(tmp_path: Path) -> None:
    run(optuna.create_study(study_name="s", storage=open_storage(tmp_path)), 3)
    journal, stock = Journal(tmp_path / JOURNAL), JournalFileBackend(str(tmp_path / JOURNAL))
    count = len(list(stock.read_logs(0)))
    for start in (4, 2, count, 0, 7):
        assert list(journal.read_logs(start)) == list(stock.read_logs(start))


def test_journal_half_written_record_is_read_once_complete(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"a":1}\n{"b"')
        file.flush()
        assert list(journal.read_logs(0)) == [{"a": 1}]
        file.write(b":2}\n")
        file.flush()
        assert list(journal.read_logs(1)) == [{"b": 2}]


def test_journal_end_of_a_trial_is_flushed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_journal_batch_is_not_split_by_another_writer(tmp_path: Path) -> None:
    """The records of another process that writes all the time lie before or after a batch, never inside."""
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


def test_journal_batch_that_fails_releases_the_lock(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    study = optuna.create_study(study_name="s", storage=storage)
    with pytest.raises(RuntimeError, match="boom"), batch(study):
        raise RuntimeError("boom")
    optuna.load_study(study_name="s", storage=open_storage(tmp_path)).set_user_attr("other", 1)
    assert study.user_attrs == {"other": 1}


def test_journal_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    first = open_study(open_storage(tmp_path))
    told(first, 1.0)
    whole = (tmp_path / JOURNAL).read_bytes()
    told(first, 2.0)
    lines = (tmp_path / JOURNAL).read_bytes()[len(whole) :].splitlines(keepends=True)
    for cut in (1, len(lines[0]) - 1, len(lines[0])):
        (tmp_path / JOURNAL).write_bytes(whole + lines[0][:cut])
        told(open_study(open_storage(tmp_path)), 3.0)
        told(open_study(open_storage(tmp_path)), 4.0)
        left = [None] if cut == len(lines[0]) else []  # this trial was asked and never told
        assert values(open_storage(tmp_path)) == [1.0, *left, 3.0, 4.0], cut


def test_journal_surviving_writer_appends_after_a_cut_line(tmp_path: Path) -> None:
    one, other = open_study(open_storage(tmp_path)), open_study(open_storage(tmp_path))
    told(one, 1.0)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    told(other, 2.0)
    told(one, 3.0)
    assert values(open_storage(tmp_path)) == [1.0, 2.0, 3.0]


def test_journal_lock_file_of_a_killed_writer_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(open_study(open_storage(tmp_path)), 1.0)
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)  # a killed holder of Optuna's lock leaves it behind
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    told(open_study(open_storage(tmp_path)), 2.0)
    assert values(open_storage(tmp_path)) == [1.0, 2.0]
    assert not (tmp_path / f"{JOURNAL}.lock").exists()


@pytest.mark.parametrize("tail", [bytes(1), bytes(100_000), bytes(20) + b"\n", b'{"op_code"' + bytes(300), b"\n\n"])
def test_journal_zero_bytes_at_the_end_are_mended_as_a_torn_line(tmp_path: Path, tail: bytes) -> None:
    told(open_study(open_storage(tmp_path)), 1.0)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    study = open_study(open_storage(tmp_path))
    assert [trial.value for trial in study.trials] == [1.0]
    told(study, 2.0)
    assert values(open_storage(tmp_path)) == [1.0, 2.0]
    assert path.read_bytes().startswith(whole + b"{")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (bytes(50), "contains zero bytes"),
        (bytes(50) + b'{"op_code":99}', "contains zero bytes"),
        (b'{"op_code":6,', "is not complete JSON"),
        (b"\xff\xfe", "is not complete JSON"),
        (b"[" * 100_000, "is not complete JSON"),
        (b"null", "is not a record of Optuna"),
        (b"[1]", "is not a record of Optuna"),
        (b"{}", "is not a record that this version of coldtune and Optuna knows"),
        (b'{"op_code":99,"worker_id":"x"}', "is not a record that this version of coldtune and Optuna knows"),
        (b'{"op_code":6,"worker_id":"x"}', "is not a record that this version"),
        (b'{"op_code":6,"worker_id":"x","trial_id":0,"state":1,"values":[NaN]}', "are not finite numbers"),
        (b'{"op_code":6,"worker_id":"x","trial_id":0,"state":1,"values":["1"]}', "are not finite numbers"),
    ],
)
def test_journal_damaged_line_is_named_with_a_way_out(tmp_path: Path, line: bytes, says: str) -> None:
    study = open_study(open_storage(tmp_path))
    path = tmp_path / JOURNAL
    before = path.read_bytes()
    number = before.count(b"\n") + 1
    told(study, 1.0)
    path.write_bytes(before + line + b"\n" + path.read_bytes()[len(before) :])
    with pytest.raises(UnreadableError) as error:
        open_storage(tmp_path)
    assert str(error.value).startswith(f"{path}, line {number}: {says}") or says in str(error.value)
    assert f"{path}, line {number}: " in str(error.value)
    assert f"`head -n {number - 1}`" in str(error.value)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: number - 1]))
    assert values(open_storage(tmp_path)) == [], "the way out works"


def test_journal_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(UnreadableError, match="is not a regular file"):
        open_storage(tmp_path)


def test_journal_equal_values_are_kept_once_with_their_types(tmp_path: Path) -> None:
    study = open_study(open_storage(tmp_path))
    protocols: list[dict[str, Any]] = [{"n": 100}, {"n": 100}, {"n": 100.0}, {"n": True}]
    for number, protocol in enumerate(protocols):
        trial = study.ask()
        trial.set_user_attr("protocol", protocol)
        trial.set_user_attr("metrics", {"fid": number / 8})
        study.tell(trial, trial.suggest_float("x", 0, 1))
    there = TrialCache(open_study(open_storage(tmp_path)))
    there.refresh()
    read = [trial.user_attrs["protocol"] for trial in there.all()]
    assert [(value, type(value["n"])) for value in read] == [(value, type(value["n"])) for value in protocols]
    assert [trial.user_attrs["metrics"] for trial in there.all()] == [{"fid": number / 8} for number in range(4)]
    assert read[0] is read[1]
    assert len({id(trial.distributions["x"]) for trial in there.all()}) == 1
    assert len({id(name) for trial in there.all() for name in trial.user_attrs["metrics"]}) == 1
