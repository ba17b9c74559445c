"""The use of the machine in a trial's run: names, steps after a resume, and silence while the trial waits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from coldtune.studies.worker.system_metrics import SystemMetrics
from coldtune.tracking import Tracker


def records(spool: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (spool / "trial-0000.jsonl").read_text().splitlines())
    return [line for line in lines if line["op"] == "metrics"]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_system_metrics_are_recorded_and_continue_after_a_resume(tmp_path: Path) -> None:
    for count in (2, 4):
        with Tracker(tmp_path, "study", 0) as tracker, SystemMetrics(tracker, gpu=False, every=0.02):
            wait_for(lambda count=count: len(records(tmp_path)) >= count)  # type: ignore[misc]
    steps = [record["step"] for record in records(tmp_path)]
    assert steps == list(range(len(steps)))
    values = records(tmp_path)[-1]["values"]
    assert all(name.startswith("system/") for name in values)  # by which MLflow's page knows them
    assert 0 < values["system/system_memory_usage_megabytes"] * 1e6 < psutil.virtual_memory().total
    assert 0 < values["system/process_memory_usage_megabytes"] < values["system/system_memory_usage_megabytes"] * 2


def test_system_metrics_of_a_waiting_trial_are_not_recorded(tmp_path: Path) -> None:
    asked: list[bool] = []

    def waits() -> bool:
        asked.append(True)
        return True

    with Tracker(tmp_path, "study", 0) as tracker, SystemMetrics(tracker, gpu=False, waits=waits, every=0.01):
        wait_for(lambda: len(asked) > 2)
    assert records(tmp_path) == []
