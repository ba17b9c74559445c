"""When a study stops by itself, and when a trial has run for too long."""

from __future__ import annotations

import argparse
import json
import re
import threading
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coldtune.durations import parse_duration
from coldtune.studies.execution.stopping import StopConditions
from coldtune.studies.preflight.options import Limits, RunOptions
from coldtune.studies.progress.events import StoppedError
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.worker.timeout import LateError, TrialTimeout


@pytest.mark.parametrize("field", ["retries", "max_failures"])
def test_limits_below_zero(field: str) -> None:
    with pytest.raises(ValueError, match=f"--{field.replace('_', '-')} -1: 0 or more"):
        Limits(**{field: -1})


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    RunOptions.add_flags(parser)
    return parser.parse_args(arguments)


def test_options_without_flags_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = RunOptions.from_flags(parsed(), home=tmp_path, command="x", begun=0.0)
    assert made == RunOptions(home=tmp_path, command="x", begun=0.0)


def test_options_tracking_uri_comes_from_the_flag_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env:1")
    assert RunOptions.from_flags(parsed(), home=tmp_path, command="x").tracking_uri == "http://env:1"
    flags = parsed("--tracking-uri", "http://flag:1")
    assert RunOptions.from_flags(flags, home=tmp_path, command="x").tracking_uri == "http://flag:1"


def test_options_come_back_from_start_json(tmp_path: Path) -> None:
    flags = parsed(
        "--data-dir", "data", "--tracking-uri", "u", "--storage", "s", "--store", "p", "--workers", "2",
        "--gpus-per-trial", "0.5", "--retries", "7", "--trial-timeout", "1h", "--wait-for-nodes", "2m",
        "--resume", "--join", "--study", "not kept",
    )  # fmt: skip
    made = RunOptions.from_flags(flags, home=tmp_path, command="x", begun=0.0)
    start = json.loads(json.dumps({**made.to_start(), "command": "x"}))
    again = RunOptions.from_start(tmp_path, start, begun=0.0)
    assert again == replace(made, data_dir=Path("data").absolute(), resume=False, join=False, name=None)
    assert again.limits == Limits(retries=7, trial_timeout=3600, patience=120)


def test_options_missing_from_an_old_start_json_have_their_defaults(tmp_path: Path) -> None:
    old = {"command": "x", "data_dir": None, "tracking_uri": None, "storage": None, "workers": 1, "gpus_per_trial": 0.0}
    assert RunOptions.from_start(tmp_path, old, begun=0.0) == RunOptions(home=tmp_path, command="x", begun=0.0)


def test_options_help_names_the_real_default() -> None:
    parser = argparse.ArgumentParser()
    RunOptions.add_flags(parser)
    said = {action.dest: re.search(r"\(default (\d\w*)", action.help or "") for action in parser._actions}
    defaults = {one.name: one.default for one in [*fields(RunOptions), *fields(Limits)]}
    shown = {name: found[1] for name, found in said.items() if found}
    assert shown.keys() == {"workers", "gpus_per_trial", "retries", "max_failures", "patience"}
    for name, text in shown.items():
        assert (parse_duration("", text) if text[-1].isalpha() else float(text)) == defaults[name]


def stops(empty: float = 0.0, **limits: Any) -> tuple[StopConditions, list[str], SimpleNamespace]:
    said: list[str] = []
    room = SimpleNamespace(empty=empty)
    room.empty_for = lambda: room.empty
    return StopConditions(Limits(**limits), room, said.append), said, room  # type: ignore[arg-type]


def test_failures_in_a_row_stop_a_study_and_others_do_not() -> None:
    made, _, _ = stops(max_failures=3)
    for ending in "ffcffcff":
        made.failed(0, "ValueError: bad") if ending == "f" else made.completed(0, TrialOutcome())
        made.tick()
    made.failed(7, "ValueError: worse\nand more")
    with pytest.raises(StoppedError, match=r"last 3 trials failed.*: ValueError: worse \(--max-failures 3\)$"):
        made.tick()


def test_zero_means_never() -> None:
    made, _, _ = stops(max_failures=0)
    for number in range(100):
        made.failed(number, "x")
        made.tick()


def test_a_cluster_without_room_is_waited_for() -> None:
    made, said, room = stops(patience=60)
    made.tick()
    for room.empty in (1, 30, 60):
        made.tick()
    assert len(said) == 1
    assert said[0].startswith("waiting for nodes: ")
    assert said[0].endswith("; ends in 1m unless they come")
    room.empty = 0
    made.tick()
    made.tick()
    assert said[1:] == ["the cluster has room again"]
    room.empty = 61
    with pytest.raises(StoppedError, match=r"the cluster is too small: .*for 1m now"):
        made.tick()


def test_a_deadline_counts_what_is_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("coldtune.studies.worker.timeout.time", SimpleNamespace(monotonic=lambda: clock[0]))
    deadline = TrialTimeout(10.0, lambda _: None)
    clock[0] += 6
    deadline.pause()
    deadline.pause()
    clock[0] += 1000
    deadline.check()
    deadline.resume()
    deadline.resume()
    clock[0] += 4
    deadline.check()
    clock[0] += 0.5
    with pytest.raises(LateError, match=r"^ran longer than 10s \(--trial-timeout\)$"):
        deadline.check()
    assert deadline.ran() == 10.5


def test_a_trial_that_hangs_is_ended_by_force() -> None:
    forced, reasons = threading.Event(), []
    with TrialTimeout(0.01, lambda reason: (reasons.append(reason), forced.set()), grace=0.02):
        assert forced.wait(60)
    assert reasons == ["ran longer than 0.01s (--trial-timeout)"]


def test_one_that_ended_in_time_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
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
