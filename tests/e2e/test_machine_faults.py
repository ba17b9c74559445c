"""Real faults of the machine under a running study: it stops in order, says how to resume, and loses nothing."""

from __future__ import annotations

import re
import shlex
import shutil
import sys

import pytest
from e2e_lab import JOB, Lab, Running, checkpoints_of, flags, study_of
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800), pytest.mark.slow]

SHORT = {"training.steps": 600, "training.checkpoint_every": 10, "training.validate_every": 0}
ENDLESS = {"training.steps": 50_000, "training.validate_every": 0, "training.checkpoint_every": 10}


def resume_command(lab: Lab, run: Running, code: int) -> list[str]:
    """Wait for the end of a run that a fault of the machine stopped, and return the command that it printed."""
    assert run.wait() == code, run.text
    assert "Traceback" not in run.text, run.text
    assert re.search(r"interrupted with \d of 2 trials ended; nothing is lost", run.text), run.text
    lab.wait_until_empty()
    (command,) = re.findall(r"^  resume +(.+)$", run.text, re.MULTILINE)
    return shlex.split(command)


def test_study_whose_store_becomes_a_file_stops_and_resumes(lab: Lab) -> None:
    home = lab.path / "home"
    run = lab.sweep(home, "--trials", "2", *flags(**SHORT))
    run.until("a checkpoint", lambda: checkpoints_of(home))
    (home / "store").rename(home / "store-away")
    (home / "store").write_text("a file")
    command = resume_command(lab, run, 3)
    assert "stopped by a fault of the machine, not of a setting: trial " in run.text
    assert str(home / "store") in run.text
    assert {trial.state for trial in study_of(home).trials} == {TrialState.RUNNING}
    refused = lab.start(command)
    assert refused.wait() == 2, refused.text
    assert "is a file" in refused.text
    (home / "store").unlink()
    (home / "store-away").rename(home / "store")
    resumed = lab.start(command)
    assert resumed.wait() == 0, resumed.text
    lab.wait_until_empty()
    assert [trial.state for trial in study_of(home).trials] == [TrialState.COMPLETE] * 2


def test_study_whose_processes_are_killed_for_their_memory_stops_after_its_retries(lab: Lab) -> None:
    home = lab.path / "home"
    few = ["--trials", "2", "--retries", "1", *flags(**ENDLESS)]
    memory = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    run = lab.start([sys.executable, JOB, "--home", str(home), *few], **memory)
    resume_command(lab, run, 3)
    assert "Ray ended its process because the machine ran out of memory" in run.text
    assert TrialState.FAIL not in {trial.state for trial in study_of(home).trials}


def test_study_without_rays_session_folder_ends_as_interrupted(lab: Lab) -> None:
    home = lab.path / "home"
    run = lab.sweep(home, "--trials", "2", *flags(**ENDLESS))
    run.until("a checkpoint", lambda: checkpoints_of(home))
    shutil.rmtree(lab.session().resolve())
    resume_command(lab, run, 130)
    assert "Ray's session folder" in run.text
    assert [trial.state for trial in study_of(home).trials] == [TrialState.RUNNING] * 2
