"""Several drivers at once, each with its own Ray: on a single study, and on two studies that share a store."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from e2e_lab import Lab, Running, Runs, checkpoints_of, flags, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.heavy, pytest.mark.timeout(3600)]


def sweep(lab: Lab, home: Path, *arguments: str) -> Running:
    """Start a driver whose Ray shares nothing with other drivers."""
    ray = tempfile.mkdtemp(prefix="t", dir=lab.ray)
    return lab.start([sys.executable, "jobs/sweep_blur.py", "--home", str(home), *arguments], RAY_TMPDIR=ray)


def owners(home: Path, *states: TrialState) -> dict[int, str]:
    study = study_of(home)
    trials = study.get_trials(states=states or None) if study else []
    owner = "coldtune:owner"
    return {trial.number: trial.system_attrs[owner] for trial in trials if owner in trial.system_attrs}


def token_of(home: Path, driver: Running) -> str:
    """Return the token of a driver that runs the study."""
    (note,) = [
        note
        for note in home.glob("studies/*/drivers/driver:*")
        if json.loads(note.read_text())["pid"] == driver.process.pid
    ]
    return note.name.partition(":")[2]


def test_joined_driver_takes_over_trials_of_killed_driver(lab: Lab) -> None:
    home, trials = lab.path / "home", ["--trials", "6", *flags(**{"training.steps": 360})]
    first = sweep(lab, home, *trials)
    first.until("the first driver's file", lambda: list(home.glob("studies/*/drivers/driver:*")))
    second = sweep(lab, home, *trials, "--join")  # at once, because both drivers take a while to start Ray
    refused = sweep(lab, home, *trials)
    assert refused.wait() == 2, refused.text
    assert re.search(
        rf"is being run by process {first.process.pid} on .*kill -INT {first.process.pid}.*--join", refused.text
    )

    second.until("running trials of both drivers", lambda: len(set(owners(home, TrialState.RUNNING).values())) == 2)
    assert re.search(rf"joins +process {first.process.pid} on ", second.text)
    one, two = (token_of(home, driver) for driver in (first, second))
    left = [number for number, owner in owners(home, TrialState.RUNNING).items() if owner == one]
    os.killpg(first.process.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL

    assert second.wait() == 0, second.text
    lab.wait_until_empty()
    study, runs = study_of(home), Runs(home)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6, "exactly as many as requested"
    owned = owners(home)
    assert set(owned.values()) <= {one, two}
    assert two in {owned[number] for number in left}, (
        "the second driver took over; a trial that ended before the kill stays with the first driver"
    )
    assert study.user_attrs["test"]["trial"] == study.best_trial.number
    (parent,) = runs.parents
    assert sorted(runs.trials) == list(range(6))
    assert {run.info.status for run in [parent, *runs.trials.values()]} == {"FINISHED"}
    assert parent.data.metrics["study/trials_ended"] == 6
    assert parent.data.metrics["best/fid"] == study.best_value


def test_two_studies_sharing_a_store_train_common_trials_once(lab: Lab) -> None:
    """Both studies begin with the base and the same random points. They differ only in `search.startup`."""
    home = lab.path / "home"
    each = [sweep(lab, home, "--trials", "3", "--study", name, *flags(**{"search.startup": startup}))
            for name, startup in (("a", 8), ("b", 9))]  # fmt: skip
    assert [run.wait() for run in each] == [0, 0], "\n".join(run.text for run in each)
    lab.wait_until_empty()
    both = [study_of(home, name).trials for name in ("a", "b")]
    assert [trial.params for trial in both[0]] == [trial.params for trial in both[1]]
    assert [trial.values for trial in both[0]] == [trial.values for trial in both[1]]
    made = Counter(str(key) for trial in [*both[0], *both[1]] for stage, key, found, _ in stages(trial) if not found)
    wanted = {str(key) for trial in both[0] for _, key, *_ in stages(trial)}
    assert set(made) == wanted
    assert set(made.values()) == {1}, "one study makes each training, sampling and measurement, the other reuses it"

    before = checkpoints_of(home)
    gc = lab.start([sys.executable, "-m", "coldtune", "store", "gc", "--yes", "--older", "0", "--home", str(home)])
    assert gc.wait() == 0, gc.text
    last = {key: {max(steps): steps[max(steps)]} for key, steps in before.items()}
    assert checkpoints_of(home) == last, "gc removes intermediate checkpoints, and nothing that either study needs"
    for trial in [*both[0], *both[1]]:
        paths = [trial.user_attrs["checkpoint"], *trial.user_attrs["images"].values()]
        assert all(Path(path).is_dir() for path in [*paths, *trial.user_attrs["measured"].values()])


def stages(trial: Any) -> list[tuple[str, str, bool, float]]:
    return [tuple(stage) for stage in trial.user_attrs["stages"]]
