"""The executor on a cluster of several nodes: nodes die, trials share GPUs, and processes run several trials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
SCENARIOS = Path(__file__).with_name("cluster_scenarios.py")

Scenario = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Run all scenarios, and return the observations of each."""
    command = [sys.executable, str(SCENARIOS), str(tmp_path_factory.mktemp("scenarios"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-8000:]
    seen = json.loads(done.stdout.splitlines()[-1])

    def observed(name: str) -> dict[str, Any]:
        assert "error" not in seen[name], f"{seen[name]['error']}\n{done.stderr[-4000:]}"
        return dict(seen[name])

    return observed


def test_execute_process_runs_trial_after_trial_until_it_dies(scenario: Scenario) -> None:
    mixed = scenario("processes")["mixed"]
    assert mixed["states"] == ["COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert mixed["ended"] == [[number, 1] for number in range(7)]
    assert mixed["reasons"] == {
        "1": "ValueError: told to fail",
        "3": "its process died 2 times",
        "5": "ran longer than 0.5s (--trial-timeout)",
    }
    begun = [(number, step) for number, step, _, _ in mixed["begun"]]
    assert begun == [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (5, 0), (5, 0), (6, 0)]
    pids = [pid for _, _, pid, _ in mixed["begun"]]
    assert len(set(pids[:4])) == 1, "the process lives until trial 3 dies, although trial 1 fails"
    assert len({pids[0], pids[4], pids[5], pids[7]}) == 4, "each death and the hang cost a process"
    assert pids[5] == pids[6]
    assert pids[7] == pids[8], "the process that reports the hang runs the next trial"
    assert mixed["restarts"] == [[3, 1]], "a trial that is ended by force is not announced as restarted"


def test_execute_failures_in_a_row_stop_the_study(scenario: Scenario) -> None:
    seen = scenario("processes")
    assert seen["stopped"].startswith(
        "the last 3 trials failed, one after the other; the last one: ValueError: told to"
    )
    states = seen["failing"]["states"]
    assert states[:5] == ["COMPLETE"] * 2 + ["FAIL"] * 3
    assert "FAIL" not in states[5:]
    assert len(states) <= 6, "the other 14 trials are not asked"


def test_execute_fractions_of_a_gpu_fit_on_one_gpu(scenario: Scenario) -> None:
    """With 0.4 GPUs for each trial, two GPUs run four trials at once, and none of the GPUs runs a third."""
    seen = scenario("gpus")
    assert seen["planned"] == [4, 0.4]
    assert seen["states"] == ["COMPLETE"] * 6
    assert [most for _, most in seen["most"]] == [2, 2]


def test_execute_trial_of_a_dead_node_resumes_on_another_node(scenario: Scenario) -> None:
    seen = scenario("shrinks")
    first, (one, two) = seen["first"], seen["nodes"]
    assert first["states"] == ["COMPLETE"] * 4
    assert first["ended"] == [[number, 1] for number in range(4)]
    ((moved, times),) = first["restarts"]
    assert times == 1
    before, after = [(step, node) for number, step, _, node in first["begun"] if number == moved]
    assert before == (0, two)
    # It resumes from its last checkpoint, which may be later than 2: a process can outlive its raylet by seconds.
    assert after[0] >= 2
    assert after[1] == one
    assert {node for _, _, _, node in first["begun"][2:]} == {one}
    assert seen["count"] == 1, "a single trial runs at once on the remaining node"


def test_execute_cluster_without_nodes_stops_the_study(scenario: Scenario) -> None:
    seen = scenario("shrinks")
    assert seen["stopped"].startswith("the cluster is too small: a trial needs 1 CPU, the cluster now has 0 CPUs")
    assert [sentence.partition(":")[0] for sentence in seen["second"]["sentences"]] == ["waiting for nodes"]
    assert seen["second"]["states"] == ["RUNNING"]
    assert seen["live"] == [0], "a later run resumes the trial"
