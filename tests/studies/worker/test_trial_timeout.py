"""The time limit of a trial."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from coldtune.studies.worker.timeout import LateError, TrialTimeout


def test_trial_timeout_counts_time_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("coldtune.studies.worker.timeout.time", SimpleNamespace(monotonic=lambda: clock[0]))
    timeout = TrialTimeout(10.0, lambda _: None)
    clock[0] += 6
    timeout.pause()
    timeout.pause()
    clock[0] += 1000
    timeout.check()
    timeout.resume()
    timeout.resume()
    clock[0] += 4
    timeout.check()
    clock[0] += 0.5
    with pytest.raises(LateError, match=r"^ran longer than 10s \(--trial-timeout\)$"):
        timeout.check()
    assert timeout.ran() == 10.5


def test_trial_timeout_hanging_trial_is_ended_by_force() -> None:
    forced, reasons = threading.Event(), []
    with TrialTimeout(0.01, lambda reason: (reasons.append(reason), forced.set()), grace=0.02):
        assert forced.wait(60)
    assert reasons == ["ran longer than 0.01s (--trial-timeout)"]


def test_trial_timeout_trial_that_ends_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, forced = [100.0], threading.Event()
    monkeypatch.setattr("coldtune.studies.worker.timeout.time", SimpleNamespace(monotonic=lambda: clock[0]))
    with TrialTimeout(5.0, lambda _: forced.set(), grace=5.0):
        watching = [thread for thread in threading.enumerate() if thread.name == "coldtune-deadline"]
    with TrialTimeout(None, lambda _: forced.set(), grace=0.0) as endless:
        clock[0] += 1000
        endless.check()
    assert watching
    for thread in watching:
        thread.join(60)
        assert not thread.is_alive()
    assert not forced.is_set()
