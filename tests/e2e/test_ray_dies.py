"""The raylet of the driver's node is killed, then the GCS. The driver ends by itself and prints how to resume."""

from __future__ import annotations

import re
import shlex

import pytest
from e2e_lab import Lab, Running, Runs, checkpoints_of, flags, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]


def resume_command(lab: Lab, run: Running, lost: str) -> str:
    """Wait for the end of a run that lost a process of Ray, and return the command that it printed to resume."""
    assert run.wait() == 130, run.text
    assert re.search(rf"Ray's {lost} \(127\.0\.0\.1:\d+\) died, and its trials with it", run.text), run.text
    assert "interrupted with 0 of 2 trials ended; nothing is lost" in run.text
    assert "Traceback" not in run.text
    lab.wait_until_empty()
    (command,) = re.findall(r"^  resume +(.+)$", run.text, re.MULTILINE)
    return str(command)


def test_driver_without_raylet_or_gcs_ends_and_prints_resume(lab: Lab) -> None:
    home = lab.path / "home"
    endless = {"training.steps": 50_000, "training.validate_every": 0, "training.checkpoint_every": 10}
    run = lab.sweep(home, "--trials", "2", *flags(**endless))
    run.until("two trainings", lambda: len(checkpoints_of(home)) == 2)
    (raylet,) = lab.processes_named("raylet")
    raylet.kill()
    command = resume_command(lab, run, "raylet")
    assert [trial.state for trial in study_of(home).trials] == [TrialState.RUNNING] * 2
    runs = Runs(home)
    for each in [*runs.parents, *runs.trials.values()]:
        assert (each.info.status, each.data.tags["coldtune.state"]) == ("KILLED", "interrupted")

    caught = {key: max(steps) for key, steps in checkpoints_of(home).items()}
    run = lab.start(shlex.split(command))

    def progress() -> bool:
        reached = checkpoints_of(home)
        return all(max(reached.get(key, [0])) > step for key, step in caught.items())

    run.until("progress of both trainings", progress)
    (gcs,) = lab.processes_named("gcs_server")
    gcs.kill()
    resume_command(lab, run, "GCS")
    assert checkpoints_of(home).keys() == caught.keys(), "both trainings continue and no other starts"
