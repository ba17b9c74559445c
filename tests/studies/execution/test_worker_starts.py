"""Trials whose process does not start: what is shown, and when the study ends."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from coldtune.studies.execution import worker_starts
from coldtune.studies.execution.cluster import Connection
from coldtune.studies.execution.raylet_log import RayletLog
from coldtune.studies.execution.worker_starts import STARTING, WAITING, WorkerStarts
from coldtune.studies.progress.events import StoppedError

CRASH = (
    "[2026-11-27 18:32:49,494 E 32646 32646] (raylet) worker_pool.cc:660: Some workers of the worker process(527) have "
    "not registered within the timeout. The process is dead, probably it crashed during start.\n"
)


class Machine:
    """A Ray of its own with a log, a clock that the test sets, and what the screen shows."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self.now, self.shown = folder / "raylet.err", 1000.0, dict[int, str]()
        self.log.write_text("")
        monkeypatch.setattr(worker_starts.time, "monotonic", lambda: self.now)
        self.starts = WorkerStarts(Connection(True, "", str(folder)), self.shown.__setitem__)

    def ask(self, number: int) -> None:
        self.starts.asked(SimpleNamespace(number=number, label=str(number)))  # type: ignore[arg-type]

    def write(self, text: str) -> None:
        self.log.write_text(self.log.read_text() + text)

    def tick_after(self, seconds: float) -> None:
        self.now += seconds
        self.starts.tick()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_worker_starts_asked_trial_is_said_to_start(machine: Machine) -> None:
    machine.ask(3)
    assert machine.shown == {3: STARTING}


def test_worker_starts_processes_that_die_end_the_study_with_cause_and_log(machine: Machine) -> None:
    machine.ask(0)
    machine.write("bash: line 1: /opt/a: No such file or directory\n" + CRASH)
    machine.tick_after(30)
    with pytest.raises(StoppedError) as stopped:
        machine.tick_after(40)
    assert str(stopped.value) == (
        "Ray cannot start worker processes on this machine, because they die while they start (bash: line 1: /opt/a: "
        f"No such file or directory). Ray's log is {machine.log}"
    )


def test_worker_starts_single_crash_is_tolerated_if_others_start(machine: Machine) -> None:
    machine.ask(0)
    machine.starts.started(0)
    machine.write(CRASH)
    machine.ask(1)  # the crash before this trial does not count
    machine.tick_after(70)
    machine.write(CRASH)
    machine.tick_after(60)
    machine.write(CRASH)
    with pytest.raises(StoppedError):
        machine.tick_after(60)


def test_worker_starts_slow_process_is_waited_for_but_not_without_end(machine: Machine) -> None:
    machine.ask(0)
    machine.tick_after(800)
    with pytest.raises(StoppedError, match=r"for trial 0 for 15m, although .* Ray's log is .*raylet\.err$"):
        machine.tick_after(200)


def test_worker_starts_running_trial_is_not_watched(machine: Machine) -> None:
    machine.ask(0)
    machine.starts.started(0)
    machine.write(CRASH * 3)
    machine.tick_after(10_000)


def test_worker_starts_old_crashes_of_a_cluster_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, clock, shown = {"text": CRASH * 5}, {"now": 0.0}, dict[int, str]()
    monkeypatch.setattr(worker_starts.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(worker_starts, "_logs_of_nodes", lambda: [RayletLog("node b", "its log", logs["text"])])
    waiting = {"starts": False}
    monkeypatch.setattr(worker_starts, "_is_starting", lambda: waiting["starts"])
    starts = WorkerStarts(Connection(False, ""), shown.__setitem__)
    starts.asked(SimpleNamespace(number=0, label="0"))  # type: ignore[arg-type]
    clock["now"] = 5000.0
    starts.tick()
    assert shown == {0: WAITING}, "a full cluster may be waited for without end"
    waiting["starts"] = True
    for clock["now"] in (5070.0, 5080.0):
        starts.tick()
    assert shown == {0: STARTING}
    logs["text"] += CRASH
    clock["now"] = 5150.0
    with pytest.raises(StoppedError, match=r"on node b, because they die while they start\. Ray's log is its log$"):
        starts.tick()
