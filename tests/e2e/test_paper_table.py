"""Two tables of the paper: four short trials, and a second table that reuses a training of the first."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from e2e_lab import Lab, Running, Runs
from optuna.trial import FrozenTrial, TrialState

from coldtune.studies.spec.folder import studies
from coldtune.studies.trials.reading import read_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]
SETTINGS = ["training.steps=4", "training.batch_size=8", "degradation.steps=5", "protocol.num_images=40"]


def start(lab: Lab, home: Path, number: str) -> Running:
    job = [sys.executable, "jobs/paper_table.py", "--home", str(home), "--table", number]
    return lab.start([*job, "--set", *SETTINGS])


def trials_of(home: Path, number: str) -> list[FrozenTrial]:
    (folder,) = [folder for folder in studies(home) if folder.name.startswith(f"paper_table_{number}_")]
    return read_study(folder).trials()


def row(home: Path, number: str) -> list[str]:
    """Return our cells of the Markdown table, without their intervals."""
    (path,) = home.glob(f"studies/paper_table_{number}_*/table.md")
    (line,) = re.findall(r"^\| digits, ours \| (.+) \|$", path.read_text(), re.MULTILINE)
    return [cell.partition(" ")[0] for cell in line.split(" | ")]


def test_paper_table_second_table_reuses_training_of_first(lab: Lab) -> None:
    home = lab.path / "home"
    run = start(lab, home, "4")
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    assert "interrupted" not in run.text
    assert "2 trainings of 4 steps of 8 images" in run.text, "the cost is printed"
    assert run.text.index("2 trainings of") < run.text.index("trial 0")
    trials = {trial.params["variant"]: trial for trial in trials_of(home, "4")}
    assert [trial.state for trial in trials.values()] == [TrialState.COMPLETE] * 4
    order = ["fixed noise", "estimated noise", "perfect symmetry", "broken symmetry"]
    assert row(home, "4") == [f"{trials[name].value:.2f}" for name in order]
    for cell in row(home, "4"):
        assert cell in run.text
    assert "N = 40 is below 4 d = 256" in run.text

    runs = Runs(home)
    (parent,) = runs.parents
    assert parent.info.status == "FINISHED"
    assert {file.path for file in runs.client.list_artifacts(parent.info.run_id)} >= {"table.md", "table.tex"}
    text = Path(runs.client.download_artifacts(parent.info.run_id, "table.md")).read_text()
    assert {number: run.data.tags["variant"] for number, run in runs.trials.items()} == {
        trial.number: name for name, trial in trials.items()
    }
    (written,) = home.glob("studies/*/table.md")
    assert text == written.read_text()

    second = start(lab, home, "A.7")
    assert second.wait() == 0, second.text
    lab.wait_until_empty()
    assert "through the network and back; in the store already; " in second.text
    (found,) = trials_of(home, "A.7")
    assert {stage: was_found for stage, _, was_found, _ in found.user_attrs["stages"]}["train"]
    broken = trials["broken symmetry"].user_attrs["metrics"]
    assert row(home, "A.7") == [f"{broken['fid_direct']:.2f}", f"{broken['fid']:.2f}"]


def test_paper_table_impossible_dataset_is_refused_before_start(lab: Lab) -> None:
    run = lab.start([sys.executable, "jobs/paper_table.py", "--table", "5", "--home", str(lab.path / "home")])
    assert run.wait() == 2
    assert run.text.startswith("error: --table 5 --dataset digits: its images have a single channel")
    assert not (lab.path / "home").exists()
