"""Ray Train around the loop, on a real Ray: the same training, the same reports, the same ways to end."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from training_helpers import MakeTask, Reports

from coldtune.training import FolderCheckpoints, TrainingTask, train

pytestmark = pytest.mark.timeout(1800)
SCENARIOS = Path(__file__).with_name("ray_scenarios.py")


def run(scenario: str, task: TrainingTask, folder: Path) -> dict[str, Any]:
    (folder / "task.pickle").write_bytes(pickle.dumps(task))
    command = [sys.executable, str(SCENARIOS), scenario, str(folder), str(folder / "task.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert done.returncode == 0, done.stderr[-12000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.mark.e2e
@pytest.mark.slow
def test_two_workers_train_what_one_process_trains(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(steps=6, batch_size=9, report_every=2, validate_every=3, validate_images=19)
    seen = run("plain", task, tmp_path)
    train(task, FolderCheckpoints(tmp_path / "alone"), alone := Reports())
    assert {int(step) for step in seen["rows"]} == set(alone.rows)
    for step, row in alone.rows.items():
        for key in row.keys() - {"images_per_s"}:
            assert seen["rows"][str(step)][key] == pytest.approx(row[key], rel=1e-4), f"{key} at step {step}"
    found = FolderCheckpoints(tmp_path / "plain").latest(6)
    assert found
    assert seen["step"] == found[0] == 6
    assert seen["here"], "report runs in the caller's process and thread"
    assert seen["runs"] == [["plain", "FINISHED"]], "the dashboard lists the run"
    assert seen["workers_left"] == 0


@pytest.mark.e2e
@pytest.mark.slow
def test_failures_end_as_they_should(make_task: MakeTask, tmp_path: Path) -> None:
    seen = run("failing", make_task(steps=10, report_every=1, checkpoint_every=4), tmp_path)
    # Killed after step 7's report: the group went on from step 4, the last checkpoint, and finished.
    assert seen["killed"] == {"rows": [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10], "killed": 1, "resumed_from": 4}
    assert seen["diverged"].startswith("training diverged: the loss or its gradient is not finite at step 2;")
    # Terminated at the third report: the group was started again, and ended at the step whose report raised.
    *before, last = seen["stopped"]
    assert before == list(range(1, len(before) + 1))
    assert last == 1
    assert seen["aborted"] == [], "a terminated worker ends without SIGABRT"
    assert seen["workers_left"] == 0


@pytest.mark.e2e
@pytest.mark.slow
def test_a_trial_of_ray_tune_trains_over_workers(make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(steps=4, report_every=1)
    seen = run("nested", task, tmp_path)
    assert seen["errors"] == 0
    assert seen["last_steps"] == [4, 5], "one finished, one stopped by Tune at its step 5"
    assert seen["actors"] == 1, "a stopped training leaves its trial's process fit for the next"
    train(task, FolderCheckpoints(tmp_path / "alone"), alone := Reports())
    assert seen["reference_loss"] == [pytest.approx(alone.rows[4]["loss"], rel=1e-4)]
