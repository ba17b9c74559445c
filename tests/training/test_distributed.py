"""Training over several workers of Ray Train, on a real Ray: it equals a single process, and ends in the same ways."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from training_helpers import MakeTask, Reports, assert_same_rows

from coldtune.training import FolderCheckpoints, TrainingTask, train

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]
SCENARIOS = Path(__file__).with_name("ray_scenarios.py")
ANSWER = "answer: "

RunScenario = Callable[[str, TrainingTask, Path], dict[str, Any]]


@pytest.fixture(scope="module")
def run_scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunScenario]:
    """A function that runs a scenario of `ray_scenarios` and returns its observations. All tests share a Ray."""
    errors = tmp_path_factory.mktemp("ray") / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, SCENARIOS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        assert process.stdin
        assert process.stdout

        def run(scenario: str, task: TrainingTask, folder: Path) -> dict[str, Any]:
            pickled = folder / "task.pickle"
            pickled.write_bytes(pickle.dumps(task))
            print(scenario, folder, pickled, sep="\t", file=process.stdin, flush=True)
            line = next((line for line in process.stdout if line.startswith(ANSWER)), None)
            assert line, errors.read_text()[-12000:]
            seen: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
            assert "error" not in seen, seen["error"]
            assert seen["workers_left"] == 0
            assert seen["aborted"] == [], "no worker ends by SIGABRT"
            return seen

        yield run
        process.stdin.close()  # the end of its input ends the process, which shuts down Ray


def test_train_distributed_two_workers_equal_single_process(
    run_scenario: RunScenario, make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(steps=6, batch_size=9, report_every=2, validate_every=3, validate_images=19)
    seen = run_scenario("plain", task, tmp_path)
    train(task, FolderCheckpoints(tmp_path / "alone"), alone := Reports())
    assert_same_rows(dict(seen["rows"]), alone.rows)
    found = FolderCheckpoints(tmp_path / "plain").latest(6)
    assert found
    assert seen["step"] == found[0] == 6
    assert seen["reported in caller's thread"]
    assert seen["statuses"] == ["FINISHED"], "the dashboard lists the run"


def test_train_distributed_failures_restart_or_end_the_group(
    run_scenario: RunScenario, make_task: MakeTask, tmp_path: Path
) -> None:
    seen = run_scenario("failing", make_task(steps=10, report_every=1, checkpoint_every=4), tmp_path)
    # Killed after the report of step 7: the group continued from step 4, the last checkpoint, and finished.
    assert seen["killed"] == {"rows": [1, 2, 3, 4, 5, 6, 7, 5, 6, 7, 8, 9, 10], "killed": 1, "resumed_from": 4}
    assert seen["diverged"].startswith("training diverged: the loss or its gradient is not finite at step 2.")
    # Terminated at the third report: the group was started again, and ended at the step whose report raised.
    *before, last = seen["stopped"]
    assert before == list(range(1, len(before) + 1))
    assert last == 1


def test_train_distributed_in_tune_trials_finishes_and_reuses_actor(
    run_scenario: RunScenario, make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task(steps=4, report_every=1)
    seen = run_scenario("nested", task, tmp_path)
    assert seen["errors"] == 0
    assert seen["last_steps"] == [4, 5], "Tune stopped the first trial at its step 5, and the second finished"
    assert seen["actors"] == 1, "the process of a stopped trial can run the next trial"
    train(task, FolderCheckpoints(tmp_path / "alone"), alone := Reports())
    assert seen["loss of step 4"] == [pytest.approx(alone.rows[4]["loss"], rel=1e-4)]
