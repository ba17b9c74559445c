"""Driver leases: a single driver leads, on any storage and machine, and a dead driver blocks nobody."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest

from coldtune import processes
from coldtune.studies.drivers import election as module
from coldtune.studies.drivers.election import DriverLease, driver_lease
from coldtune.studies.drivers.registry import DriverRegistry, registry_of
from coldtune.studies.storage.backends import open_storage

SECONDS = 1.5  # instead of a minute, for a driver that counts as dead in a test
ALIVE_S = 18.0  # instead of a minute, for a living driver: a busy machine may delay its signs of life by seconds
Open = Callable[[], DriverRegistry]


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Return a function that opens the study's registry, as another process would."""
    url = f"sqlite:///{tmp_path}/optuna.db" if request.param == "sqlite" else None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").database()
    return opener(tmp_path, url)


@pytest.fixture
def journal(tmp_path: Path) -> Open:
    return opener(tmp_path, None)


def opener(folder: Path, url: str | None) -> Open:
    def open_() -> DriverRegistry:
        study = optuna.create_study(study_name="study", storage=open_storage(folder, url), load_if_exists=True)
        return registry_of(study, folder, url)

    open_()
    return open_


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every process seem to run on another machine, so that only signs of life tell whether it is alive."""
    monkeypatch.setattr(module, "here", lambda process: False)


def test_driver_lease_announced_dashboard_is_seen_by_readers(opened: Open) -> None:
    with driver_lease(opened(), "study", join=False) as lease:
        assert [driver.dashboard for driver in DriverLease(opened()).others()] == [""]
        lease.announce("127.0.0.1:8265")
        assert [driver.dashboard for driver in DriverLease(opened()).others()] == ["127.0.0.1:8265"]
        assert lease.leads(), "its place stays"
    assert not DriverLease(opened()).others()


def test_driver_lease_second_driver_is_refused_and_told_what_to_do(opened: Open) -> None:
    with driver_lease(opened(), "study", join=False):
        said = rf"--study study: is being run by process {os.getpid()} on \S+ since .*kill -INT {os.getpid()}.*--join"
        with pytest.raises(ValueError, match=said), driver_lease(opened(), "study", join=False):
            pass
        assert DriverLease(opened()).others(), "the first still holds it"
    assert not DriverLease(opened()).others()
    with driver_lease(opened(), "study", join=False) as again:
        assert again.leads()


def test_driver_lease_joined_drivers_lead_in_order_of_arrival(opened: Open) -> None:
    with ExitStack() as rest:
        with driver_lease(opened(), "study", join=True) as first:
            second, third = (rest.enter_context(driver_lease(opened(), "study", join=True)) for _ in range(2))
            assert [driver.leads() for driver in (first, second, third)] == [True, False, False]
            assert [other.token for other in third.others()] == [first.token, second.token]
            assert third.alive(first.token)
        assert not third.alive(first.token)
        assert [driver.leads() for driver in (second, third)] == [True, False]


def test_driver_lease_of_many_at_once_a_single_driver_leads(journal: Open) -> None:
    together, refused = threading.Barrier(8), threading.Semaphore(0)

    def run(_: int) -> bool:
        registry = journal()
        together.wait()
        try:
            with driver_lease(registry, "study", join=False):
                return all(refused.acquire(timeout=60) for _ in range(7))
        except ValueError:
            refused.release()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run, range(8))) == 1


@pytest.mark.usefixtures("elsewhere")
def test_driver_lease_of_many_at_once_elsewhere_a_single_driver_leads(journal: Open) -> None:
    together, over = threading.Barrier(3), threading.Barrier(3)

    def run(_: int) -> bool:
        registry = journal()
        together.wait()
        with driver_lease(registry, "study", join=True, seconds=ALIVE_S) as driver:
            over.wait()
            leads = driver.leads()
            over.wait()
        return leads

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(run, range(3))) == 1


def test_driver_lease_of_a_killed_driver_is_free_at_once(journal: Open, tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from coldtune.studies.drivers.registry import FolderRegistry\n"
        "from coldtune.studies.drivers.election import driver_lease\n"
        "with driver_lease(FolderRegistry(Path(sys.argv[1]) / 'drivers'), 'study', join=False):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=f"process {other.pid} "), driver_lease(journal(), "study", join=False):
            pass
        other.kill()
    before = time.monotonic()
    with driver_lease(journal(), "study", join=False, waiting=lambda text: pytest.fail(text)):
        assert time.monotonic() - before < module.DEAD_AFTER_S


@pytest.fixture
def silent(journal: Open) -> DriverLease:
    """A driver that has taken a place and gives no sign of life."""
    dead = DriverLease(journal(), SECONDS)
    dead.acquire()
    return dead


@pytest.mark.usefixtures("elsewhere")
def test_driver_lease_of_a_silent_driver_elsewhere_is_taken_after_watching(journal: Open, silent: DriverLease) -> None:
    told: list[str] = []
    before = time.monotonic()
    with driver_lease(journal(), "study", join=False, waiting=told.append) as driver:
        assert time.monotonic() - before >= SECONDS
        assert driver.leads()
        assert not driver.alive(silent.token)
    (said,) = told
    assert f"watching for up to {SECONDS:g} s whether process {os.getpid()} on " in said


@pytest.mark.usefixtures("elsewhere")
def test_driver_lease_of_a_driver_that_wakes_up_gets_a_new_place(journal: Open, silent: DriverLease) -> None:
    with driver_lease(journal(), "study", join=False) as driver:
        stop = threading.Event()
        awake = threading.Thread(target=silent.send_beats, args=(stop,))
        awake.start()
        try:
            deadline = time.monotonic() + 60
            while not driver.alive(silent.token):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            stop.set()
            awake.join()
        assert driver.leads()
        assert not silent.leads()


@pytest.mark.usefixtures("elsewhere")
def test_driver_lease_of_a_living_driver_elsewhere_is_refused(journal: Open) -> None:
    refused = pytest.raises(ValueError, match="is being run by")
    with (
        driver_lease(journal(), "study", join=False, seconds=ALIVE_S),
        refused,
        driver_lease(journal(), "study", join=False),
    ):
        pass


def test_driver_lease_survives_a_storage_that_fails_once(journal: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with driver_lease(journal(), "study", join=False, seconds=SECONDS) as driver:
        put, failed = driver.registry.put, threading.Event()

        def fail(key: str, value: Any) -> None:
            if not failed.is_set():
                failed.set()
                raise OSError("the database is away")
            put(key, value)

        monkeypatch.setattr(driver.registry, "put", fail)
        assert failed.wait(60)
        beats = f"beat:{driver.token}"
        deadline = time.monotonic() + 60
        while (driver.registry.get(beats) or 0) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_process_with_a_reused_id_counts_as_gone() -> None:
    me = processes.this_process()
    assert processes.here(me)
    assert not processes.gone(me)
    assert processes.gone({**me, "process": "1"})
    assert not processes.gone({**me, "process": "1", "space": "another machine"})
