"""Several drivers of a study: each trial has a single owner, and the trials of a dead driver are taken over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from optuna.trial import TrialState

from coldtune.processes import this_process
from coldtune.studies.drivers.election import DriverLease, driver_lease
from coldtune.studies.drivers.registry import DriverRegistry, FolderRegistry, registry_of
from coldtune.studies.execution import joined
from coldtune.studies.execution.joined import set_up_by_others, wait_for_others
from coldtune.studies.progress.events import Events
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.reading import StudyReader
from coldtune.studies.trials.setup import open_study

Join = Callable[[], Ledger]


def driver(spec: StudySpec, space: Space, folder: Path, url: str | None, stack: ExitStack) -> Ledger:
    storage = open_storage(folder, url)
    registry = registry_of(open_study("study", spec, storage), folder, url)
    lease = stack.enter_context(driver_lease(registry, "study", join=True))
    assert set_up_by_others(open_study("study", spec, storage), lease) != lease.leads()
    made = open_ledger("study", spec, space, storage, lease=lease)
    write_study(made.study, trials=9)
    return made


@pytest.fixture(params=["journal", "postgresql"])
def join(request: pytest.FixtureRequest, spec: StudySpec, space: Space, tmp_path: Path) -> Iterator[Join]:
    """Return a function that adds a driver of the study, as another process would."""
    url = request.getfixturevalue("postgres").database() if request.param == "postgresql" else None
    with ExitStack() as stack:
        yield lambda: driver(spec, space, tmp_path, url, stack)


def die(ledger: Ledger) -> None:
    """Pretend that the driver's process was killed: its note stays, and its process is gone."""
    key = f"driver:{ledger.lease.token}"
    ledger.lease.registry.put(key, {**ledger.lease.registry.get(key), "process": "0"})


def end(ledger: Ledger, number: int) -> None:
    ledger.complete(number, TrialOutcome({"fid": float(number), "ssim": 0.5}))


def test_drivers_together_ask_as_many_trials_as_wanted(join: Join) -> None:
    ledgers = [join() for _ in range(4)]
    start = threading.Barrier(len(ledgers))

    def ask(ledger: Ledger) -> list[int]:
        start.wait()
        numbers = []
        while (asked := ledger.ask(10)) is not None:
            numbers.append(asked.number)
        return numbers

    with ThreadPoolExecutor(len(ledgers)) as pool:
        asked = list(pool.map(ask, ledgers))
    assert sorted(number for numbers in asked for number in numbers) == list(range(10)), "each trial has one owner"
    assert [trial.number for trial in ledgers[0].trials() if trial.state == TrialState.RUNNING] == list(range(10))
    for ledger, numbers in zip(ledgers, asked, strict=True):
        assert ledger.running() == sorted(numbers)
        elsewhere = [trial.number for trial in ledger.ownership.elsewhere()]
        assert elsewhere == sorted(set(range(10)) - set(numbers))
        assert ledger.wanted(10) == 0
        assert ledger.wanted(12) == 2
    more = [ledger.ask(12) for ledger in ledgers[:3]]
    assert [request and request.number for request in more] == [10, 11, None], "queued trials come first"


def test_ownership_trials_of_a_dead_driver_go_to_the_leader(join: Join) -> None:
    first, second, third = join(), join(), join()
    numbers = [ledger.ask(9).number for ledger in (first, second, third)]
    fourth = join()
    for ledger in (first, second, third, fourth):
        ledger.ownership.take_over()
        assert ledger.interrupted() == []
    die(second)
    for ledger in (fourth, third, first):
        ledger.ownership.take_over()
    assert (fourth.interrupted(), third.interrupted(), first.interrupted()) == ([], [], [numbers[1]])
    again = first.ask(9)
    assert (again.number, again.again) == (numbers[1], True)
    assert again.config == second.space.resolve(second.trials()[numbers[1]].params)

    assert second.ownership.lost(numbers[1]), "the driver may only have been stopped for a while"
    second.ownership.give_up(numbers[1])
    assert not first.ownership.lost(numbers[1])
    end(first, numbers[1])
    die(first)
    third.ownership.take_over()
    fourth.ownership.take_over()
    assert (third.interrupted(), fourth.interrupted()) == ([numbers[0]], []), "the driver that came next leads"


def test_ownership_trial_without_owner_is_left_alone_while_others_live(
    spec: StudySpec, space: Space, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        first, second = (driver(spec, space, tmp_path, None, stack) for _ in range(2))
        second.study.ask()
        first.ownership.take_over()
        assert first.interrupted() == []
        die(second)
        first.ownership.take_over()
        assert first.interrupted() == [0]


def test_ownership_trials_of_the_last_driver_are_resumed(spec: StudySpec, space: Space, tmp_path: Path) -> None:
    with ExitStack() as stack:
        ledger = driver(spec, space, tmp_path, None, stack)
        number = ledger.ask(3).number
    with ExitStack() as stack:
        again = driver(spec, space, tmp_path, None, stack)
        assert again.interrupted() == [number]


def test_wait_for_others_only_the_leader_waits(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = join(), join()
    numbers = [ledger.ask(2).number for ledger in (first, second)]
    end(first, numbers[0])
    assert not wait_for_others(second, Events(), 2)
    monkeypatch.setattr(joined.time, "sleep", lambda _: end(second, numbers[1]))
    assert not wait_for_others(first, Events(), 2), "the other trial ended while this driver waited"
    assert first.finished() == 2


def test_wait_for_others_returns_once_another_driver_dies(
    spec: StudySpec, space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        first, second = (driver(spec, space, tmp_path, None, stack) for _ in range(2))
        number = second.ask(1).number

        class TakeOver(Events):
            def tick(self) -> None:
                first.ownership.take_over()

        monkeypatch.setattr(joined.time, "sleep", lambda _: die(second))
        assert wait_for_others(first, TakeOver(), 1)
        assert first.ask(1).number == number


def test_study_reader_writes_nothing_and_knows_interrupted_trials(
    spec: StudySpec, space: Space, tmp_path: Path
) -> None:
    registry: DriverRegistry = FolderRegistry(tmp_path / "drivers")
    with ExitStack() as stack:
        ledger = driver(spec, space, tmp_path, None, stack)
        ledger.ask(3)
        before = (tmp_path / "journal.log").read_bytes()

        def look() -> StudyReader:
            return StudyReader(open_study("study", spec, open_storage(tmp_path)), spec, space, DriverLease(registry))

        assert look().interrupted() == []
        die(ledger)
        assert look().interrupted() == [0]
        assert (tmp_path / "journal.log").read_bytes() == before


def test_folder_registry_keeps_and_removes_notes(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "drivers")
    assert registry.all() == {}
    assert registry.get("driver:a") is None
    registry.put("driver:a", this_process())
    registry.put("beat:a", 3)
    registry.put("driver:b", None)
    assert FolderRegistry(tmp_path / "drivers").all() == {"driver:a": this_process(), "beat:a": 3}
    registry.put("beat:a", None)
    assert registry.all() == {"driver:a": this_process()}
