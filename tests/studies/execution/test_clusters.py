"""The executor on real nodes (several on this machine): they die, GPUs are shared, processes are used again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(900)]
SCENARIOS = Path(__file__).with_name("cluster_scenarios.py")
STEPS = 5


def run(scenario: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(SCENARIOS), scenario, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-8000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_a_cluster_that_shrinks(tmp_path: Path) -> None:
    """A trial on each of two nodes: one dies, and its trial goes on on the other; that dies too, and the study ends."""
    seen = run("shrinks", tmp_path)
    first, (one, two) = seen["first"], seen["nodes"]
    assert first["states"] == ["COMPLETE"] * 4
    assert first["ended"] == [[number, 1] for number in range(4)], "each once"
    ((moved, times),) = first["restarts"]
    assert times == 1
    before, after = [(step, node) for number, step, _, node in first["begun"] if number == moved]
    assert before == (0, two)
    # A process may outlive its raylet by seconds, and count on.
    assert after[0] >= 2, "from its last checkpoint"
    assert after[1] == one, "on the node that is left"
    assert {node for _, _, _, node in first["begun"][2:]} == {one}
    assert seen["count"] == 1, "fewer at once"
    assert seen["stopped"].startswith("the cluster is too small: a trial needs 1 CPU, the cluster now has 0 CPUs")
    assert [text.partition(":")[0] for text in seen["second"]["said"]] == ["waiting for nodes"]
    assert seen["second"]["states"] == ["RUNNING"]
    assert seen["live"] == [0], "which a resume takes up"


def test_trials_share_gpus_as_ray_can_give_them(tmp_path: Path) -> None:
    """0.4 of a GPU each, two GPUs: four at once, two on each, never a third."""
    seen = run("gpus", tmp_path)
    assert seen["slots"] == [4, 0.4]
    assert seen["states"] == ["COMPLETE"] * 6
    assert [most for _, most in seen["most"]] == [2, 2]


def test_one_process_runs_trial_after_trial(tmp_path: Path) -> None:
    """Also after a failure; after a death, or a hang, another does. Then a study whose trials only fail stops."""
    seen = run("processes", tmp_path)
    mixed = seen["mixed"]
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
    assert len(set(pids[:4])) == 1, "one process until trial 3 died, whatever became of trial 1"
    assert len({pids[0], pids[4], pids[5], pids[7]}) == 4, "a new one after each death, and after the hang"
    assert pids[5] == pids[6]
    assert pids[7] == pids[8], "which noted the hang, and ran the next trial"
    assert mixed["restarts"] == [[3, 1]], "what was ended by force is not announced as going on"
    failing = seen["failing"]
    assert seen["stopped"].startswith(
        "the last 3 trials failed, one after the other; the last one: ValueError: told to"
    )
    assert failing["states"][:5] == ["COMPLETE"] * 2 + ["FAIL"] * 3
    assert "FAIL" not in failing["states"][5:]
    assert len(failing["states"]) <= 6, "the rest of its budget is not spent"
