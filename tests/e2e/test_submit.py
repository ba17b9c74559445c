"""A job that is submitted to a running cluster, with and without a working directory.

After each interruption the code is edited and submitted again. The study continues, with the edited code.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e_lab import (
    JOB,
    ROOT,
    SETTINGS,
    Lab,
    Running,
    Runs,
    checkpoints_of,
    flags,
    free_ports,
    study_of,
    title,
    wait_for,
)
from optuna.trial import TrialState

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]
EDITED = "platform/coldtune/studies/worker/trial.py"
LAST = SETTINGS["training.steps"]


@dataclass
class Cluster:
    """A Ray head with a token, started in a copy of the repository."""

    lab: Lab
    clone: Path
    dashboard: str

    def submit(self, name: str, *flags_: str) -> Running:
        """Submit two trials from the copy by `ray job submit`. `name` becomes the id of the submission."""
        command = ["ray", "job", "submit", "--submission-id", name, *flags_, "--", "python", JOB, "--trials", "2"]
        return self.lab.start([*command, *flags()], cwd=self.clone, RAY_ADDRESS=self.dashboard)

    def job(self, name: str) -> dict[str, Any]:
        jobs: list[dict[str, Any]] = self.lab.get(self.dashboard, "/api/jobs/")
        (job,) = [job for job in jobs if job["submission_id"] == name]
        return job

    def edit(self, text: str) -> None:
        """Make the copy's workers print `text` and the file of the code that they run."""
        path = self.clone / EDITED
        original = (ROOT / EDITED).read_text()
        path.write_text(f"{original}\n\nprint('===', {text!r}, __file__, flush=True)\n")

    def said(self, text: str, driver: Running) -> set[str]:
        """Return the files of the code that the driver and its actors ran after the edit `text`."""
        lines = [*driver.text.splitlines(), *(line for log in self.lab.trial_logs() for line in log)]
        head = f"=== {text} "
        return {line.removeprefix(head) for line in lines if line.startswith(head)}

    def idle(self) -> None:
        """Wait until no trial runs. An actor that outlives its driver makes the test fail here."""
        titles = lambda: [title(process) for process in self.lab.processes()]  # noqa: E731
        wait_for("the end of the trials", lambda: not any(each.startswith("ray::coldtune") for each in titles()))


@pytest.fixture
def cluster(lab: Lab) -> Iterator[Cluster]:
    clone = lab.path / "clone"
    clone.mkdir()
    for name in ("platform", "jobs", "search_spaces"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, clone / name)
    # Without a working directory a submission writes to ./runs, else to the user's coldtune-runs. A link joins the two.
    (clone / "runs").mkdir()
    (lab.user / "coldtune-runs").symlink_to(clone / "runs")

    port, dashboard, agent, client = free_ports(4)
    ports = {"port": port, "dashboard-port": dashboard, "dashboard-agent-listen-port": agent}
    ports |= {"ray-client-server-port": client, "min-worker-port": 0, "max-worker-port": 0}
    head = lab.start(
        ["ray", "start", "--head", "--num-cpus=2", *(f"--{name}={value}" for name, value in ports.items())],
        cwd=clone,
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    )
    assert head.wait() == 0, head.text
    yield Cluster(lab, clone, f"http://127.0.0.1:{dashboard}")
    lab.kill_all()


def test_submitted_study_edited_and_resubmitted_continues_with_edited_code(lab: Lab, cluster: Cluster) -> None:
    home = cluster.clone / "runs"

    def newest() -> float:
        return max((when for steps in checkpoints_of(home).values() for when in steps.values()), default=0.0)

    # First submission, without a working directory: stopped while it trains.
    cluster.edit("first edit")
    run = cluster.submit("first")
    run.until("a checkpoint", newest)
    lab.post(cluster.dashboard, "/api/jobs/first/stop")  # the request that `ray job stop` sends
    run.wait()
    assert cluster.job("first")["status"] == "STOPPED"
    assert cluster.said("first edit", run) == {str(cluster.clone / EDITED)}
    cluster.idle()
    caught = {key: max(steps) for key, steps in checkpoints_of(home).items()}
    assert min(caught.values()) < LAST

    # Second submission, edited and with a working directory: its driver is killed.
    cluster.edit("second edit")
    run, before = cluster.submit("second", "--working-dir", "."), newest()
    run.until("another checkpoint", lambda: newest() > before)
    psutil.Process(int(cluster.job("second")["driver_info"]["pid"])).kill()
    assert run.wait() != 0
    assert cluster.job("second")["status"] == "FAILED"
    (ran,) = cluster.said("second edit", run)
    assert "/runtime_resources/" in ran, "the job runs Ray's copy, although another coldtune is installed"
    cluster.idle()

    # Third submission: it runs to its end.
    cluster.edit("third edit")
    run = cluster.submit("third")
    assert run.wait() == 0, run.text
    assert cluster.job("third")["status"] == "SUCCEEDED"
    assert cluster.said("third edit", run) == {str(cluster.clone / EDITED)}
    study, runs = study_of(home), Runs(home)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert len(runs.parents) == 1
    assert sorted(runs.trials) == [0, 1]
    assert {each.info.status for each in [*runs.parents, *runs.trials.values()]} == {"FINISHED"}
    for trial in study.trials:
        steps = runs.steps(trial.number, "train/loss")
        reached = caught.get(Path(trial.user_attrs["checkpoint"]).parent.name, 0)
        assert [step for step in steps if step <= reached] == list(range(10, reached + 1, 10)), "not trained again"
        assert set(steps) == set(range(10, LAST + 1, 10))
